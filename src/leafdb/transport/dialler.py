"""Keeping connections up: one task per target, which dials, waits for the session to end, and dials again.

Between attempts it waits, longer each time (DIAL_BACKOFF_S_MIN doubling to DIAL_BACKOFF_S_MAX) and with jitter, so
that a node that returns is not met by everybody at once, every time. A session that lasted resets the wait. A refusal
is tried again like a failure: a node may not be ready yet, or not have heard of us. One that does not pass by itself is
tried again too, as secrets and disks are changed, but at REFUSED_BACKOFF_S.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Final

import trio

from leafdb.errors import LeafdbError
from leafdb.types import NodeId
from leafdb.wire.errors import HandshakeRefused
from leafdb.wire.hello import LASTING
from leafdb.wire.registry import Lane

Address = tuple[str, int]
Target = tuple[NodeId, Lane]
Dial = Callable[[Target, Address], Awaitable[None]]

DIAL_BACKOFF_S_MIN: Final = 0.05
DIAL_BACKOFF_S_MAX: Final = 1.0
REFUSED_BACKOFF_S: Final = 5.0
LASTED_S: Final = 5.0
"""A session that lasted this long was a good one."""


class _Task:
    """One target's task, and why its last attempt made no session."""

    __slots__ = ("address", "problem", "scope", "woken")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.scope = trio.CancelScope()
        self.woken = trio.Event()
        self.problem = ""


class Dialler:
    """Keeps every target dialled. `dial(target, address)` returns when the session it made has ended."""

    def __init__(self, dial: Dial, rng: Random) -> None:
        self._dial = dial
        self._rng = rng
        self._tasks: dict[Target, _Task] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Dial until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for target, task in self._tasks.items():
                nursery.start_soon(self._keep_up, target, task, name=f"dialler of {target}")
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: new targets may come in this very moment

    def set_targets(self, targets: Mapping[Target, Address]) -> None:
        """Who is to be dialled, from now on. A target whose address changed is dialled anew once its session ends."""
        for target in [target for target in self._tasks if target not in targets]:
            self._tasks.pop(target).scope.cancel()
        for target, address in targets.items():
            task = self._tasks.get(target)
            if task is not None:
                task.address = address
                continue
            task = self._tasks[target] = _Task(address)
            if self._nursery is not None:
                self._nursery.start_soon(self._keep_up, target, task, name=f"dialler of {target}")

    def wake(self, target: Target) -> None:
        """The target's session has ended."""
        task = self._tasks.get(target)
        if task is not None:
            task.woken.set()

    async def woken(self, target: Target) -> None:
        """Wait for `wake`: for `dial`, while its session lives."""
        task = self._tasks[target]
        await task.woken.wait()
        task.woken = trio.Event()

    def problem(self, target: Target) -> str:
        """Why the last attempt that has ended made no session; "" when it made one, or nothing was tried."""
        task = self._tasks.get(target)
        return task.problem if task is not None else ""

    async def _keep_up(self, target: Target, task: _Task) -> None:
        wait_s = 0.0
        with task.scope:
            while True:
                await trio.sleep(wait_s * self._rng.uniform(0.5, 1.0))
                started = trio.current_time()
                bound_s = DIAL_BACKOFF_S_MAX
                try:
                    await self._dial(target, task.address)
                    task.problem = ""
                except HandshakeRefused as error:
                    task.problem = str(error)
                    if error.refusal in LASTING:
                        wait_s = bound_s = REFUSED_BACKOFF_S
                except (LeafdbError, OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                    task.problem = str(error) or type(error).__name__
                if trio.current_time() - started >= LASTED_S and not task.problem:
                    wait_s = 0.0
                wait_s = min(bound_s, max(DIAL_BACKOFF_S_MIN, wait_s * 2))

    def check(self) -> None:
        """A task whose target was taken away has been told to end."""
        assert not any(task.scope.cancel_called for task in self._tasks.values())
