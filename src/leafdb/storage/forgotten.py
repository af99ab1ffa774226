"""What the owner of a store has forgotten: plain data by which tables are found that hold nothing any more.

The owner says of a range of keys: whatever in it expires before this time I have deleted, as far as it was written by
this sequence number. It says so when these deletions are synced. So each entry that a table holds of the range, from no
later than that number, which expires before that time, lies under something newer: it is read by nobody, and will be
by nobody. The engine knows no clock for that, and no reason.

What the owner says of a range replaces what it said before. Where a damaged table left a hole, something may show that
was deleted: then nothing that was said holds any more, also what is on its way (`clear`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

from leafdb.storage.version import TableMeta


class Told(NamedTuple):
    """What was said of a range: from `start`, and before `stop` (None: no end)."""

    start: bytes
    stop: bytes | None
    expires_ms: int
    upto_lsn: int


class Forgotten:
    """Disjoint ranges, each with what was said of it last."""

    __slots__ = ("_starts", "_told", "life")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._told: list[Told] = []
        self.life = 0
        """Counts what `clear` has ended."""

    def tell(self, told: Told) -> None:
        """Whoever tells of ranges always tells of the same ones: this is one of them, or a new one between them."""
        at = bisect_left(self._starts, told.start)
        if at < len(self._starts) and self._starts[at] == told.start:
            self._told[at] = told
        else:
            self._starts.insert(at, told.start)
            self._told.insert(at, told)

    def clear(self) -> None:
        """Nothing of it holds any more."""
        self._starts.clear()
        self._told.clear()
        self.life += 1

    def has(self, meta: TableMeta) -> bool:
        """Whether all that the table holds and that expires was forgotten; of what does not expire, or of which that is
        not known, nothing is said: see `TableMeta.newest_expiry_ms`."""
        at = bisect_right(self._starts, meta.smallest) - 1
        if at < 0:
            return False
        reached = self._told[at].start
        for told in self._told[at:]:
            if told.start != reached or told.expires_ms <= meta.newest_expiry_ms or told.upto_lsn < meta.sequence_max:
                return False
            if told.stop is None or told.stop > meta.largest:
                return True
            reached = told.stop
        return False

    def check(self) -> None:
        assert self._starts == [told.start for told in self._told]
        for told, after in zip(self._told, self._told[1:], strict=False):
            assert told.stop is not None, "a range behind one without end"
            assert told.start < told.stop <= after.start, "ranges that overlap"
