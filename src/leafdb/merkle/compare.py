"""Finding what differs: between two levels of hashes, and between two lists of keys."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from leafdb.merkle.tree import DIGEST_BYTES

Entry = tuple[bytes, bytes]
"""A storage key and its record's digest."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Keys that only we have, that only they have, and that both have with different records; each in order."""

    mine: list[bytes]
    theirs: list[bytes]
    both: list[bytes]


def differing(mine: bytes, theirs: bytes) -> list[int]:
    """The places at which two levels of hashes differ."""
    assert len(mine) == len(theirs)
    if mine == theirs:
        return []
    starts = range(0, len(mine), DIGEST_BYTES)
    return [
        start // DIGEST_BYTES
        for start in starts
        if mine[start : start + DIGEST_BYTES] != theirs[start : start + DIGEST_BYTES]
    ]


def difference(mine: Sequence[Entry], theirs: Sequence[Entry]) -> Difference:
    """How two lists of the same range differ."""
    ours, others = dict(mine), dict(theirs)
    return Difference(
        mine=[key for key, _ in mine if key not in others],
        theirs=[key for key, _ in theirs if key not in ours],
        both=[key for key, digest in theirs if ours.get(key, digest) != digest],
    )


def between(entries: Sequence[Entry], after: bytes, last: bytes | None) -> Sequence[Entry]:
    """The entries with keys beyond `after`, up to and with `last` (None: to the end)."""
    start = bisect_right(entries, after, key=_key)
    stop = len(entries) if last is None else bisect_right(entries, last, key=_key)
    return entries[start:stop]


def ascending(keys: Sequence[bytes]) -> bool:
    """Whether every key is greater than the one before."""
    return all(one < later for one, later in pairwise(keys))


def _key(entry: Entry) -> bytes:
    return entry[0]
