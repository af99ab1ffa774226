"""What one call of the engine costs on the loop, with the log inline on memory files and no jobs in the way.

    python bench/micro/engine.py [--count N]

Prints microseconds of CPU per call, the best of a few rounds: `get_now` that hits the memtable, misses everything, or
hits a table whose block is cached; `write` of one key with a callback, without and with the commit's own work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from random import Random

from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.settings import EngineConfig
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import MemoryFileSystem

TREE = TreeId(256)
BATCH = 32
ROUNDS = 5


class Bench:
    def __init__(self, count: int) -> None:
        self.executor = QueuedExecutor()
        fs = MemoryFileSystem()
        self.jobs = InlineJobRunner(fs)
        self.engine = Engine.open(
            fs,
            config=EngineConfig(memtable_bytes=1 << 30, wal_segment_bytes=1 << 30, auto_commit=False),
            log_executor=self.executor,
            read_executor=self.executor,
            jobs=self.jobs,
            now_s=lambda: 0.0,
            on_failure=lambda error: None,
        )
        self.engine.create_tree(TREE)
        rng = Random(1)
        self.keys = [rng.randbytes(8) + b"key:%012d\x00\x01" % number for number in range(count)]
        self.absent = [key + b"?" for key in self.keys]
        self.values = [rng.randbytes(100) for _ in range(count)]

    def settle(self) -> None:
        busy = True
        while busy:
            ran = self.executor.run_pending()
            busy = self.jobs.step() or bool(ran) or bool(self.executor.pending)

    def write(self) -> tuple[float, float]:
        """Seconds spent in `write` and `flush_batch`; seconds spent in committing."""
        write, flush_batch, run = self.engine.write, self.engine.flush_batch, self.executor.run_pending
        clock = time.perf_counter
        writing = committing = 0.0
        always = Durability.ALWAYS
        told: list[object] = []
        for start in range(0, len(self.keys), BATCH):
            pairs = list(zip(self.keys[start : start + BATCH], self.values[start : start + BATCH], strict=True))
            before = clock()
            for key, value in pairs:
                write(((TREE, key, value),), always, told.append)
            flush_batch()
            between = clock()
            run()
            writing += between - before
            committing += clock() - between
        assert len(told) == len(self.keys)
        return writing, committing

    def get(self, keys: list[bytes]) -> float:
        get_now = self.engine.get_now
        before = time.perf_counter()
        for key in keys:
            get_now(TREE, key)
        return time.perf_counter() - before


def best(measure: Callable[[], float], count: int) -> float:
    return min(measure() for _ in range(ROUNDS)) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    count: int = parser.parse_args().count
    bench = Bench(count)
    fresh = bench.write()
    again = min(bench.write() for _ in range(ROUNDS))
    print(f"write, new key             {fresh[0] / count * 1e6:6.2f} us   commit {fresh[1] / count * 1e6:6.2f} us")
    print(f"write, known key           {again[0] / count * 1e6:6.2f} us   commit {again[1] / count * 1e6:6.2f} us")
    print(f"get_now, memtable          {best(lambda: bench.get(bench.keys), count):6.2f} us")
    print(f"get_now, absent            {best(lambda: bench.get(bench.absent), count):6.2f} us")
    bench.engine.flush_soon()
    bench.settle()
    few = bench.keys[:2_000]
    print(f"get_now, table, hot blocks {best(lambda: bench.get(few), len(few)):6.2f} us")
    print(f"get_now, table, bloom miss {best(lambda: bench.get(bench.absent), count):6.2f} us")


if __name__ == "__main__":
    main()
