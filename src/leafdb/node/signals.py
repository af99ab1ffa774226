"""What signals ask of a process of ours, the same of a single node and of the parent of several shards.

SIGTERM, SIGINT   first: drain; second: stop at once; third: give up, not even waiting for that
SIGHUP            read the configuration again
SIGUSR1           write what every task is doing to the log
"""

from __future__ import annotations

import signal
from typing import Protocol

import trio


class Process(Protocol):
    """What can be asked, and how far it is on its way out."""

    @property
    def draining(self) -> bool:
        """It was asked to end."""

    @property
    def stopping(self) -> bool:
        """It was asked to end at once, or has taken too long."""

    def drain(self, why: str) -> None:
        """Finish what is under way, take nothing new, end. Asked again, it changes nothing."""

    def stop(self, why: str) -> None:
        """End now."""

    def give_up(self, why: str) -> None:
        """End without waiting for anything."""

    def reload(self) -> None:
        """Read the configuration again."""

    def show_tasks(self) -> None:
        """Write what every task is doing to the log."""


async def obey_signals(
    process: Process, shard: bool, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Ask the process for what signals ask us for, until cancelled. Started once signals are listened to."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        task_status.started()
        async for number in signals:
            why = signal.Signals(number).name
            match number:
                case signal.SIGHUP:
                    process.reload()
                case signal.SIGUSR1:
                    process.show_tasks()
                case _ if shard:
                    process.drain(why)
                case _ if process.stopping:
                    process.give_up(why)
                case _ if process.draining:
                    process.stop(why)
                case _:
                    process.drain(why)
