"""A bell: rung when somebody wants something done that a task waits to do, as the reading of files anew at SIGHUP.

Rung several times before anybody listens is rung once.
"""

from __future__ import annotations

import trio


class Bell:
    """May be made before the event loop runs."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake who waits."""
        self._rung.set()

    async def wait(self) -> None:
        """Wait until it is rung."""
        await self._rung.wait()
        self._rung = trio.Event()
