"""What the owner of a store has forgotten: plain data by which tables are found that hold nothing any more.

The owner says of a range of keys: whatever in it expires before this time I have deleted, as far as it was written by
this sequence number. That counts when all writes up to that number are in tables, so that a version by itself shows
what it showed before, to a snapshot too. Then each entry that a table holds of the range, from no later than that
number, which expires before that time, lies under something newer: it is read by nobody, and will be by nobody. The
engine knows no clock for that, and no reason.

What the owner says of a range replaces what it said before; and what does not count yet never keeps waiting what was
said before it. Where a damaged table left a hole, something may show that was deleted: then nothing that was said holds
any more (`clear`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any, NamedTuple

from leafdb.storage.version import TableMeta


class Told(NamedTuple):
    """What was said of a range: from `start`, and before `stop` (None: no end)."""

    start: bytes
    stop: bytes | None
    expires_ms: int
    upto_lsn: int


def told_from_plain(plain: Any) -> Told:
    """The reverse of `list(told)`. ValueError when malformed."""
    if not isinstance(plain, list) or len(plain) != len(Told._fields):
        raise ValueError("what was forgotten is told by four items")
    told = Told(*plain)
    fits = type(told.start) is bytes and (told.stop is None or type(told.stop) is bytes)
    if not fits or any(type(number) is not int or number < 0 for number in told[2:]):
        raise ValueError(f"what was forgotten is told by {plain!r:.80}")
    return told


class Forgotten:
    """Disjoint ranges, each with what was said of it last."""

    __slots__ = ("_last", "_looked", "_next", "_said", "_starts", "_told")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._told: list[Told] = []
        """What counts, by range, in their order."""
        self._next: dict[bytes, Told] = {}
        """What will count next, by the start of the range."""
        self._last: dict[bytes, Told] = {}
        """What was said since."""
        self._said = 0
        self._looked = 0, 0

    def tell(self, told: Told) -> None:
        """Whoever tells of ranges always tells of the same ones: this is one of them, or a new one between them."""
        self._said += 1
        if told.start in self._next:
            self._last[told.start] = told
        else:
            self._next[told.start] = told

    def flushed(self, lsn: int) -> bool:
        """All writes up to this number are in tables; answers whether more counts now."""
        if self._looked == (lsn, self._said):
            return False
        self._looked = lsn, self._said
        due = [told for said in (self._next, self._last) for told in said.values() if told.upto_lsn <= lsn]
        for told in due:  # of one range in the order in which it was said
            self._counts(told)
            if self._last.get(told.start) == told:
                del self._last[told.start]
            self._next.pop(told.start, None)
            if told.start in self._last:
                self._next[told.start] = self._last.pop(told.start)
        return bool(due)

    def _counts(self, told: Told) -> None:
        at = bisect_left(self._starts, told.start)
        if at < len(self._starts) and self._starts[at] == told.start:
            self._told[at] = told
        else:
            self._starts.insert(at, told.start)
            self._told.insert(at, told)

    def clear(self) -> None:
        """Nothing of it holds any more."""
        for said in (self._starts, self._told, self._next, self._last):
            said.clear()

    def within(self, smallest: bytes, largest: bytes) -> tuple[Told, ...]:
        """What counts of the closed range, in order."""
        first = max(0, bisect_right(self._starts, smallest) - 1)
        return tuple(self._told[first : bisect_right(self._starts, largest)])

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
        assert self._last.keys() <= self._next.keys()
        for told, after in zip(self._told, self._told[1:], strict=False):
            assert told.stop is not None, "a range behind one without end"
            assert told.start < told.stop <= after.start, "ranges that overlap"
