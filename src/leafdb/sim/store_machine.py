"""A process with one store: a real engine, everything inline, stepped by the program.

The log and the readers have an executor each, so that their work interleaves in any order a kernel might choose; jobs
run a slice at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from leafdb.errors import StorageError
from leafdb.sim.store_model import Contents
from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.lsm_tree import Page
from leafdb.storage.settings import EngineConfig
from leafdb.testing.violation import Invariant, violated
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem

STEPS_MAX: Final = 200_000


class Machine:
    """An opened store; opening may raise what `Engine.open` raises."""

    def __init__(self, fs: FileSystem, config: EngineConfig, now_s: Callable[[], float]) -> None:
        self.log_executor: QueuedExecutor = QueuedExecutor(tells_later=True)
        self.read_executor: QueuedExecutor = QueuedExecutor()
        self.jobs: InlineJobRunner = InlineJobRunner(fs)
        self.failures: list[StorageError] = []
        self.engine: Engine = Engine.open(
            fs,
            config=config,
            log_executor=self.log_executor,
            read_executor=self.read_executor,
            jobs=self.jobs,
            now_s=now_s,
            on_failure=self.failures.append,
        )

    def settle(self) -> None:
        """Do all that is to be done, jobs included."""
        for _ in range(STEPS_MAX):
            ran = self.log_executor.run_pending() + self.read_executor.run_pending()
            if not (self.jobs.step() or ran or self.log_executor.pending or self.read_executor.pending):
                return
        violated(Invariant.LIVENESS, "the store does not come to rest")

    def read(self) -> None:
        """Let the readers work until they have nothing to do."""
        for _ in range(STEPS_MAX):
            if not self.read_executor.run_pending():
                return
        violated(Invariant.LIVENESS, "reads do not come to an end")

    def get(self, tree_id: TreeId, key: bytes) -> bytes | None:
        """The value, waiting for the disk if it must; raises StorageError where the store does."""
        slot = self.engine.get_now(tree_id, key)
        if slot is not None:
            return slot[0]
        answers: list[tuple[bytes | None, int] | StorageError] = []
        self.engine.get_soon(tree_id, key, answers.append)
        self.read()
        (answer,) = answers
        if isinstance(answer, StorageError):
            raise answer
        return answer[0]

    def contents(self, tree_id: TreeId) -> Contents:
        """All of a tree, by scanning it; raises StorageError where the store does."""
        found: Contents = {}
        start: bytes | None = b""
        while start is not None:
            answers: list[Page | StorageError] = []
            self.engine.scan_soon(tree_id, start, None, limit=1_000, bytes_max=1 << 20, done=answers.append)
            self.read()
            (answer,) = answers
            if isinstance(answer, StorageError):
                raise answer
            found.update(answer.items)
            start = answer.next_key
        return found
