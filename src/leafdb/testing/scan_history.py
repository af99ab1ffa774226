"""What a scan or a range must show: every key that was there all the while, in order, and nothing that nobody wrote.

A key was there all the while when a quorum had acknowledged a lasting value before the scan began, and no deletion and
no expiring write that began before the scan ended covers that value. (A value that another lasting value covers is
replaced by something that is there too: contexts are closed under what they cover, so following the covering writes
ends at a value that no deletion covers.) In an lww bucket a deletion covers everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from leafdb.testing.history import History
from leafdb.testing.violation import Invariant, violated
from leafdb.types import Conflict


class ScanWatch:
    """One scan, from before its first page is asked for. `within` says which keys it is about."""

    def __init__(self, history: History, within: Callable[[str], bool] = lambda key: True) -> None:
        self._history = history
        self._within = within
        self._began = history.events

    def owed(self) -> list[str]:
        """The keys that were there all the while, until now."""
        lww = self._history.conflict is Conflict.LWW
        found = []
        for key, of_key in self._history.keys.items():
            if not of_key.steady or not self._within(key) or (lww and of_key.spoiled):
                continue
            gone, began = of_key.gone, self._began
            if any(event <= began and not gone.covers(dot) for event, dot in of_key.steady):
                found.append(key)
        return sorted(found)

    def check(self, shown: Iterable[str]) -> None:
        """The scan has come to its end and showed these keys. Raises Violation when one is missing."""
        there = set(shown)
        for key in self.owed():
            if key not in there:
                violated(Invariant.READS_MONOTONIC, "a scan leaves out a key that was there all the while", key)
