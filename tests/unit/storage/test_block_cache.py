"""The cache holds at most its bytes, drops what was read once before the rest, and accounts for every byte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

from leafdb.storage.block import Block, encode_block
from leafdb.storage.block_cache import BLOCKS_BITS, BlockCache, Blocks


def block(size: int = 1000) -> Block:
    return Block(encode_block([b"k"], [1], [bytes(size)]))


def held(blocks: Blocks) -> list[int]:
    return [index for index, block in enumerate(blocks) if block is not None]


def use(blocks: Blocks, index: int) -> None:
    found = blocks[index]
    assert found is not None
    found.used = True


def test_what_was_read_once_goes_first() -> None:
    one = block().memory_bytes + 200
    cache, blocks = BlockCache(3 * one), Blocks([None] * 10)
    for number in (1, 2, 3):
        cache.put(number, blocks, block())
    use(blocks, 1)
    for number, left in ((4, [1, 3, 4]), (5, [1, 4, 5]), (6, [1, 5, 6])):
        cache.put(number, blocks, block())
        assert held(blocks) == left
    cache.check()


def test_a_block_over_the_bound_is_not_kept() -> None:
    cache, blocks = BlockCache(2000), Blocks([None] * 3)
    cache.put(1, blocks, block(100))
    cache.put(2, blocks, block(5000))
    assert held(blocks) == [1]
    nothing = BlockCache(0)
    nothing.put(0, blocks, block(1))
    assert held(blocks) == [1]
    cache.check()


def test_forgotten_blocks_give_their_bytes_back() -> None:
    cache, blocks = BlockCache(1 << 20), Blocks([None] * 5)
    first = 7 << BLOCKS_BITS
    for index in range(5):
        cache.put(first + index, blocks, block())
    kept = blocks[3]
    cache.put(first + 3, blocks, block())
    assert blocks[3] is kept, "twice is once"
    cache.forget(range(first, first + 10))
    assert (len(cache), cache.bytes_used, held(blocks)) == (0, 0, [])


def test_tables_share_the_room() -> None:
    one = block().memory_bytes + 200
    cache = BlockCache(2 * one)
    mine, theirs = Blocks([None]), Blocks([None, None])
    cache.put(1 << BLOCKS_BITS, mine, block())
    for index in (0, 1):
        cache.put(2 << BLOCKS_BITS | index, theirs, block())
    assert (held(mine), held(theirs)) == ([], [0, 1])
    cache.check()


def test_threads_leave_the_account_true() -> None:
    cache = BlockCache(50_000)
    made = [block(size) for size in range(0, 3000, 100)]
    blocks = Blocks([None] * len(made))

    def hammer(seed: int) -> None:
        rng = Random(seed)
        for _ in range(3000):
            number = rng.randrange(len(made))
            found = blocks[number]
            assert found is None or found is made[number]
            if found is not None:
                found.used = True
            cache.put(number, blocks, made[number])
            if rng.random() < 0.05:
                cache.forget([rng.randrange(len(made))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hammer, range(4)))
    cache.check()


def test_a_new_block_is_kept_however_many_others_were_used() -> None:
    one = block().memory_bytes + 200
    for room in (3, 200):
        cache, blocks = BlockCache(room * one), Blocks([None] * (2 * room))
        for number in range(2 * room):
            cache.put(number, blocks, block())
            assert number in held(blocks)
            for index in held(blocks):
                use(blocks, index)
            cache.check()
        assert len(held(blocks)) < 2 * room


ROOM = 100


def filled(used: range) -> tuple[BlockCache, Blocks]:
    """A full cache with room for ROOM blocks, of which these were read again."""
    cache, blocks = BlockCache(ROOM * (block().memory_bytes + 150)), Blocks([None] * 5_000)
    for number in range(ROOM):
        cache.put(number, blocks, block())
    for number in used:
        use(blocks, number)
    return cache, blocks


def test_any_number_of_blocks_read_once_leaves_those_that_are_read_again() -> None:
    hot = range(20, 60)
    cache, blocks = filled(hot)
    for number in range(1_000, 5_000):
        cache.put(number, blocks, block())
    assert held(blocks) == [*hot, *range(4_940, 5_000)]
    cache.check()


def test_a_new_working_set_drives_out_the_one_before() -> None:
    """Also one that is larger than the young queue, so that nothing of it is read again there."""
    cache, blocks = filled(range(90))
    new = range(1_000, 1_070)
    for _ in range(5):
        for number in new:
            if blocks[number] is None:
                cache.put(number, blocks, block())
            else:
                use(blocks, number)
    assert set(held(blocks)) >= set(new)
    cache.check()
