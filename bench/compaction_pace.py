"""What compaction at full pace costs a node's users: p99 of puts and gets, with it and without it in turn.

    python bench/compaction_pace.py [--pairs 7] [--seconds 8] [--share 0.4] [--nice 19]

One real node on loopback. Its capacity is what THREADS clients get in a closed loop; then they send a share of it as an
open loop: a request is due at its time whatever became of the one before, and its latency runs from when it was due.
In one half of each pair a storage worker beside the node merges the same four tables over and over, as fast as it can,
on the same disk and at the given niceness; the halves change order from pair to pair. The node's own worker does what
the load asks of it in both halves.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from random import Random
from statistics import median
from typing import Final

from machine_notes import machine_notes

from leafdb.client.connect import connect
from leafdb.storage.job_execution import table_outputs
from leafdb.storage.job_runner import Outcome, ProcessJobRunner
from leafdb.storage.jobs import CompactionJob, CompactionResult
from leafdb.storage.version import TABLES_DIRECTORY, TableMeta, table_path
from leafdb.types import TreeId
from leafdb.vfs.disk import DiskFileSystem
from leafdb_cli.dev_cluster import DevCluster

THREADS: Final = 16
KEYS: Final = 20_000
VALUE_BYTES: Final = 100
TABLES: Final = 4
TABLE_ENTRIES: Final = 40_000
CAPACITY_S: Final = 6.0
WARM_UP_S: Final = 1.0
TREE: Final = TreeId(256)

Latencies = dict[str, list[float]]
"""Seconds, by kind of request."""


class Compactor:
    """A worker process that merges while `run` says so."""

    def __init__(self, directory: Path, niceness: int) -> None:
        self._queue: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._fs = DiskFileSystem(directory)
        self._fs.mkdir(TABLES_DIRECTORY)
        self._inputs = tuple(self._table(number) for number in range(1, TABLES + 1))
        self._next = TABLES + 1
        self._runner = ProcessJobRunner(self._fs.root, self._queue.put)
        self._runner.start()
        while self._runner.pid is None:
            time.sleep(0.01)
        time.sleep(1.0)  # it makes itself nice first
        os.setpriority(os.PRIO_PROCESS, self._runner.pid, niceness)
        autogroup = Path(f"/proc/{self._runner.pid}/autogroup")
        if autogroup.exists():  # where it is the session's niceness that weighs
            autogroup.write_text(str(niceness))
        self.merged_bytes = 0

    def _table(self, number: int) -> TableMeta:
        rng = Random(number)
        keys = sorted(rng.randbytes(16) for _ in range(TABLE_ENTRIES))
        with table_outputs(self._fs) as outputs:
            writer = outputs.start(file_number=number, tree_id=TREE, level=0)
            writer.append_run(keys, [number] * len(keys), [rng.randbytes(VALUE_BYTES) for _ in keys])
            outputs.finish()
            return outputs.publish()[0]

    def run(self, seconds: float) -> None:
        """Merge for so long; the last merge may end a little later."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            job = CompactionJob(tree_id=TREE, inputs=tuple(reversed(self._inputs)), output_level=1)
            first, self._next = self._next, self._next + job.outputs_wanted
            answers: list[Outcome] = []
            self._runner.submit(job.with_outputs(tuple(range(first, self._next))), answers.append)
            while not answers:
                try:
                    self._queue.get(timeout=60.0)()
                except Empty:
                    raise TimeoutError("the worker does not answer") from None
            (answer,) = answers
            assert isinstance(answer, CompactionResult), answer
            self.merged_bytes += sum(meta.size for meta in self._inputs)
            for meta in answer.added:
                self._fs.unlink(table_path(meta.file_number))

    def close(self) -> None:
        self._runner.close()


class Load:
    """Puts and gets in turn, from threads with a client each."""

    def __init__(self, url: str) -> None:
        self._url = url
        with connect(url, timeout=10.0) as client:
            client.create_bucket("pace", n=1, r=1, w=1, conflict="lww", durability="periodic")

    def run(self, seconds: float, rate: float | None) -> Latencies:
        """At `rate` requests a second in all; None: as many as come back."""
        latencies: Latencies = {"put": [], "get": []}
        start = time.perf_counter() + 0.5
        with ThreadPoolExecutor(THREADS) as pool:
            running = [pool.submit(self._one, index, start, seconds, rate, latencies) for index in range(THREADS)]
        for each in running:
            each.result()
        return latencies

    def _one(self, index: int, start: float, seconds: float, rate: float | None, latencies: Latencies) -> None:
        clock = time.perf_counter
        rng = Random(index)
        value = rng.randbytes(VALUE_BYTES)
        with connect(self._url, timeout=10.0) as client:
            bucket = client.lww_bucket("pace")
            number = 0
            while True:
                due = clock() if rate is None else start + (index + number * THREADS) / rate
                if due >= start + seconds:
                    return
                time.sleep(max(0.0, (start if rate is None else due) - clock()))
                key = f"key-{rng.randrange(KEYS)}"
                if number % 2:
                    bucket.get(key)
                else:
                    bucket.put(key, value)
                latencies["get" if number % 2 else "put"].append(clock() - due)
                number += 1


def p99_ms(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) * 99 // 100] * 1_000


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="p99 of a node with and without compaction at full pace.")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--share", type=float, default=0.4, help="of the node's capacity")
    parser.add_argument("--nice", type=int, default=19)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leafdb-bench-") as directory:
        notes = machine_notes(directory)
        compactor = Compactor(Path(directory) / "tables", arguments.nice)
        cluster = DevCluster(Path(directory) / "cluster", lambda text: print(text, file=sys.stderr))
        try:
            (node,) = cluster.up(1, 0)
            load = Load(f"leafdb://{node.client}")
            load.run(WARM_UP_S, None)
            capacity = sum(map(len, load.run(CAPACITY_S, None).values())) / CAPACITY_S
            rate = capacity * arguments.share
            print(f"capacity {capacity:.0f} requests a second; {rate:.0f} are sent\n")
            print("| pair | put alone ms | put beside ms | get alone ms | get beside ms |\n|---|---:|---:|---:|---:|")
            ratios: dict[str, list[float]] = {"put": [], "get": []}
            for pair in range(arguments.pairs):
                halves: dict[bool, Latencies] = {}
                for merging in (pair % 2 == 0, pair % 2 == 1):
                    with ThreadPoolExecutor(1) as merger:
                        merges = merger.submit(compactor.run, arguments.seconds if merging else 0.0)
                        halves[merging] = load.run(arguments.seconds, rate)
                    merges.result()
                cells = []
                for kind, each in ratios.items():
                    alone, beside = p99_ms(halves[False][kind]), p99_ms(halves[True][kind])
                    each.append(beside / alone)
                    cells += [f"{alone:.2f}", f"{beside:.2f}"]
                print(f"| {pair + 1} | " + " | ".join(cells) + " |", flush=True)
            print()
            for kind, each in ratios.items():
                print(f"- p99 of {kind}s, beside / alone: {min(each):.2f}, **{median(each):.2f}**, {max(each):.2f}")
            print(f"- merged beside: {compactor.merged_bytes / arguments.pairs / arguments.seconds / 2**20:.1f} MiB/s")
        finally:
            compactor.close()
            cluster.down(purge=True)
    print("\n".join(f"- {name}: {value}" for name, value in notes.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
