"""A tree built page by page beside writes is that of the range as it is in the end; marks in the log say as much."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.codec.checksum import xxh3_64
from leafdb.merkle import building
from leafdb.merkle.building import Building
from leafdb.merkle.kept import (
    NOTHING,
    LoggedChange,
    LoggedChanges,
    SavedBucket,
    SavedTree,
    bucket_key,
    decode_saved,
    encode_bucket,
    encode_tree,
    tree_key,
)
from leafdb.merkle.tree import Tree, leaf_of, record_digest
from leafdb.types import BucketId, PartitionId

Store = dict[bytes, bytes]


def tree_of(store: Store) -> Tree:
    tree = Tree()
    for key, record in store.items():
        tree.add(key, record)
    return tree


def write(store: Store, made: Building, key: bytes, new: bytes | None) -> None:
    old = store.get(key)
    delta = (0 if old is None else xxh3_64(key + old)) ^ (0 if new is None else xxh3_64(key + new))
    if new is not None:
        store[key] = new
    else:
        store.pop(key, None)
    made.changed(key, leaf_of(key), delta, (new is not None) - (old is not None))


def some_writes(rng: Random, store: Store, made: Building, most: int) -> None:
    for _ in range(rng.randrange(most + 1)):
        new = None if rng.random() < 0.3 else rng.randbytes(3)
        write(store, made, b"%03d" % rng.randrange(300), new)


def page_of(store: Store, start: bytes, size: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
    keys = sorted(key for key in store if key >= start)
    items = [(key, store[key]) for key in keys[:size]]
    return items, None if len(keys) <= size else items[-1][0] + b"\0"


@pytest.mark.parametrize("seed", range(200))
def test_writes_before_beside_and_behind_pages_all_count_once(seed: int) -> None:
    rng = Random(seed)
    store: Store = {b"%03d" % rng.randrange(300): rng.randbytes(3) for _ in range(rng.randrange(200))}
    made = Building()
    start: bytes | None = b""
    while start is not None:
        some_writes(rng, store, made, 5)  # between pages
        made.page_asked()
        items, end = page_of(store, start, rng.randrange(1, 40))
        some_writes(rng, store, made, 20)  # while it is on its way
        assert made.page_came(items, end)
        assert end is None or made.tree.encode() != b""
        start = end
    assert made.tree.encode() == tree_of(store).encode()


def test_a_page_during_which_too_much_is_written_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MEANWHILE_MAX", 3)
    store: Store = {b"%03d" % number: b"a" for number in range(20)}
    made = Building()
    made.page_asked()
    items, end = page_of(store, b"", 10)
    for number in range(4):
        write(store, made, b"%03d" % number, b"b")
    assert not made.page_came(items, end)
    made.page_asked()
    items, end = page_of(store, b"", 30)
    write(store, made, b"000", None)
    assert made.page_came(items, end)
    assert made.tree.encode() == tree_of(store).encode()


def test_a_page_that_was_lost_leaves_nothing_behind() -> None:
    store: Store = {b"a": b"1"}
    made = Building()
    made.page_asked()
    write(store, made, b"a", b"2")
    made.page_asked()  # the first one failed
    items, end = page_of(store, b"", 10)
    assert made.page_came(items, end)
    assert made.tree.encode() == tree_of(store).encode()


# -- the log and what is saved


def test_what_the_log_says_of_writes_adds_up_to_the_tree() -> None:
    rng = Random(1)
    store: Store = {}
    logged = LoggedChanges()
    for lsn in range(1, 400):
        key = rng.randbytes(1) + b"-%02d" % rng.randrange(40)
        old, new = store.get(key), None if rng.random() < 0.3 else rng.randbytes(4)
        logged.add(lsn, 4_000_000_000, key, new, NOTHING if old is None else record_digest(key, old))
        if new is None:
            store.pop(key, None)
        else:
            store[key] = new
    tree = Tree()
    for lsn, change in enumerate(logged, 1):
        assert change[:2] == (lsn, 4_000_000_000)
        assert change.known
        tree.change(change.leaf, change.delta, change.keys)
    assert len(logged) == 399
    assert tree.encode() == tree_of(store).encode()


def test_a_write_without_a_mark_says_so() -> None:
    logged = LoggedChanges()
    logged.add(7, 300, b"\xab\xcd-key", b"record", b"")
    logged.add(8, 300, b"\xab\xcd-key", b"record", NOTHING)
    first, second = logged
    assert not first.known
    key = b"\xab\xcd-key"
    assert second == LoggedChange(8, BucketId(300), 0xABCD, leaf_of(key), xxh3_64(key + b"record"), 1, True)


def test_saved_entries_are_what_the_page_says() -> None:
    tree = tree_of({bytes(8) + b"a\0\1": b"rec"})
    key, value = tree_key(BucketId(256), PartitionId(3)), encode_tree(77, tree)
    assert key == bytes.fromhex("02 00000100 0003")
    assert value == bytes.fromhex("01 000000000000004d") + tree.encode()
    assert bucket_key(BucketId(256)) == bytes.fromhex("01 00000100")
    assert encode_bucket(256) == bytes.fromhex("01 00000100")
    saved = decode_saved(key, value)
    assert isinstance(saved, SavedTree)
    assert (saved.bucket, saved.partition, saved.lsn) == (256, 3, 77)
    assert saved.tree is not None
    assert saved.tree.encode() == tree.encode()
    assert decode_saved(bucket_key(BucketId(256)), encode_bucket(256)) == SavedBucket(BucketId(256), 256)


@pytest.mark.parametrize("value", [b"", b"\2" + bytes(8) + b"\1", b"\1" + bytes(8), b"\1" + bytes(8) + b"\1nonsense"])
def test_a_saved_tree_that_cannot_be_read_is_not_known(value: bytes) -> None:
    saved = decode_saved(tree_key(BucketId(256), PartitionId(3)), value)
    assert isinstance(saved, SavedTree)
    assert saved.tree is None


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"", b""), (b"\3" + bytes(6), b""), (b"\1" + bytes(4), b""), (b"\1" + bytes(4), b"\2" + bytes(4)), (b"\2", b"")],
)
def test_other_entries_are_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match=r"malformed|unknown"):
        decode_saved(key, value)


def test_a_copy_does_not_follow_the_tree_and_knows_its_size() -> None:
    store: Store = {b"%d" % number: b"r" for number in range(2_000)}
    tree = tree_of(store)
    full = tree.held_bytes()
    copy = tree.copy()
    before = copy.encode()
    tree.update(b"0", b"r", b"other")
    assert copy.encode() == before
    copy.check()
    assert Tree.decode(before).encode() == before
    for key in sorted(store):
        tree.update(key, b"other" if key == b"0" else b"r", None)
    assert tree.encode() == Tree().encode()
    assert tree.held_bytes() < full
