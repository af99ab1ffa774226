"""Sorting in slices: `sorted` of the hundred thousand keys of a memtable takes 30 ms and gives way to nobody.

A sample sort (Frazer and McKellar 1970): a sample of the keys, sorted, gives the bounds of buckets; each key goes to
its bucket by bisection, some keys at a time; then each bucket is sorted by itself, when its turn comes. It takes a
fifth longer than `sorted`. A bucket holds about SORT_SLICE_KEYS, and seldom twice as many; only keys that came in an
order with the very step of the sample can make it large, which costs what `sorted` does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Generator, Iterator
from itertools import islice
from typing import Final

from leafdb.limits import SORT_SLICE_KEYS

_SAMPLED: Final = 8
"""Of each bucket's keys so many are in the sample, about."""


def sort_slices(keys: Collection[bytes]) -> Generator[None, None, Iterator[list[bytes]]]:
    """The keys in order, at most SORT_SLICE_KEYS in a list; they are all different. They are spread in steps of as many
    keys; a bucket is sorted when its first list is asked for."""
    sample = sorted(islice(keys, 0, None, SORT_SLICE_KEYS // _SAMPLED))
    bounds = sample[_SAMPLED::_SAMPLED]
    buckets: list[list[bytes]] = [[] for _ in range(len(bounds) + 1)]
    rest = iter(keys)
    while part := list(islice(rest, SORT_SLICE_KEYS)):
        yield
        for key in part:
            buckets[bisect_right(bounds, key)].append(key)
    return (
        bucket[start : start + SORT_SLICE_KEYS]
        for bucket in map(sorted, buckets)
        for start in range(0, len(bucket), SORT_SLICE_KEYS)
    )
