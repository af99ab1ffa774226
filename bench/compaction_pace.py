"""What compaction at full pace costs a node's users: p99 of puts and gets, with it and without it in turn.

    python bench/compaction_pace.py [--pairs 7] [--seconds 8] [--share 0.4] [--nice 19] [--still]

One real node on loopback. Its capacity is what sixteen connections get in a closed loop; then they send a share of it
as an open loop (`open_loop`).
In one half of each pair the node compacts a bucket of 24 MB, asked to again whenever it is done: in its own worker, at
the given niceness, at the pace it grants itself. The halves change order from pair to pair. With --still it compacts in
neither half: how far the ratio is from 1 then is the noise of the machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import median
from threading import Event
from typing import Final

from machine_notes import machine_notes
from open_loop import Latencies, Load

from leafdb.client.connect import connect
from leafdb_cli.dev_cluster import DevCluster

THREADS: Final = 16
BALLAST: Final = "ballast"
BALLAST_KEYS: Final = 16_000
BALLAST_VALUE_BYTES: Final = 1_500
BALLAST_TOUCHED: Final = 32
POLL_S: Final = 0.1
CAPACITY_S: Final = 6.0
WARM_UP_S: Final = 1.0

SWITCH_S: Final = 0.000_5
"""How long the thread that asks for compactions may keep the interpreter from the load."""


class Compactor:
    """Has the node compact a bucket of two levels over and over, at the pace the node grants itself."""

    def __init__(self, url: str, niceness: int) -> None:
        self._url = url
        self._rng = Random(0)
        self._client = connect(url, timeout=30.0)
        self._client.create_bucket(BALLAST, n=1, r=1, w=1, conflict="lww", durability="periodic")
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._fill, range(THREADS)))
        self._compact()
        (node,) = self._client.admin("node.list")["nodes"]
        os.setpriority(os.PRIO_PROCESS, node["worker_pid"], niceness)
        autogroup = Path(f"/proc/{node['worker_pid']}/autogroup")
        if autogroup.exists():  # where it is the session's niceness that weighs
            autogroup.write_text(str(niceness))
        self.merges = 0
        self.shares: list[float] = []

    def _fill(self, index: int) -> None:
        with connect(self._url, timeout=30.0) as client:
            bucket = client.lww_bucket(BALLAST)
            for number in range(index, BALLAST_KEYS, THREADS):
                bucket.put(f"ballast-{number}", Random(number).randbytes(BALLAST_VALUE_BYTES))

    def run(self, over: Event) -> None:
        """Compact until it is over; the last compaction may end a little later."""
        bucket = self._client.lww_bucket(BALLAST)
        while not over.is_set():
            for _ in range(BALLAST_TOUCHED):  # of all ranges of keys, so that all of level 1 is merged
                bucket.put(f"ballast-{self._rng.randrange(BALLAST_KEYS)}", self._rng.randbytes(BALLAST_VALUE_BYTES))
            self._compact(over)
            self.merges += 1

    def _compact(self, over: Event | None = None) -> None:
        self._client.admin("storage.compact", {"bucket": BALLAST}, changes=True)
        while True:
            time.sleep(POLL_S)
            (task,) = (task for task in self._client.admin("storage.tasks")["tasks"] if task["kind"] == "compact")
            if task["state"] != "running":
                assert task["state"] == "done", task
                return
            if over is not None and not over.is_set():
                self.shares.append(task["share"])

    @property
    def bytes_read(self) -> int:
        """What compactions have read since the node was started."""
        (store,) = self._client.admin("storage.stats")["nodes"].values()
        found: int = store["compaction_bytes_read"]
        return found

    def close(self) -> None:
        self._client.close()


def stand_apart() -> str:
    """Let nothing on this machine keep the load waiting for a core, as if it came from another one; what became of it.

    It takes one core whenever it needs it, and only that one: at a mere niceness it is put now beside the node and now
    beside the worker, and what it waits for there (4 ms at a time) is told of the node. What it leaves of its core, and
    all others, are for node and worker. The node has been started before: it inherits nothing."""
    core = max(os.sched_getaffinity(0))
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
        os.sched_setaffinity(0, {core})
    except OSError as error:
        return f"like any other process ({error.strerror}): what it waits for a core is in the figures"
    return f"real-time, on core {core} alone"


def p99_ms(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100] * 1_000


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="p99 of a node with and without compaction at full pace.")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--share", type=float, default=0.4, help="of the node's capacity")
    parser.add_argument("--nice", type=int, default=19)
    parser.add_argument("--still", action="store_true", help="compact in neither half")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leafdb-bench-") as directory:
        notes = machine_notes(directory)
        cluster = DevCluster(Path(directory) / "cluster", lambda text: print(text, file=sys.stderr))
        try:
            (node,) = cluster.up(1, 0)
            host, _, port = node.client.rpartition(":")
            load, compactor = Load((host, int(port))), Compactor(f"leafdb://{node.client}", arguments.nice)
            notes["load generator"] = stand_apart()
            sys.setswitchinterval(SWITCH_S)
            load.closed_loop(WARM_UP_S)
            capacity = load.closed_loop(CAPACITY_S)
            rate = capacity * arguments.share
            print(f"capacity {capacity:.0f} requests a second; {rate:.0f} are sent\n")
            print("| pair | put alone ms | put beside ms | get alone ms | get beside ms |\n|---|---:|---:|---:|---:|")
            ratios: dict[str, list[float]] = {"put": [], "get": []}
            read_before = compactor.bytes_read
            for pair in range(arguments.pairs):
                halves: dict[bool, Latencies] = {}
                for compacting in (pair % 2 == 0, pair % 2 == 1):
                    over = Event()
                    if arguments.still or not compacting:
                        over.set()
                    with ThreadPoolExecutor(1) as pool:
                        compactions = pool.submit(compactor.run, over)
                        try:
                            halves[compacting] = load.open_loop(rate, arguments.seconds)
                        finally:
                            over.set()
                    compactions.result()
                cells = []
                for kind, each in ratios.items():
                    alone, beside = p99_ms(halves[False][kind]), p99_ms(halves[True][kind])
                    each.append(beside / alone)
                    cells += [f"{alone:.2f}", f"{beside:.2f}"]
                print(f"| {pair + 1} | " + " | ".join(cells) + " |", flush=True)
            print()
            for kind, each in ratios.items():
                print(f"- p99 of {kind}s, beside / alone: {min(each):.2f}, **{median(each):.2f}**, {max(each):.2f}")
            merged_mib = (compactor.bytes_read - read_before) / 2**20
            pace = f"{merged_mib / arguments.pairs / arguments.seconds:.1f} MiB/s"
            print(f"- merged beside: {compactor.merges} times, {pace}")
            if compactor.shares:
                share, least = median(compactor.shares), min(compactor.shares)
                print(f"- in this share of the time: {share:.2f} (median), {least:.2f} (least)")
            load.close()
            compactor.close()
        finally:
            cluster.down(purge=True)
    print("\n".join(f"- {name}: {value}" for name, value in notes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
