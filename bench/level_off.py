"""Overwriting and deleting the same keys for long: do disk use and memory level off, and how much of the disk is live?

    python bench/level_off.py [--minutes 15] [--keys 1000000] [--value-bytes 100] [--long-share 0] [--out FILE]

The engine as a node uses it, at a node's sizes: threads for the log and for reads, a worker process, `admit` before
every write, periodic syncs, on a real disk. All keys are written once; then, as fast as the engine takes them, random
keys are overwritten, one in five deleted. Every SAMPLE_S seconds a sample: the bytes of all files, and what both
processes hold in memory. In the end all is flushed and compaction left alone until nothing is due by itself, then asked
for.

Live bytes are those of the keys and values that are there. A share of the values may be long ones, which lie in value
files.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from engine_stores import BURST_WRITES, TREE, LeafdbStore, Sizes
from machine_notes import machine_notes
from xxhash import xxh3_64_digest

from leafdb.errors import StorageError
from leafdb.storage.descents import Compacted
from leafdb.storage.settings import EngineConfig

KEY_BYTES: Final = 16
LONG_BYTES: Final = 4_096
DELETED: Final = 0.2
SAMPLE_S: Final = 5.0
ROWS: Final = 30
CALM_S: Final = 5.0
"""Nothing is due any more when nothing has begun for so long."""
SETTLE_S_MAX: Final = 600.0
MIB: Final = 1 << 20
POOL: Final = 4_096
"""Values that are drawn from: making each one anew would take longer than writing it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at it."""

    at_s: float
    written: int
    disk_bytes: int
    parent_bytes: int
    worker_bytes: int
    level0_tables: int


class NodeStore(LeafdbStore):
    """A store at a node's sizes, that can be looked into."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Sizes(1, KEY_BYTES, 1), config=EngineConfig(auto_commit=False))
        self._path = path

    def disk_bytes(self) -> int:
        """The sizes of all files; one that goes away meanwhile counts nothing."""
        total = 0
        for directory, _, names in os.walk(self._path):
            for name in names:
                try:
                    total += os.stat(os.path.join(directory, name)).st_size
                except FileNotFoundError:
                    continue
        return total

    def sample(self, at_s: float, written: int) -> Sample:
        worker = self.worker_pid()
        return Sample(
            at_s,
            written,
            self.disk_bytes(),
            resident_bytes(os.getpid()),
            0 if worker is None else resident_bytes(worker),
            self._engine.stats().level0_tables,
        )

    def settle(self) -> None:
        """Flush, and let compaction do all that it finds due by itself."""
        self.flush()
        self._engine.flush_soon()
        self._until_calm()

    def compact(self) -> None:
        """Have everything merged down."""
        told: list[Compacted | StorageError] = []
        self._engine.compact_soon(TREE, told.append)
        self._wait_for(lambda: bool(told))
        (answer,) = told
        if isinstance(answer, StorageError):
            raise answer
        self._until_calm()

    def _until_calm(self) -> None:
        calm_since, done = time.monotonic(), -1

        def calm() -> bool:
            nonlocal calm_since, done
            stats, now = self._engine.stats(), time.monotonic()
            work = stats.flushes + stats.compactions
            if work != done or stats.frozen_memtables or self._engine.survey().compacting is not None:
                calm_since, done = now, work
            return now - calm_since > CALM_S

        self._wait_for(calm)

    def _wait_for(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + SETTLE_S_MAX
        while not ready():
            if time.monotonic() > until:
                raise TimeoutError(f"the store does not come to rest in {SETTLE_S_MAX:.0f} s")
            self.wait(0.05)
            self._engine.on_time(time.monotonic())


class Work:
    """The keys, what each holds, and the writes."""

    def __init__(self, store: NodeStore, keys: int, value_bytes: int, long_share: float) -> None:
        rng = Random(1)
        self._store = store
        self._rng = rng
        self._long_share = long_share
        self._short = [rng.randbytes(value_bytes) for _ in range(POOL)]
        self._long = [rng.randbytes(LONG_BYTES) for _ in range(POOL // 16)]
        self._keys = [xxh3_64_digest(number.to_bytes(8, "big")) + number.to_bytes(8, "big") for number in range(keys)]
        self._sizes = array("I", bytes(4 * keys))
        """Of what each key has; 0: nothing."""
        self.written = 0

    @property
    def live_bytes(self) -> int:
        return sum(self._sizes) + KEY_BYTES * sum(map(bool, self._sizes))

    def fill(self) -> None:
        """Every key once, in random order."""
        order = list(range(len(self._keys)))
        self._rng.shuffle(order)
        for number in order:
            self._put(number)

    def burst(self) -> None:
        """As many writes as go to the log together."""
        rng, keys = self._rng, self._keys
        for _ in range(BURST_WRITES):
            number = int(rng.random() * len(keys))
            if rng.random() < DELETED:
                self._store.put(keys[number], None)
                self._sizes[number] = 0
            else:
                self._put(number)
        self.written += BURST_WRITES

    def _put(self, number: int) -> None:
        values = self._long if rng_below(self._rng, self._long_share) else self._short
        value = values[int(self._rng.random() * len(values))]
        self._store.put(self._keys[number], value)
        self._sizes[number] = len(value)


def rng_below(rng: Random, share: float) -> bool:
    return share > 0 and rng.random() < share


def resident_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def run(store: NodeStore, work: Work, seconds: float) -> list[Sample]:
    """Write for so long, and look at it now and then."""
    samples: list[Sample] = []
    started = time.monotonic()
    while (now_s := time.monotonic() - started) < seconds:
        if now_s >= len(samples) * SAMPLE_S:
            samples.append(store.sample(now_s, work.written))
            print(f"{now_s:7.0f} s {_cells(samples[-1])}", file=sys.stderr, flush=True)
        for _ in range(64):
            work.burst()
    samples.append(store.sample(now_s, work.written))
    return samples


def _cells(sample: Sample) -> str:
    sizes = (sample.disk_bytes, sample.parent_bytes, sample.worker_bytes)
    return " | ".join([f"{sample.written:,}", *(f"{size / MIB:.0f}" for size in sizes), str(sample.level0_tables)])


def page(samples: Sequence[Sample], ends: Sequence[tuple[str, int, int]], notes: dict[str, Any]) -> list[str]:
    """What is printed."""
    lines = [
        "| at s | overwritten | disk MiB | process MiB | worker MiB | level 0 |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    step = max(1, len(samples) // ROWS)
    lines += [f"| {sample.at_s:.0f} | {_cells(sample)} |" for sample in (*samples[:-1:step], samples[-1])]
    lines += ["", "| of all samples in the | most on disk MiB | mean | most in the process MiB | in the worker MiB |"]
    lines += ["|---|---:|---:|---:|---:|"]
    third = max(1, len(samples) // 3)
    for name, part in (("second third", samples[-2 * third : -third]), ("last third", samples[-third:])):
        disk = [sample.disk_bytes for sample in part]
        process, worker = max(each.parent_bytes for each in part), max(each.worker_bytes for each in part)
        figures = (max(disk), sum(disk) / len(disk), process, worker)
        lines.append(f"| {name} | " + " | ".join(f"{figure / MIB:.0f}" for figure in figures) + " |")
    lines += ["", "| then | live MiB | disk MiB | live / disk |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {live / MIB:.1f} | {disk / MIB:.1f} | {live / disk:.2f} |" for name, live, disk in ends]
    return [*lines, "", *(f"- {name}: {value}" for name, value in notes.items()), ""]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Disk and memory under long overwriting and deleting.")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--long-share", type=float, default=0.0, help=f"of the values that have {LONG_BYTES} bytes")
    parser.add_argument("--dir", type=Path, default=None, help="on the disk that is meant; a temporary one otherwise")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="leafdb-bench-", dir=arguments.dir) as directory:
        notes: dict[str, Any] = machine_notes(directory)
        store = NodeStore(Path(directory))
        try:
            work = Work(store, arguments.keys, arguments.value_bytes, arguments.long_share)
            work.fill()
            samples = run(store, work, arguments.minutes * 60)
            ends = [("stopped", work.live_bytes, store.disk_bytes())]
            store.settle()
            ends.append(("flushed, and nothing is due", work.live_bytes, store.disk_bytes()))
            store.compact()
            ends.append(("`storage compact`", work.live_bytes, store.disk_bytes()))
        finally:
            store.close()
    notes["asked"] = " ".join(sys.argv[1:]) or "nothing"
    text = "\n".join(page(samples, ends, notes))
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
