"""Many sorted runs as one, with one entry a key: the newest.

Two forms of one idea. `merge` takes entries one by one and serves scans, in either direction, over memtables and
tables. `merge_columns` serves compaction: it takes whole chunks of columns, so that the work for an entry is a
dictionary insert and a share of one sort, both in C. It advances to the smallest last key among the loaded chunks: up
to there every source's entries are at hand, and no later chunk can hold a smaller key.

The newest entry is the one of the highest sequence; sources are given newest first, and that order decides only between
entries of one sequence, which are copies of each other. Tombstones are passed on: whether one may be dropped is the
caller's knowledge.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from leafdb.storage.block import Columns, Entry, Stored

_Ranked = tuple[bytes, int, int, Stored]
_Pair = tuple[int, Stored]


def merge(sources: Sequence[Iterator[Entry]], *, reverse: bool = False) -> Iterator[Entry]:
    """The newest entry of each key, in order. Newest source first; each is sorted, descending with `reverse`."""
    if len(sources) == 1:
        yield from sources[0]
        return
    if reverse:
        ranked = heapq.merge(*(_ranked_down(rank, s) for rank, s in enumerate(sources)), reverse=True)
    else:
        ranked = heapq.merge(*(_ranked_up(rank, source) for rank, source in enumerate(sources)))
    last: bytes | None = None
    for key, age, _, value in ranked:
        if key != last:
            last = key
            yield key, age if reverse else -age, value


def _ranked_up(rank: int, source: Iterator[Entry]) -> Iterator[_Ranked]:
    """Entries so that, ascending, the newest of a key comes first; the value is never reached by a comparison."""
    for key, sequence, value in source:
        yield key, -sequence, rank, value


def _ranked_down(rank: int, source: Iterator[Entry]) -> Iterator[_Ranked]:
    """Entries so that, descending, the newest of a key comes first."""
    for key, sequence, value in source:
        yield key, sequence, -rank, value


class _Run:
    """One source with the chunk it stands in and how far that chunk is used up."""

    __slots__ = ("chunks", "keys", "position", "sequences", "values")

    def __init__(self, chunks: Iterator[Columns]) -> None:
        self.chunks = chunks
        self.keys: list[bytes] = []
        self.position = 0

    @property
    def used_up(self) -> bool:
        """No entry is at hand."""
        return self.position >= len(self.keys)

    def fill(self) -> bool:
        """Have an entry at hand; False when the source has ended."""
        while self.used_up:
            chunk = next(self.chunks, None)
            if chunk is None:
                return False
            self.keys, self.sequences, self.values = chunk
            self.position = 0
        return True

    def take(self, bound: bytes) -> Columns | None:
        """What is at hand up to `bound` and including it; None when that is nothing."""
        start = self.position
        stop = bisect_right(self.keys, bound, start)
        if stop == start:
            return None
        self.position = stop
        if start == 0 and stop == len(self.keys):
            return self.keys, self.sequences, self.values
        return self.keys[start:stop], self.sequences[start:stop], self.values[start:stop]


def merge_columns(sources: Sequence[Iterator[Columns]]) -> Iterator[Columns | None]:
    """The newest entry of each key, in ascending runs. Newest source first; every source ascends strictly. None: one
    more chunk was read, which is work enough to give way after."""
    runs = [_Run(source) for source in sources]
    while True:
        for run in [run for run in runs if run.used_up]:
            if not run.fill():
                runs.remove(run)
            yield None
        if not runs:
            return
        bound = min([run.keys[-1] for run in runs])
        parts = [part for run in runs if (part := run.take(bound)) is not None]
        yield parts[0] if len(parts) == 1 else _newest(parts)


def _newest(parts: list[Columns]) -> Columns:
    """The parts, newest first, as one run: for every key the entry of the highest sequence."""
    newest: dict[bytes, _Pair] = {}
    for keys, sequences, values in reversed(parts):
        if newest.keys().isdisjoint(keys):
            newest.update(zip(keys, zip(sequences, values, strict=True), strict=True))
            continue
        for key, sequence, value in zip(keys, sequences, values, strict=True):
            held = newest.get(key)
            if held is None or held[0] <= sequence:
                newest[key] = (sequence, value)
    merged = sorted(newest)
    sequences, values = zip(*[newest[key] for key in merged], strict=True)
    return merged, sequences, values
