"""The rules of a scan: what pages of several replicas say together. Pure; `scan_driver` asks for the pages.

A page shows what one replica holds of the range from where the scan stands to where the page ends: in order, nothing
left out. So a key that is missing inside that part is missing there, and a key beyond it says nothing. What all pages
cover is final; the rest is left for the next page, where it will be asked for again.

    replica 1   a b . d e |            ends behind e
    replica 2   a . c d |              ends behind d
    final       a b c d                e waits: replica 2 may hold another version of it

Positions are bounds between keys, the same in both directions: forward the scan stands at the key to go on from
(included), in reverse at the key to go on below (excluded). The two together are a half-open range in either case.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from leafdb.limits import SCAN_PARTITIONS_MAX
from leafdb.model.record import merge
from leafdb.ring.ring import Ring
from leafdb.ring.token import STORAGE_KEY_END, TOKEN_BYTES, partition_range
from leafdb.types import Conflict, NodeId, PartitionId, Token

RUN_PARTITIONS_MAX: Final = SCAN_PARTITIONS_MAX


class ReplicaPage(NamedTuple):
    """What a replica showed. `next` is the position where its page ends; empty: it covers the range to its end."""

    items: Sequence[tuple[bytes, bytes]]
    next: bytes
    complete: bool
    """False: the replica may have forgotten something here, so its "absent" does not count."""
    horizons: tuple[int, ...] = ()
    """Not empty: it has heard of newer horizons than it was asked by, and shows nothing. These are those of each
    partition."""


class MergedPage(NamedTuple):
    """The final part: each key's merged record, in the scan's order. `next` as above."""

    items: list[tuple[bytes, bytes]]
    next: bytes


class Run(NamedTuple):
    """Neighbouring partitions with the same primaries: from `start` (in) to `stop` (out)."""

    first: PartitionId
    partitions: int
    start: bytes
    stop: bytes
    primaries: tuple[NodeId, ...]
    range_epoch: int
    """Of their last topology change."""


def whole_range(start: bytes, stop: bytes) -> tuple[bytes, bytes]:
    """The range a client asked for, as positions with whole tokens; an empty `stop` is the end of everything. Storage
    keys are longer than a token, so none lies between a position that was cut short and the same one filled up."""
    low, high = start.ljust(TOKEN_BYTES, b"\0"), stop.ljust(TOKEN_BYTES, b"\0")
    return low, min(high, STORAGE_KEY_END) if stop else STORAGE_KEY_END


def merge_pages(pages: Sequence[ReplicaPage], conflict: Conflict, *, reverse: bool) -> MergedPage:
    """What the pages, all of one range, say of the part that all of them cover. Raises RecordError."""
    assert pages
    ends = [page.next for page in pages if page.next]
    end = b"" if not ends else max(ends) if reverse else min(ends)
    merged: dict[bytes, bytes] = {}
    for page in pages:
        for key, record in page.items:
            if end and (key < end if reverse else key >= end):
                break
            known = merged.get(key)
            merged[key] = record if known is None else merge(known, record, conflict)
    return MergedPage(sorted(merged.items(), reverse=reverse), end)


def problem(page: ReplicaPage, start: bytes, stop: bytes, *, reverse: bool) -> str | None:
    """What is wrong with a page of [start, stop) that another process sent; None when it can be merged."""
    last: bytes | None = None
    for key, _ in page.items:
        if not start <= key < stop:
            return "a key outside the range asked for"
        if last is not None and (key >= last if reverse else key <= last):
            return "keys out of order"
        last = key
    if page.next:
        if not (start <= page.next < stop if reverse else start < page.next <= stop):
            return "an end outside the range asked for"
        if last is not None and (last < page.next if reverse else last >= page.next):
            return "a key beyond its end"
    return None


def run_at(ring: Ring, n: int, start: bytes, stop: bytes, *, reverse: bool, partitions_max: int) -> Run:
    """The run the scan of [start, stop) reads next: from the partition of its first key on, or back from its last."""
    assert len(start) >= TOKEN_BYTES
    assert start < stop
    at = _partition_below(ring, stop) if reverse else partition_at(ring, start)
    primaries = ring.primaries(at, n)
    members = set(primaries)
    first = last = at
    while last - first + 1 < partitions_max:
        following = PartitionId(first - 1 if reverse else last + 1)
        if not 0 <= following < ring.partitions or set(ring.primaries(following, n)) != members:
            break
        low, high = partition_range(following, ring.partitions)
        if high <= start or low >= stop:
            break
        first, last = min(first, following), max(last, following)
    low, high = partition_range(first, ring.partitions)[0], partition_range(last, ring.partitions)[1]
    epoch = range_epoch(ring, range(first, last + 1))
    return Run(first, last - first + 1, max(low, start), min(high, stop), primaries, epoch)


def holds(ring: Ring, node: NodeId, n: int, partitions: range) -> bool:
    """Whether `node` is of every one of the partitions an owner that reads ask."""
    return all(node in ring.primaries(PartitionId(partition), n) for partition in partitions)


def range_epoch(ring: Ring, partitions: range) -> int:
    """The epoch of the last topology change of any of the partitions.

    Rings of one history that agree in it agree in that of each partition: what one of them has not heard of bears an
    epoch above everything it knows.
    """
    return max(int(ring.range_epoch(PartitionId(partition))) for partition in partitions)


def partitions_between(ring: Ring, start: bytes, stop: bytes) -> range:
    """The partitions that the non-empty range touches."""
    assert start < stop
    return range(partition_at(ring, start), _partition_below(ring, stop) + 1)


def partition_at(ring: Ring, key: bytes) -> PartitionId:
    """Where a key, or a position, falls."""
    return ring.partition_of(Token(int.from_bytes(key[:TOKEN_BYTES], "big")))


def _partition_below(ring: Ring, stop: bytes) -> PartitionId:
    """Where the keys right below `stop` fall."""
    if stop >= STORAGE_KEY_END:
        return PartitionId(ring.partitions - 1)
    at = partition_at(ring, stop)
    return PartitionId(at - 1) if at and stop <= partition_range(at, ring.partitions)[0] else at
