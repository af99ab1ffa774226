"""The decode budget: how many bytes of large frames may be gathering in memory at once, over all sessions.

A session whose next frame is over LARGE_FRAME_BYTES must hold a share of that frame's size before it reads on. Shares
are given in the order asked for; a session that waits is not read, so its sender feels it as back-pressure. A frame
that takes too long closes its session (see `sweeper`), so a share always comes back.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Borrower(Protocol):
    """A session that reads a large frame."""

    def budget_granted(self) -> None:
        """The share asked for is now held: read on."""


class DecodeBudget:
    """`used_bytes` of `bytes_max` are given out. A frame larger than all of it is let through when nothing else is."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used_bytes: int = 0
        self._waiting: deque[tuple[Borrower, int]] = deque()

    def take(self, borrower: Borrower, size: int) -> bool:
        """Hold `size` bytes; False when they are not there yet: `borrower.budget_granted()` follows."""
        assert size > 0
        if not self._waiting and self._fits(size):
            self.used_bytes += size
            return True
        self._waiting.append((borrower, size))
        return False

    def give_back(self, size: int) -> None:
        """A share is no longer needed; whoever has waited longest goes on."""
        self.used_bytes -= size
        assert self.used_bytes >= 0
        while self._waiting and self._fits(self._waiting[0][1]):
            borrower, wanted = self._waiting.popleft()
            self.used_bytes += wanted
            borrower.budget_granted()

    def forget(self, borrower: Borrower) -> None:
        """A session that waits has closed."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not borrower)
        self.give_back(0)

    def _fits(self, size: int) -> bool:
        return self.used_bytes + size <= self.bytes_max or not self.used_bytes

    def check(self) -> None:
        """Nobody waits for what is free."""
        assert self.used_bytes >= 0
        if self._waiting:
            assert not self._fits(self._waiting[0][1])
