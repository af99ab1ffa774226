"""An engine on memory files with everything inline, stepped by the test."""

from __future__ import annotations

from leafdb.errors import StorageError
from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.lsm_tree import Page
from leafdb.storage.maintenance import BeforeFlush, no_gate
from leafdb.storage.recovery import Replayed, no_follower
from leafdb.storage.settings import EngineConfig
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import MemoryFileSystem

TREE = TreeId(300)
SMALL = EngineConfig(memtable_bytes=20_000, file_number_lease=8, manifest_bytes_max=2_000, store_id=b"s" * 16)


class Store:
    """One opened engine. `settle` lets everything that is due happen."""

    def __init__(
        self,
        fs: MemoryFileSystem | None = None,
        config: EngineConfig = SMALL,
        *,
        replayed: Replayed = no_follower,
        before_flush: BeforeFlush = no_gate,
    ) -> None:
        self.fs = MemoryFileSystem() if fs is None else fs
        self.executor = QueuedExecutor()
        self.jobs = InlineJobRunner(self.fs)
        self.now_s = 100.0
        self.failures: list[StorageError] = []
        self.engine = Engine.open(
            self.fs,
            config=config,
            log_executor=self.executor,
            read_executor=self.executor,
            jobs=self.jobs,
            now_s=lambda: self.now_s,
            on_failure=self.failures.append,
            replayed=replayed,
            before_flush=before_flush,
        )

    def settle(self) -> None:
        busy = True
        while busy:
            ran = self.executor.run_pending()
            more = self.jobs.step()
            busy = bool(ran or more or self.executor.pending)

    def commit(self) -> None:
        """Let the log and the readers work, but no job."""
        self.executor.run_pending()

    def elapse(self, seconds: float) -> None:
        self.now_s += seconds
        self.engine.on_time(self.now_s)
        self.commit()

    def put(
        self,
        key: bytes,
        value: bytes | None,
        durability: Durability = Durability.ALWAYS,
        tree: TreeId = TREE,
    ) -> list[StorageError | None]:
        """Write one entry; the list gets the outcome once it is known."""
        outcome: list[StorageError | None] = []
        self.engine.write([(tree, key, value)], durability, outcome.append)
        return outcome

    def get(self, key: bytes, tree: TreeId = TREE) -> bytes | None:
        found = self.engine.get_now(tree, key)
        if found is None:
            answers: list[tuple[bytes | None, int] | StorageError] = []
            self.engine.get_soon(tree, key, answers.append)
            assert not answers, "answered inside the call"
            self.commit()
            (found,) = answers  # type: ignore[assignment] # an error is raised below
        if isinstance(found, StorageError):
            raise found
        assert found is not None
        return found[0]

    def page(
        self,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        limit: int = 1000,
        bytes_max: int = 1 << 20,
        reverse: bool = False,
        tree: TreeId = TREE,
    ) -> Page:
        answers: list[Page | StorageError] = []
        self.engine.scan_soon(tree, start, stop, limit=limit, bytes_max=bytes_max, reverse=reverse, done=answers.append)
        assert not answers, "answered inside the call"
        self.commit()
        (answer,) = answers
        if isinstance(answer, StorageError):
            raise answer
        return answer

    def items(
        self, start: bytes = b"", stop: bytes | None = None, *, limit: int = 7, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        """A whole scan, page by page."""
        found: list[tuple[bytes, bytes]] = []
        while True:
            page = self.page(start, stop, limit=limit, reverse=reverse)
            found += page.items
            if page.next_key is None:
                return found
            if reverse:
                stop = page.next_key
            else:
                start = page.next_key

    def close(self) -> None:
        self.engine.close()
        self.jobs.close()
