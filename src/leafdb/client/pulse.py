"""Whether the other side of a connection still says anything.

A node that is stopped, or cut off without a reset, keeps its connections open and answers nothing: a write sent to it
is an unknown outcome once its deadline has passed. So a connection on which a request ran out of time, and nothing at
all has come for SILENCE_S since it was asked, takes no more requests. The next one connects anew, and a handshake that
is not answered is provably no write. Those who still wait on a silent connection go on waiting: it may only be slow.
"""

from __future__ import annotations

from typing import Final

SILENCE_S: Final = 1.0
FRESH_S: Final = 0.001


class Pulse:
    """Times of one connection, by the client's clock."""

    __slots__ = ("_asked_at", "heard_at", "silent")

    def __init__(self) -> None:
        self._asked_at = 0.0
        self.heard_at: float = 0.0
        """When something came last."""
        self.silent: bool = False
        """Ask nothing more here."""

    def asked(self, now: float) -> bool:
        """A request goes out; only the first since something was heard counts. Answers whether something came so lately
        that the connection need not be looked at before it is used."""
        heard_at = self.heard_at
        if self._asked_at <= heard_at:
            self._asked_at = now
        return now - heard_at < FRESH_S

    def expired(self, now: float) -> None:
        """A request ran out of time unanswered."""
        if self._asked_at > self.heard_at and now - self._asked_at >= SILENCE_S:
            self.silent = True
