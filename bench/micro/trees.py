"""What a kept hash tree costs a write: microseconds of CPU of the engine's own write, and of one with mark and tree.

    python bench/micro/trees.py [WRITES]

New keys and overwrites of 256 partitions, records with values of 100 bytes, on files in memory with everything inline;
commits are not counted. Beside it what it takes to save all trees of a bucket, which happens with each flush. Nothing
is asserted.
"""

from __future__ import annotations

import platform
import sys
from random import Random
from time import perf_counter, process_time
from typing import Final

from leafdb.model.actor import ACTOR_BYTES, Actor
from leafdb.model.record_format import first
from leafdb.node.hash_trees import HashTrees
from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.metrics import Metrics
from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.settings import EngineConfig
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import MemoryFileSystem

WRITES_DEFAULT: Final = 100_000
BATCH: Final = 200
RUNS: Final = 5
VALUE_BYTES: Final = 100
STAMP: Final = 1_700_000_000_000 << 16
PARTITIONS: Final = 256
BUCKET: Final = TreeId(300)


class Bench:
    """One store, and its trees."""

    def __init__(self) -> None:
        fs = MemoryFileSystem()
        self.executor = QueuedExecutor()
        self.trees = HashTrees(Metrics(), perf_counter)
        self.engine = Engine.open(
            fs,
            config=EngineConfig(memtable_bytes=1 << 30, wal_segment_bytes=1 << 30, auto_commit=False),
            log_executor=self.executor,
            read_executor=self.executor,
            jobs=InlineJobRunner(fs),
            now_s=perf_counter,
            on_failure=lambda error: None,
        )
        kept = self.trees.kept
        kept.open(self.engine)
        for tree in (TREES_TREE, BUCKET):
            self.engine.create_tree(tree)
        kept.installed(PARTITIONS, {BUCKET}, {BUCKET})

    def commit(self) -> None:
        self.engine.flush_batch()
        while self.executor.pending:
            self.executor.run_pending()

    def plain(self, keys: list[bytes], old: bytes | None, new: bytes) -> float:
        """Microseconds a write."""
        write, spent = self.engine.write, 0.0
        for start in range(0, len(keys), BATCH):
            began = process_time()
            for key in keys[start : start + BATCH]:
                write(((BUCKET, key, new),), Durability.PERIODIC, None)
            spent += process_time() - began
            self.commit()
        return spent / len(keys) * 1e6

    def kept(self, keys: list[bytes], old: bytes | None, new: bytes) -> float:
        """The same through the trees."""
        write, spent = self.trees.kept.write, 0.0
        for start in range(0, len(keys), BATCH):
            began = process_time()
            for key in keys[start : start + BATCH]:
                write(BUCKET, key, old, new, Durability.PERIODIC, None)
            spent += process_time() - began
            self.commit()
        return spent / len(keys) * 1e6


def record(rng: Random, later: int) -> bytes:
    """One that lives on: what may die is noted as well, which is not what is measured here."""
    return first(Actor(bytes(ACTOR_BYTES)), STAMP + later, 0, bytes(16), rng.randbytes(VALUE_BYTES))


def saving(keys: int) -> tuple[float, int]:
    """Milliseconds of the loop to save the trees of a bucket of so many keys, all changed; and the bytes they take."""
    best, size = float("inf"), 0
    rng = Random(2)
    bench, one = Bench(), record(rng, 0)
    kept = bench.trees.kept
    for _ in range(RUNS):
        bench.kept([rng.randbytes(8) + b"customer" for _ in range(keys // RUNS)], None, one)
        before = bench.engine.stats().backlog_bytes
        began = process_time()
        for place, each in kept.dirty.items():
            kept.save([(place, each)])
        best = min(best, process_time() - began)
        size = bench.engine.stats().backlog_bytes - before
        bench.commit()
    return best * 1e3, size


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else WRITES_DEFAULT
    rng = Random(1)
    keys = [rng.randbytes(8) + b"customer-%08d\x00\x01" % number for number in range(count)]
    one, two = record(rng, 0), record(rng, 1)
    best: dict[str, float] = {}
    for _ in range(RUNS):
        plain, kept = Bench(), Bench()
        for what, figure in (
            ("new keys, engine alone", plain.plain(keys, None, one)),
            ("new keys, with trees", kept.kept(keys, None, one)),
            ("overwrites, engine alone", plain.plain(keys, one, two)),
            ("overwrites, with trees", kept.kept(keys, one, two)),
        ):
            best[what] = min(best.get(what, figure), figure)
    print(f"{platform.python_implementation()} {platform.python_version()}, {count} writes, best of {RUNS}")
    for what, figure in best.items():
        print(f"{what:<32}{figure:6.2f} us")
    for size in (5_000, 50_000, 500_000):
        spent_ms, saved = saving(size)
        print(f"saving the trees of {size:<7} keys {spent_ms:9.1f} ms {saved / 2**20:6.2f} MiB")


if __name__ == "__main__":
    main()
