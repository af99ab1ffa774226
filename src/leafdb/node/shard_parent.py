"""The parent of a machine's shards: starts a node process for each, starts again what crashes, ends with the last one.

It holds no data and serves nobody: no engine, no ring, no peers. What it knows of a shard is what systemd would know of
a node: its exit code, and what it says in systemd's own words (READY, WATCHDOG), for to a shard the parent is systemd.

- A shard that ends with a code for which starting again may help (`endings.FINAL` are the others) is started again,
  after a pause that grows while it keeps failing. One that ends for good stays down: the others serve on, and log and
  status say so.
- Ready is when each shard is ready or has failed, and one is ready: one that fails keeps no other from serving.
- With a watchdog, a shard that has not said for the whole period that its loop turns is aborted, and started again.
- A signal is passed on to all (`supervisor.Order`). The parent waits for them and ends with the worst of their codes.
- A shard notices the end of the pipe that its orders come through, so none outlives the parent.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from leafdb.node import task_tree
from leafdb.node.endings import BUG, FINAL, STOPPED, worst
from leafdb.node.logs import Log
from leafdb.node.notify import Notifier
from leafdb.node.signals import obey_signals
from leafdb.node.supervisor import STOP_GRACE_S, Order

PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
STEADY_S: Final = 60.0
"""A shard that ran so long is taken to be well: its next pause is the first again."""
FORCE_AFTER_S: Final = 2 * STOP_GRACE_S
"""How long after the drain a shard may go on before it is killed."""
WATCHES_PER_PERIOD: Final = 4

log: Log = Log("shards")


class Child(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int: ...
    async def tell(self, order: Order) -> None:
        """Pass an order on; nothing when it is gone."""

    def signal(self, number: signal.Signals) -> None:
        """Send one; nothing when it is gone."""

    async def wait(self) -> int:
        """Its exit code, negative for the signal that killed it."""


Spawn = Callable[[int], Awaitable[Child]]
"""Starts the process of a shard. Raises OSError."""

Hear = Callable[[int, Mapping[str, str]], None]
"""Takes what a process said, by its number: fields of sd_notify."""


@dataclass(slots=True)
class Shard:
    """One shard and its process, when it has one."""

    number: int
    name: str
    child: Child | None = None
    ready: bool = False
    failed: bool = False
    """It has ended without being asked to; perhaps it runs again."""
    code: int = STOPPED
    heard_at: float = 0.0
    starts: int = 0
    pause_s: float = field(default=PAUSE_FIRST_S)


class ShardParent:
    """Keeps the shards of one machine running until it is told to end."""

    def __init__(
        self,
        names: Sequence[str],
        spawn: Spawn,
        notifier: Notifier,
        reload: Callable[[], None],
        *,
        listen: Callable[[Hear], Awaitable[None]],
        drain_timeout_s: float,
    ) -> None:
        """`listen` passes on what shards say, until cancelled; the other arguments are those of `Supervisor`."""
        self.shards: tuple[Shard, ...] = tuple(Shard(number, name) for number, name in enumerate(names))
        self._spawn = spawn
        self._notifier = notifier
        self._reload = reload
        self._listen = listen
        self._drain_timeout_s = drain_timeout_s
        self._drain = trio.Event()
        self._stop = trio.Event()
        self._announced = False
        self._nursery: trio.Nursery | None = None

    @property
    def draining(self) -> bool:
        """It was asked to end."""
        return self._drain.is_set()

    @property
    def stopping(self) -> bool:
        """It was asked to end at once."""
        return self._stop.is_set()

    async def run(self) -> int:
        """The whole life; the exit code."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(obey_signals, self, False)
            nursery.start_soon(self._notifier.feed_watchdog)
            nursery.start_soon(self._listen, self.hear)
            nursery.start_soon(self._watch)
            nursery.start_soon(self._end_a_long_drain)
            async with trio.open_nursery() as keeping:
                for shard in self.shards:
                    keeping.start_soon(self._keep, shard)
            nursery.cancel_scope.cancel()
        code = worst(shard.code for shard in self.shards)
        log.info("all shards have ended", code=code)
        return code

    # -- what a shard says

    def hear(self, pid: int, words: Mapping[str, str]) -> None:
        """A process said something, in the words of sd_notify. Those of strangers and of the past are nobody's."""
        shard = next((each for each in self.shards if each.child is not None and each.child.pid == pid), None)
        if shard is None:
            return
        shard.heard_at = trio.current_time()
        if "READY" in words and not shard.ready:
            shard.ready = True
            log.info("shard ready", shard=shard.name, pid=pid)
            self._announce()

    # -- what signals ask

    def drain(self, why: str) -> None:
        """Have all finish and end."""
        log.info("draining", signal=why, timeout_s=self._drain_timeout_s)
        self._notifier.stopping("draining", self._drain_timeout_s + STOP_GRACE_S)
        self._drain.set()
        self._pass_on(Order.DRAIN)

    def stop(self, why: str) -> None:
        """Have all end at once."""
        log.warning("stopping at once", signal=why)
        self._stop.set()
        self._pass_on(Order.STOP)

    def give_up(self, why: str) -> None:
        """Kill them."""
        log.warning("giving up at once", signal=why)
        for shard in self.shards:
            if shard.child is not None:
                shard.child.signal(signal.SIGKILL)

    def reload(self) -> None:
        """Have all read the configuration again."""
        self._reload()
        self._pass_on(Order.RELOAD)

    def show_tasks(self) -> None:
        """Have all write what their tasks are doing to the log."""
        log.warning("tasks", tree=task_tree.render())
        self._pass_on(Order.TASKS)

    def _pass_on(self, order: Order) -> None:
        assert self._nursery is not None
        for shard in self.shards:
            if shard.child is not None:
                self._nursery.start_soon(shard.child.tell, order)

    # -- one shard's life

    async def _keep(self, shard: Shard) -> None:
        """Run it, again and again, until it has ended for good or all are to end."""
        while not self._drain.is_set():
            began = trio.current_time()
            await self._run_once(shard)
            if self._drain.is_set():
                return
            shard.failed = True
            self._announce()
            if shard.code in FINAL:
                log.error("shard ended for good: the others serve on", shard=shard.name, code=shard.code)
                return
            if trio.current_time() - began >= STEADY_S:
                shard.pause_s = PAUSE_FIRST_S
            log.error("shard crashed", shard=shard.name, code=shard.code, starting_again_after_s=shard.pause_s)
            with trio.move_on_after(shard.pause_s):
                await self._drain.wait()
            shard.pause_s = min(2 * shard.pause_s, PAUSE_MAX_S)

    async def _run_once(self, shard: Shard) -> None:
        shard.starts += 1
        shard.heard_at = trio.current_time()
        try:
            shard.child = child = await self._spawn(shard.number)
        except OSError as error:
            log.error("shard cannot be started", shard=shard.name, reason=error.strerror or str(error))
            shard.code = BUG
            return
        log.info("shard started", shard=shard.name, pid=child.pid, start=shard.starts)
        if self.draining:  # it was not there to be told
            await child.tell(Order.STOP if self.stopping else Order.DRAIN)
        code = await child.wait()
        shard.child, shard.ready = None, False
        asked = self.draining and code in (-signal.SIGTERM, -signal.SIGINT)  # before it could listen to signals
        shard.code = STOPPED if asked else code

    def _announce(self) -> None:
        """Say how many serve; for the first time when all have got as far as they will."""
        ready = [shard for shard in self.shards if shard.ready]
        if not self._announced and not (ready and all(shard.ready or shard.failed for shard in self.shards)):
            return
        down = [shard.name for shard in self.shards if not shard.ready]
        status = f"{len(ready)} of {len(self.shards)} shards serve"
        if down:
            status += f"; not {', '.join(down)}"
        if self._announced:
            self._notifier.status(status)
        else:
            self._announced = True
            log.info("ready", shards=len(ready))
            self._notifier.ready(status)

    # -- patience

    async def _watch(self) -> None:
        """Abort a shard whose loop does not turn; return at once when no watchdog is asked for."""
        period_s = self._notifier.watchdog_s
        if period_s is None:
            return
        while True:
            await trio.sleep(period_s / WATCHES_PER_PERIOD)
            for shard in self.shards:
                silent_s = trio.current_time() - shard.heard_at
                if shard.child is None or not shard.ready or silent_s <= period_s:
                    continue
                # Aborted it says where it hung. What cannot even do that is killed.
                number = signal.SIGABRT if silent_s <= 2 * period_s else signal.SIGKILL
                log.error("shard hangs", shard=shard.name, silent_s=round(silent_s, 1), signal=number.name)
                shard.child.signal(number)

    async def _end_a_long_drain(self) -> None:
        await self._drain.wait()
        await trio.sleep(self._drain_timeout_s + FORCE_AFTER_S)
        self.give_up("the shards took too long to end")
