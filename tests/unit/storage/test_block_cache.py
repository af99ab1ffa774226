"""The cache holds at most its bytes, drops what was read once before the rest, and accounts for every byte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from random import Random

from leafdb.storage.block import Block, encode_block
from leafdb.storage.block_cache import BlockCache


def block(size: int = 1000) -> Block:
    return Block(encode_block([b"k"], [1], [bytes(size)]))


def test_what_was_not_read_again_goes_first() -> None:
    one = block().memory_bytes + 200
    cache = BlockCache(3 * one)
    for number in (1, 2, 3):
        cache.put(number, block())
    assert cache.get(1) is not None
    cache.put(4, block())
    assert cache.get(2) is None
    assert [cache.get(number) is not None for number in (1, 3, 4)] == [True, True, True]
    assert (cache.hits, cache.misses) == (4, 1)
    cache.check()


def test_a_block_over_the_bound_is_not_kept() -> None:
    cache = BlockCache(2000)
    cache.put(1, block(100))
    cache.put(2, block(5000))
    assert cache.get(1) is not None
    assert cache.get(2) is None
    assert BlockCache(0).get(1) is None
    cache.check()


def test_forgotten_blocks_give_their_bytes_back() -> None:
    cache = BlockCache(1 << 20)
    for number in range(5):
        cache.put(number, block())
    cache.put(3, block())  # twice is once
    cache.forget(range(10))
    assert (len(cache), cache.bytes_used) == (0, 0)


def test_threads_leave_the_account_true() -> None:
    cache = BlockCache(50_000)
    blocks = [block(size) for size in range(0, 3000, 100)]

    def hammer(seed: int) -> None:
        rng = Random(seed)
        for _ in range(3000):
            number = rng.randrange(len(blocks))
            held = cache.get(number)
            assert held is None or held is blocks[number]
            cache.put(number, blocks[number])
            if rng.random() < 0.05:
                cache.forget([rng.randrange(len(blocks))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hammer, range(4)))
    cache.check()


def test_a_new_block_is_kept_however_many_others_were_used() -> None:
    one = block().memory_bytes + 200
    for blocks in (3, 200):
        cache = BlockCache(blocks * one)
        for number in range(2 * blocks):
            cache.put(number, block())
            assert all(cache.get(other) is not None for other in (number, max(0, number - 1)))
            for other in range(number):
                cache.get(other)
            cache.check()
        assert len(cache) < 2 * blocks


def filled(blocks: int, hot: range) -> BlockCache:
    """A cache for so many blocks, full, of which those numbers were read again."""
    cache = BlockCache(blocks * (block().memory_bytes + 150))
    for number in range(blocks):
        cache.put(number, block())
    for number in hot:
        cache.get(number)
    return cache


def test_any_number_of_blocks_read_once_leaves_those_that_are_read_again() -> None:
    hot = range(20, 60)
    cache = filled(100, hot)
    for number in range(1_000, 5_000):
        cache.put(number, block())
    assert all(cache.get(number) is not None for number in hot)
    assert sum(cache.get(number) is not None for number in range(1_000, 5_000)) == 60
    cache.check()


def test_a_new_working_set_drives_out_the_one_before() -> None:
    """Also one that is larger than the young queue, so that nothing of it is read again there."""
    cache = filled(100, range(90))
    new = range(1_000, 1_070)
    for _ in range(5):
        for number in new:
            if cache.get(number) is None:
                cache.put(number, block())
    assert all(cache.get(number) is not None for number in new)
    cache.check()
