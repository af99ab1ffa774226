"""The rules of a scan against a model: what all pages cover is final, nothing is skipped, every page moves on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.model.actor import ActorIdentity
from leafdb.model.record import decode, first, merge
from leafdb.node.scan_merge import (
    ReplicaPage,
    holds,
    merge_pages,
    partitions_between,
    problem,
    run_at,
    whole_range,
)
from leafdb.ring.ring import Ring
from leafdb.ring.token import STORAGE_KEY_END, partition_range
from leafdb.types import Conflict, NodeId, PartitionId
from support.clusters import cluster

WRITERS = [ActorIdentity(7, NodeId(number), 1).actor(1) for number in (1, 2, 3)]
KEYS = st.binary(min_size=1, max_size=2)
STORES = st.lists(st.dictionaries(KEYS, st.integers(0, 2), max_size=12), min_size=1, max_size=3)


def record(writer: int) -> bytes:
    """What one of three concurrent writers wrote."""
    return first(WRITERS[writer], 1 << 20, 0, bytes(15) + bytes((writer,)), b"by %d" % writer)


def read(store: dict[bytes, bytes], start: bytes, stop: bytes, limit: int, *, reverse: bool) -> ReplicaPage:
    """A page as the engine makes it: `next` is behind the last key looked at, or that key itself in reverse."""
    inside = sorted((key for key in store if start <= key < stop), reverse=reverse)
    page = inside[:limit]
    end = b"" if len(inside) <= limit else page[-1] if reverse else page[-1] + b"\0"
    return ReplicaPage([(key, store[key]) for key in page], end, True)


def union(stores: list[dict[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Every key of any store with the merge of what the stores hold."""
    merged: dict[bytes, bytes] = {}
    for store in stores:
        for key, value in store.items():
            merged[key] = merge(merged[key], value, Conflict.SIBLINGS) if key in merged else value
    return sorted(merged.items())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(STORES, st.lists(st.integers(1, 4), min_size=3, max_size=3), st.booleans())
def test_pages_of_any_size_make_the_union(stores: list[dict[bytes, int]], limits: list[int], reverse: bool) -> None:
    """However unevenly replicas page, each key comes exactly once, in order, with every replica's siblings."""
    held = [{key: record(writer) for key, writer in store.items()} for store in stores]
    start, stop = b"", b"\xff\xff\xff"
    seen: list[tuple[bytes, bytes]] = []
    for _ in range(100):
        pages = [read(store, start, stop, limit, reverse=reverse) for store, limit in zip(held, limits, strict=False)]
        assert all(problem(page, start, stop, reverse=reverse) is None for page in pages)
        merged = merge_pages(pages, Conflict.SIBLINGS, reverse=reverse)
        seen += merged.items
        if not merged.next:
            break
        if reverse:
            assert merged.next < stop, "a page moves on"
            stop = merged.next
        else:
            assert merged.next > start, "a page moves on"
            start = merged.next
    expected = union(held)
    assert [key for key, _ in seen] == [key for key, _ in (reversed(expected) if reverse else expected)]
    assert {key: decode(value) for key, value in seen} == {key: decode(value) for key, value in expected}


def test_a_key_beyond_the_shortest_page_waits() -> None:
    """Replica 2 has not said anything about e yet: showing replica 1's version would hide what it may hold."""
    long = ReplicaPage([(b"a", record(0)), (b"b", record(0)), (b"e", record(0))], b"e\0", True)
    short = ReplicaPage([(b"a", record(1)), (b"d", record(1))], b"d\0", True)
    merged = merge_pages([long, short], Conflict.SIBLINGS, reverse=False)
    assert [key for key, _ in merged.items] == [b"a", b"b", b"d"]
    assert merged.next == b"d\0"
    assert len(decode(merged.items[0][1]).siblings) == 2


def test_an_unfinished_page_in_reverse_covers_its_last_key() -> None:
    long = ReplicaPage([(b"e", record(0)), (b"b", record(0))], b"b", True)
    short = ReplicaPage([(b"d", record(1))], b"d", True)
    merged = merge_pages([long, short], Conflict.SIBLINGS, reverse=True)
    assert ([key for key, _ in merged.items], merged.next) == ([b"e", b"d"], b"d")


@pytest.mark.parametrize(
    ("items", "end", "reverse", "wrong"),
    [
        ([b"c", b"b"], b"", False, "order"),
        ([b"b", b"b"], b"", False, "order"),
        ([b"b", b"c"], b"", True, "order"),
        ([b"z"], b"", False, "outside"),
        ([b"a"], b"", False, "outside"),
        ([b"c"], b"c", False, "beyond"),
        ([b"c"], b"d", True, "beyond"),
        ([], b"b", False, "outside"),
        ([], b"q", False, "outside"),
        ([], b"m", True, "outside"),
        ([b"b", b"c"], b"c\0", False, None),
        ([b"c", b"b"], b"b", True, None),
        ([], b"m", False, None),
        ([], b"b", True, None),
    ],
)
def test_a_page_that_lies_is_told(items: list[bytes], end: bytes, reverse: bool, wrong: str | None) -> None:
    """A peer's page is merged only if it can be true of the range [b, m)."""
    found = problem(ReplicaPage([(key, record(0)) for key in items], end, True), b"b", b"m", reverse=reverse)
    assert found is None if wrong is None else found is not None and wrong in found


def test_runs_tile_the_ring_and_never_mix_primaries() -> None:
    """Walking run by run, either way, meets every partition once, and each run has one set of primaries."""
    ring = Ring(cluster(5, partitions=32))
    for reverse in (False, True):
        start, stop = whole_range(b"", b"")
        parts: list[int] = []
        while start < stop:
            run = run_at(ring, 3, start, stop, reverse=reverse, partitions_max=4)
            members = set(run.primaries)
            here = list(range(run.first, run.first + run.partitions))
            assert 1 <= run.partitions <= 4
            assert all(set(ring.primaries(PartitionId(part), 3)) == members for part in here)
            assert list(partitions_between(ring, run.start, run.stop)) == here
            assert all(holds(ring, node, 3, range(here[0], here[-1] + 1)) for node in members)
            if reverse:
                assert run.stop == stop
                stop = run.start
                parts = here + parts
            else:
                assert run.start == start
                start = run.stop
                parts += here
        assert parts == list(range(32))


def test_a_bound_cut_short_is_filled_up() -> None:
    """What lies below the first partition's start is no part of the ring: a scan in reverse must end there."""
    assert whole_range(b"", b"") == (bytes(8), STORAGE_KEY_END)
    assert whole_range(b"\1", b"\2") == (b"\1" + bytes(7), b"\2" + bytes(7))
    assert whole_range(b"k" * 20, b"\xff" * 8_000) == (b"k" * 20, STORAGE_KEY_END)


def test_a_run_is_bounded_by_the_range_asked_for() -> None:
    """With three nodes and three copies all partitions have the same primaries: the range itself is the bound."""
    ring = Ring(cluster(3, partitions=16))
    whole = run_at(ring, 3, *whole_range(b"", b""), reverse=False, partitions_max=256)
    assert (whole.first, whole.partitions, whole.stop) == (0, 16, STORAGE_KEY_END)
    low, high = partition_range(PartitionId(3), 16)[0] + b"k", partition_range(PartitionId(5), 16)[0]
    for reverse in (False, True):
        run = run_at(ring, 3, low, high, reverse=reverse, partitions_max=256)
        assert (run.first, run.partitions, run.start, run.stop) == (3, 2, low, high)


def test_a_node_that_holds_only_a_part_does_not_hold_the_range() -> None:
    ring = Ring(cluster(5, partitions=32))
    outsider = next(node for node in ring.loads if node not in ring.primaries(PartitionId(7), 3))
    assert not holds(ring, outsider, 3, range(6, 9))
