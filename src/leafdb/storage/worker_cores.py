"""On which cores the worker may run: on all it was given but the one where the node's loop was seen last.

Niceness says who gets a core that two want; not where they are. A scheduler puts a worker on whatever core is idle for
the moment, and that is often the loop's, between two requests: then each request finds its core taken, its caches
cold, and wakes for as long as it takes to be let in. So the worker looks, every few slices, where the loop is, and
keeps off that core while there is another.

Who keeps off a core may find the others full, and flushes must not wait for long: writers wait for them. So the worker
listens to how long it was ready to run and did not (Linux: the second number of `schedstat`). When that was most of the
time for a while it may run anywhere, for a longer while, and then tries again.

Where the system does not tell these things, or allows one core alone, the worker stays where it is put.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final, Protocol

LOOK_S: Final = 0.02
"""So often the worker looks where the loop is. A loop is moved some times a second at most."""
JUDGED_S: Final = 0.25
STARVED_SHARE: Final = 0.5
"""Kept waiting for more of the time than this, it is let in everywhere."""
ANYWHERE_S: Final = 2.0

_CORE_FIELD: Final = 36
"""Of /proc/PID/stat, counted from behind the name of the command: the core it ran on last."""


class Scheduler(Protocol):
    """What is asked of the system. Each may raise OSError or ValueError: then it is left alone."""

    def cores(self) -> frozenset[int]:
        """Those that the worker may run on."""

    def loop_core(self) -> int:
        """That where the node's loop runs, or ran last."""

    def waited_s(self) -> float:
        """How long, since it began, the worker was ready to run and did not."""

    def keep_to(self, cores: frozenset[int]) -> None:
        """Run nowhere else from now on."""


class Cores:
    """The decision, and when to make it. `look` is called after each slice of work."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._look_at_s = 0.0
        self._judge_at_s = 0.0
        self._anywhere_until_s = 0.0
        self._waited_s = 0.0
        self._known = False
        try:
            self._all = self._kept = scheduler.cores()
            self._waited_s = scheduler.waited_s()
            self._known = len(self._all) > 1
        except (OSError, ValueError):
            return

    def look(self, now_s: float) -> None:
        """Choose anew, if it is time."""
        if not self._known or now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        try:
            self._judge(now_s)
            wanted = self._all
            if now_s >= self._anywhere_until_s:
                wanted = self._all - {self._scheduler.loop_core()}
            if wanted != self._kept:
                self._scheduler.keep_to(wanted)
                self._kept = wanted
        except (OSError, ValueError):
            self._known = False
            with suppress(OSError):
                self._scheduler.keep_to(self._all)

    def _judge(self, now_s: float) -> None:
        """Whether it was starved since the last judgement. What lies between two spells of work counts for nothing."""
        late_s = now_s - self._judge_at_s
        if late_s < 0.0:
            return
        waited_s = self._scheduler.waited_s()
        if late_s < JUDGED_S and waited_s - self._waited_s > STARVED_SHARE * (JUDGED_S + late_s):
            self._anywhere_until_s = now_s + ANYWHERE_S
        self._waited_s = waited_s
        self._judge_at_s = now_s + JUDGED_S


class LinuxScheduler:
    """The system's. `loop_thread` is the node's, by the number that the kernel gives a thread."""

    def __init__(self, loop_thread: int) -> None:
        self._stat_path = f"/proc/{loop_thread}/stat"

    def cores(self) -> frozenset[int]:
        if not hasattr(os, "sched_getaffinity"):
            raise OSError("this system has no affinity")
        return frozenset(os.sched_getaffinity(0))

    def loop_core(self) -> int:
        return _number(_read(self._stat_path).rpartition(b")")[2], _CORE_FIELD)

    def waited_s(self) -> float:
        told = _read("/proc/self/schedstat")
        if not _number(told, 0):
            raise OSError("this kernel does not count: it says that we have never run")
        return _number(told, 1) / 1e9

    def keep_to(self, cores: frozenset[int]) -> None:
        os.sched_setaffinity(0, cores)


def _number(fields: bytes, place: int) -> int:
    """One of the numbers of a line of /proc. Raises ValueError when it is not there, or none."""
    found = fields.split()
    if len(found) <= place:
        raise ValueError(f"{len(found)} fields, none at {place}")
    return int(found[place])


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(4096)
