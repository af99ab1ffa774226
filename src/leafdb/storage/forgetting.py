"""What a merge leaves out of a tree that is kept by time: values that have expired, and that their owner has forgotten.

Such a value lies under a newer deletion (`forgotten`), which may be in a table that is no input. So it is taken for a
deletion itself, and goes as deletions go, when nothing older can lie under it: whatever is merged, and whatever is in
no input, the version shows what it showed before. Of a value in a value file it is not known when it expires; it stays
until its deletion meets it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from leafdb.storage.block import Columns, Stored
from leafdb.storage.expiry import load_expiry
from leafdb.storage.forgotten import Told


class Forgetting:
    """By what was told of disjoint ranges, in their order; a filter of that name tells when a value expires."""

    __slots__ = ("_expiry", "_starts", "_told")

    def __init__(self, told: Sequence[Told], expiry: str) -> None:
        self._told = told
        self._starts = [each.start for each in told]
        self._expiry = load_expiry(expiry)

    def applied(self, columns: Columns) -> Columns:
        """The entries, those that were forgotten as deletions."""
        keys, sequences, values = columns
        kept = [self._kept(key, lsn, value) for key, lsn, value in zip(keys, sequences, values, strict=True)]
        return keys, sequences, kept

    def _kept(self, key: bytes, lsn: int, value: Stored) -> Stored:
        if not isinstance(value, bytes):
            return value
        at = bisect_right(self._starts, key) - 1
        if at < 0:
            return value
        _, stop, expires_ms, upto_lsn = self._told[at]
        if lsn > upto_lsn or (stop is not None and key >= stop):
            return value
        return None if 0 < self._expiry(value) < expires_ms else value
