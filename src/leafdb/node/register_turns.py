"""Whose turn it is to change the register through this node: one at a time, in the order in which they came.

Nobody waits for ever. A turn lasts until its change has an end, which without a majority of the control set is its
deadline; so who has waited as long as its own change may take is refused, and nothing has happened. What nobody waits
for, the steps of drivers, which they try again in any case, gives way: once somebody else waits, such a turn has
GIVE_WAY_S left at most. With a majority a turn takes a few round trips, and nobody notices.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from leafdb.errors import Overloaded

GIVE_WAY_S: Final = 1.0
RETRY_AFTER_S: Final = 1.0


class Turns:
    """See the top of this file. `hurry` has the change under way end at a time, if it would be later."""

    def __init__(self, now: Callable[[], float], hurry: Callable[[float], None]) -> None:
        self._now = now
        self._hurry = hurry
        self._lock = trio.Lock()
        self._gives_way = False

    @property
    def taken(self) -> bool:
        """Whether a change is under way."""
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self, timeout_s: float, *, gives_way: bool) -> AsyncIterator[float]:
        """Have one, until when it is given. Raises Overloaded after `timeout_s`."""
        if self._gives_way and not gives_way:
            self._hurry(self._now() + GIVE_WAY_S)
        with trio.move_on_after(timeout_s) as waiting:
            await self._lock.acquire()
        if waiting.cancelled_caught:
            told = (
                f"changes through this node have waited for one another for {timeout_s:g} s: nothing was changed. "
                "The control set may have no majority"
            )
            raise Overloaded(told, retry_after=RETRY_AFTER_S)
        try:
            self._gives_way = gives_way
            others_wait = self._lock.statistics().tasks_waiting > 0
            yield self._now() + (min(timeout_s, GIVE_WAY_S) if gives_way and others_wait else timeout_s)
        finally:
            self._gives_way = False
            self._lock.release()
