"""Descriptors of which many may be ready at once and none is in a hurry: watched together, served one by one, aside.

Whoever waits is served in the order in which the kernel told of it, and nobody twice before all who were told of with
it: one that always has something keeps nobody else waiting.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from leafdb.transport.aside import Aside

EVENTS_MAX: Final = 64


class Crowd:
    """`serve(descriptor, events)` is called for one that is ready; what it tells of may have passed, and the descriptor
    may be another's by then: it asks the kernel. What it raises is raised by `run`."""

    def __init__(self, aside: Aside, serve: Callable[[int, int], None]) -> None:
        self.epoll: select.epoll = select.epoll()
        """What is registered here is served."""
        self._aside = aside
        self._serve = serve
        self._ready: deque[tuple[int, int]] = deque()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self.epoll.fileno())
            await self._aside.all_of(self._serve_next)

    def _serve_next(self) -> bool:
        if not self._ready:
            self._ready.extend(self.epoll.poll(0, EVENTS_MAX))
            if not self._ready:
                return False
        self._serve(*self._ready.popleft())
        return True

    def close(self) -> None:
        """Watch nobody any more."""
        self.epoll.close()
