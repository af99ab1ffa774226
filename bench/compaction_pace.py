"""What compaction at full pace costs a node's users: p99 of puts and gets, with it and without it in turn.

    python bench/compaction_pace.py [--pairs 7] [--seconds 8] [--share 0.4] [--nice 19] [--ballast 192] [--still]

One real node on loopback. Its capacity is what sixteen connections get in a closed loop; then they send a share of it
as an open loop (`open_loop`). Who sends has one core to itself, as if it were another machine, and the node has the
others; its worker may be anywhere, and comes last there, too.
In one half of each pair the node compacts a bucket of 192 MB, asked to by another process whenever it is done: in its
own worker, at the given niceness, at the pace it grants itself. Each demand flushes everything first, so with a bucket
of 24 MB there are two flushes a second beside it. The halves change order from pair to pair. With --still it compacts
in neither half: how far the ratio is from 1 then is the noise of the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from statistics import median
from typing import Final

from machine_notes import machine_notes
from open_loop import Latencies, Load

from leafdb.client.connect import connect
from leafdb.errors import Overloaded
from leafdb_cli.dev_cluster import DevCluster

THREADS: Final = 16
BALLAST: Final = "ballast"
BALLAST_VALUE_BYTES: Final = 1_500
BALLAST_TOUCHED_SHARE: Final = 1 / 500
POLL_S: Final = 0.1
CAPACITY_S: Final = 6.0
WARM_UP_S: Final = 1.0


class Compactor:
    """Has the node compact a bucket of two levels over and over, at the pace the node grants itself."""

    def __init__(self, url: str, niceness: int, keys: int) -> None:
        self._url = url
        self._keys = keys
        self._rng = Random(0)
        self._client = connect(url, timeout=30.0)
        self._client.create_bucket(BALLAST, n=1, r=1, w=1, conflict="lww", durability="periodic")
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._fill, range(THREADS)))
        self._compact()
        self.worker_pid: int = self._client.admin("node.list")["nodes"][0]["worker_pid"]
        os.setpriority(os.PRIO_PROCESS, self.worker_pid, niceness)
        autogroup = Path(f"/proc/{self.worker_pid}/autogroup")
        if autogroup.exists():  # where it is the session's niceness that weighs
            autogroup.write_text(str(niceness))
        self.merges = 0
        self.shares: list[float] = []

    def _fill(self, index: int) -> None:
        with connect(self._url, timeout=30.0) as client:
            bucket = client.lww_bucket(BALLAST)
            for number in range(index, self._keys, THREADS):
                value = Random(number).randbytes(BALLAST_VALUE_BYTES)
                while True:
                    try:
                        bucket.put(f"ballast-{number}", value)
                        break
                    except Overloaded as full:  # flushes do not keep up with so much at once
                        time.sleep(max(POLL_S, full.retry_after))

    def run(self, over: Callable[[], bool]) -> None:
        """Compact until it is over; the last compaction may end a little later."""
        bucket = self._client.lww_bucket(BALLAST)
        while not over():
            # Of all ranges of keys, so that all of level 1 is merged.
            for _ in range(int(self._keys * BALLAST_TOUCHED_SHARE)):
                bucket.put(f"ballast-{self._rng.randrange(self._keys)}", self._rng.randbytes(BALLAST_VALUE_BYTES))
            self._compact(over)
            self.merges += 1

    def _compact(self, over: Callable[[], bool] = lambda: True) -> None:
        self._client.admin("storage.compact", {"bucket": BALLAST}, changes=True)
        while True:
            time.sleep(POLL_S)
            (task,) = (task for task in self._client.admin("storage.tasks")["tasks"] if task["kind"] == "compact")
            if task["state"] != "running":
                assert task["state"] == "done", task
                return
            if not over():
                self.shares.append(task["share"])

    @property
    def bytes_read(self) -> int:
        """What compactions have read since the node was started."""
        (store,) = self._client.admin("storage.stats")["nodes"].values()
        found: int = store["compaction_bytes_read"]
        return found

    def close(self) -> None:
        self._client.close()


@dataclass(frozen=True, slots=True)
class Told:
    """What the compactor did in one half."""

    merges: int
    bytes_read: int
    shares: list[float]


class CompactorProcess:
    """A compactor in a process of its own, since its client must not take the interpreter from the load."""

    def __init__(self, url: str, niceness: int, keys: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve_compactor, args=(url, niceness, keys, theirs), daemon=True)
        self._process.start()
        self.worker_pid: int = self._pipe.recv()

    def begin(self) -> None:
        """Compact, over and over, from now on."""
        self._pipe.send(None)

    def end(self) -> Told:
        """Return when the last compaction has ended."""
        self._pipe.send(None)
        told: Told = self._pipe.recv()
        return told

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def serve_compactor(url: str, niceness: int, keys: int, pipe: Connection) -> None:
    """In the other process: compact from one message to the next, until the pipe is closed."""
    compactor = Compactor(url, niceness, keys)
    pipe.send(compactor.worker_pid)
    with suppress(EOFError):
        while True:
            pipe.recv()
            merges, read, compactor.shares = compactor.merges, compactor.bytes_read, []
            compactor.run(pipe.poll)
            pipe.recv()
            pipe.send(Told(compactor.merges - merges, compactor.bytes_read - read, compactor.shares))
    compactor.close()


def stand_apart(worker_pid: int) -> str:
    """Have the load as if it came from another machine; what became of it.

    It takes one core whenever it needs it, and only that one. At a mere niceness it would be put now beside the node
    and now beside the worker, and what it waits for there (4 ms at a time) would be told of the node. The node has the
    other cores: on this one it would be stopped for each request that comes. The worker may use what is left of all."""
    *others, core = sorted(os.sched_getaffinity(0))
    if not others:
        return "on the only core there is: what it waits for is in the figures"
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
        os.sched_setaffinity(0, {core})
        node_pid = int(Path(f"/proc/{worker_pid}/stat").read_text("ascii").rpartition(")")[2].split()[1])
        for thread in Path(f"/proc/{node_pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), others)
    except OSError as error:
        return f"like any other process ({error.strerror}): what it waits for a core is in the figures"
    return f"real-time, on core {core}, the node on {', '.join(map(str, others))}, its worker anywhere"


def p99_ms(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100] * 1_000


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="p99 of a node with and without compaction at full pace.")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--share", type=float, default=0.4, help="of the node's capacity")
    parser.add_argument("--nice", type=int, default=19)
    parser.add_argument("--ballast", type=int, default=192, help="MB of the bucket that is compacted")
    parser.add_argument("--still", action="store_true", help="compact in neither half")
    arguments = parser.parse_args()
    keys = arguments.ballast * 10**6 // BALLAST_VALUE_BYTES
    with tempfile.TemporaryDirectory(prefix="leafdb-bench-") as directory:
        notes = machine_notes(directory)
        cluster = DevCluster(Path(directory) / "cluster", lambda text: print(text, file=sys.stderr))
        try:
            (node,) = cluster.up(1, 0)
            host, _, port = node.client.rpartition(":")
            load = Load((host, int(port)))
            compactor = CompactorProcess(f"leafdb://{node.client}", arguments.nice, keys)
            notes["load generator"] = stand_apart(compactor.worker_pid)
            load.closed_loop(WARM_UP_S)
            capacity = load.closed_loop(CAPACITY_S)
            rate = capacity * arguments.share
            print(f"capacity {capacity:.0f} requests a second; {rate:.0f} are sent\n")
            print("| pair | put alone ms | put beside ms | get alone ms | get beside ms |\n|---|---:|---:|---:|---:|")
            ratios: dict[str, list[float]] = {"put": [], "get": []}
            told: list[Told] = []
            for pair in range(arguments.pairs):
                halves: dict[bool, Latencies] = {}
                for compacting in (pair % 2 == 0, pair % 2 == 1):
                    asked = compacting and not arguments.still
                    if asked:
                        compactor.begin()
                    halves[compacting] = load.open_loop(rate, arguments.seconds)
                    if asked:
                        told.append(compactor.end())
                cells = []
                for kind, each in ratios.items():
                    alone, beside = p99_ms(halves[False][kind]), p99_ms(halves[True][kind])
                    each.append(beside / alone)
                    cells += [f"{alone:.2f}", f"{beside:.2f}"]
                print(f"| {pair + 1} | " + " | ".join(cells) + " |", flush=True)
            print()
            for kind, each in ratios.items():
                print(f"- p99 of {kind}s, beside / alone: {min(each):.2f}, **{median(each):.2f}**, {max(each):.2f}")
            merged_mib = sum(each.bytes_read for each in told) / 2**20
            pace = f"{merged_mib / arguments.pairs / arguments.seconds:.1f} MiB/s"
            print(f"- merged beside: {sum(each.merges for each in told)} times, {pace}")
            shares = [share for each in told for share in each.shares]
            if shares:
                share, least = median(shares), min(shares)
                print(f"- in this share of the time: {share:.2f} (median), {least:.2f} (least)")
            load.close()
            compactor.close()
        finally:
            cluster.down(purge=True)
    print("\n".join(f"- {name}: {value}" for name, value in notes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
