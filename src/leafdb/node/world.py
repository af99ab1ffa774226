"""Everything a node gets from outside. Nothing else in node/ reads a clock, draws a number, opens a file or a socket.

Two worlds build it: the real one (`real_world`: threads, sockets, the disk, the operating system's entropy) and the
simulated one (virtual time, memory files, memory streams, a seeded generator), and the node cannot tell them apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leafdb.node.settings_in_force import SettingsInForce
from leafdb.storage.executor import Executor
from leafdb.storage.job_runner import JobRunner
from leafdb.transport.stream import Network
from leafdb.vfs.base import FileSystem


def no_disk() -> int:
    """The size of memory files."""
    return 0


def no_machine() -> Mapping[str, int]:
    """What is known of the machine in a simulated world."""
    return {}


@dataclass(frozen=True, slots=True)
class World:
    """The outside of one node.

    `now` is monotonic seconds (deadlines and timers), `now_ms` unix milliseconds (stamps and expiry). `boot_id` names
    this boot of the machine: when it changes without a clean shutdown, what was not synced is gone. `worker_pid` tells
    which process flushes and compacts, for whoever counts its CPU time; None when it is this one.
    """

    fs: FileSystem
    network: Network
    now: Callable[[], float]
    now_ms: Callable[[], int]
    rng: random.Random
    random_bytes: Callable[[int], bytes]
    log_executor: Executor
    read_executor: Executor
    jobs: JobRunner
    boot_id: str
    worker_pid: Callable[[], int | None]
    pid: int = 0
    """This process, for whoever accounts for its CPU time; 0 in a simulated world."""
    disk_bytes: Callable[[], int] = no_disk
    """The size of the file system that `fs` lies on; 0 where there is none."""
    settings: SettingsInForce | None = None
    """Where the node's configuration came from, and who may change it; None when a program gave it."""
    machine: Callable[[], Mapping[str, int]] = no_machine
    """What this machine gives the process: see `machine.machine_facts`."""
