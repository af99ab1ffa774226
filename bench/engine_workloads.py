"""What a store is asked to do, one store in one process, so that its CPU, its bytes and its caches are its own.

    python bench/engine_workloads.py STORE RECORDS VALUE_BYTES DIRECTORY

Prints a JSON object: of each workload operations, seconds and CPU, the worker's apart; write and space amplification.

fillseq goes to a store of its own. The other fills another one in the order of a shuffle; then it is closed, pushed out
of the page cache and opened again, read cold (a tenth of the records), hot, in vain, from end to end, overwritten
whole in another order, and at last read and written in turn. After every fill the store is left alone until nothing
works for it any more ("settle"): what compaction costs shows there and in the worker's CPU, not in the fill's seconds.

A workload's answers are checked. Values are half random, half repetition, so compression halves them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Final

from engine_stores import KINDS, Sizes, Store

from leafdb_cli.workloads.machine import cpu_s

KEY_BYTES: Final = 16
SEED: Final = 6
COLD_SHARE: Final = 10
SETTLED_S: Final = 0.3
SETTLED_CPU_S: Final = 0.015
LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Measured:
    """One workload. The worker's CPU is measured in ticks of 10 ms."""

    operations: int
    seconds: float
    cpu_s: float
    worker_cpu_s: float


class Data:
    """The records, the same for every store."""

    def __init__(self, records: int, value_bytes: int) -> None:
        rng = Random(SEED)
        self.sizes = Sizes(records, KEY_BYTES, value_bytes)
        self.ordered = sorted(rng.randbytes(KEY_BYTES // 2) + b"%08d" % number for number in range(records))
        self.shuffled = rng.sample(self.ordered, records)
        self.again = rng.sample(self.ordered, records)
        self.missing = [key[:-1] + b"?" for key in self.again]
        half = value_bytes // 2
        self.values = [(text := rng.randbytes(half)) + text[: value_bytes - half] for _ in range(min(records, 1_000))]

    def value(self, number: int) -> bytes:
        return self.values[number % len(self.values)]


class Meter:
    """Time and CPU of what is done between `start` and `stop`, and bytes written, by this process and the store's
    worker; a worker that ends takes its figures along, so the store must be open."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._started = (time.perf_counter(), time.process_time(), self._worker_cpu_s())

    def _worker_cpu_s(self) -> float:
        pid = self._store.worker_pid()
        return 0.0 if pid is None else cpu_s(pid) or 0.0

    def cpu_s(self) -> float:
        return time.process_time() + self._worker_cpu_s()

    def stop(self, operations: int) -> Measured:
        seconds, own, worker = self._started
        return Measured(
            operations, time.perf_counter() - seconds, time.process_time() - own, self._worker_cpu_s() - worker
        )


def written_bytes(store: Store) -> int:
    """Bytes that this process and the store's worker have given to write calls so far."""
    pids = ["self", *([str(pid)] if (pid := store.worker_pid()) is not None else [])]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("wchar:"))


def disk_bytes(directory: Path) -> int:
    """What the files below take, in whole blocks of the disk."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


def push_out(directory: Path) -> None:
    """Have the kernel forget the files' contents."""
    for path in directory.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def settle(store: Store) -> Measured:
    """Wait until neither the store says that it owes work nor anybody spends CPU for it."""
    store.flush()
    meter = Meter(store)
    quiet_s, before = 0.0, meter.cpu_s()
    while quiet_s < SETTLED_S:
        store.wait(LOOK_S)
        now = meter.cpu_s()
        quiet_s = quiet_s + LOOK_S if now - before <= SETTLED_CPU_S and not store.busy() else 0.0
        before = now
    measured = meter.stop(1)
    return Measured(1, max(0.0, measured.seconds - SETTLED_S), measured.cpu_s, measured.worker_cpu_s)


def fill(store: Store, keys: Sequence[bytes], data: Data, salt: int) -> Measured:
    put, values = store.put, [data.value(number + salt) for number in range(len(data.values))]
    many = len(values)
    meter = Meter(store)
    for number, key in enumerate(keys):
        put(key, values[number % many])
    store.flush()
    return meter.stop(len(keys))


def read(store: Store, keys: Sequence[bytes], *, found: bool) -> Measured:
    get = store.get
    hits = 0
    meter = Meter(store)
    for key in keys:
        if get(key) is not None:
            hits += 1
    measured = meter.stop(len(keys))
    assert hits == (len(keys) if found else 0), f"{hits} of {len(keys)} were found"
    return measured


def scan(store: Store, records: int) -> Measured:
    meter = Meter(store)
    seen = sum(1 for _ in store.scan())
    assert seen == records, f"{seen} of {records} were seen"
    return meter.stop(seen)


def mixed(store: Store, data: Data) -> Measured:
    """A put and a get in turn, in the order of the shuffle."""
    put, get = store.put, store.get
    value = data.value(2)
    pairs = list(zip(data.shuffled[: data.sizes.records // 2], data.again[: data.sizes.records // 2], strict=True))
    meter = Meter(store)
    for key, other in pairs:
        put(key, value)
        get(other)
    store.flush()
    return meter.stop(2 * len(pairs))


def run(kind: str, data: Data, directory: Path) -> dict[str, object]:
    """Every workload on one store; the figures by name."""
    opened: Callable[[Path, Sizes], Store] = KINDS[kind].open
    figures: dict[str, Measured] = {}
    sizes = data.sizes
    store = opened(directory / "ordered", sizes)
    figures["fillseq"] = fill(store, data.ordered, data, 0)
    figures["fillseq, settle"] = settle(store)
    store.close()

    path = directory / "shuffled"
    store = opened(path, sizes)
    before = written_bytes(store)
    figures["fillrandom"] = fill(store, data.shuffled, data, 0)
    figures["fillrandom, settle"] = settle(store)
    fill_written = written_bytes(store) - before
    store.close()
    push_out(path)

    store = opened(path, sizes)
    figures["readrandom, cold"] = read(store, data.again[::COLD_SHARE], found=True)
    read(store, data.shuffled, found=True)
    figures["readrandom, hot"] = read(store, data.again, found=True)
    figures["readmissing"] = read(store, data.missing, found=False)
    figures["scan"] = scan(store, sizes.records)
    before = written_bytes(store)
    figures["overwrite"] = fill(store, data.again, data, 1)
    figures["overwrite, settle"] = settle(store)
    overwrite_written = written_bytes(store) - before
    space = disk_bytes(path)
    figures["mixed"] = mixed(store, data)
    for number, key in enumerate(data.shuffled[: sizes.records // 2]):
        assert number % 97 or store.get(key) == data.value(2), "a write was lost"
    store.close()
    return {
        "workloads": {name: asdict(measured) for name, measured in figures.items()},
        "write_amplification": (fill_written + overwrite_written) / (2 * sizes.live_bytes),
        "space_amplification": space / sizes.live_bytes,
    }


def main(arguments: Sequence[str]) -> int:
    kind, records, value_bytes, directory = arguments
    print(json.dumps(run(kind, Data(int(records), int(value_bytes)), Path(directory))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
