"""What somebody asks of this node's store that takes a while: flush, compact, verify. At most one of each at a time.

Of each kind the last one is remembered, with how far it is or how it ended, until the node is started again. What is
told is bounded: a store with more damage than that says how much more there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from leafdb.errors import NotApplied, Reason, StorageError
from leafdb.limits import STORAGE_DAMAGES_TOLD
from leafdb.node.boot import CHECKPOINTS_TREE
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.horizons import PURGE_TREE
from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.logs import Log
from leafdb.node.metric_tables import STORAGE_COUNTERS
from leafdb.node.register import META_TREE, REGISTERS_TREE
from leafdb.node.vouching import touched
from leafdb.storage.descents import Compacted
from leafdb.storage.verification import Damage, Verified, VerifyState
from leafdb.types import FIRST_BUCKET_ID, TreeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Answer = dict[str, Any]

INTERNAL_NAMES: Final = {
    META_TREE: "(meta)", REGISTERS_TREE: "(registers)", HINTS_TREE: "(hints)", CHECKPOINTS_TREE: "(checkpoints)",
    TREES_TREE: "(hash trees)", PURGE_TREE: "(horizons)",
}  # fmt: skip
KEY_BYTES_TOLD: Final = 64

log: Log = Log("storage")


class Kind(StrEnum):
    """What can be asked for."""

    FLUSH = "flush"
    COMPACT = "compact"
    VERIFY = "verify"


class State(StrEnum):
    """Where it stands."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(slots=True)
class Task:
    """One that was asked for."""

    number: int
    kind: Kind
    begun_s: float
    state: State = State.RUNNING
    ended_s: float | None = None
    outcome: Compacted | Verified | None = None
    error: str = ""


class StorageTasks:
    """The tasks of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._numbers = 0
        self._last: dict[Kind, Task] = {}
        node.metrics.follow(node.engine.work, STORAGE_COUNTERS)

    def flush(self) -> int:
        """Bring what is in memory into tables; the number of the task. It takes the place of one that is under way."""
        task = self._begin(Kind.FLUSH)
        self._node.engine.flush_soon(lambda: self._ended(task, State.DONE))
        return task.number

    def compact(self, tree: TreeId | None) -> int:
        """Compact a tree, or all of them, to the last level."""
        self._refuse_second(Kind.COMPACT)
        task = self._begin(Kind.COMPACT)
        try:
            self._node.engine.compact_soon(tree, lambda outcome: self._compacted(task, outcome))
        except StorageError as error:
            raise self._refused(task, error) from None
        return task.number

    def verify(self, bytes_per_s: int) -> int:
        """Read every file again; 0: as fast as it goes."""
        self._refuse_second(Kind.VERIFY)
        task = self._begin(Kind.VERIFY)
        try:
            self._node.engine.verify_soon(bytes_per_s=bytes_per_s, done=lambda outcome: self._verified(task, outcome))
        except StorageError as error:
            raise self._refused(task, error) from None
        return task.number

    def stop_verifying(self) -> bool:
        """End the verification somebody asked for; False: there is none."""
        task = self._last.get(Kind.VERIFY)
        if task is None or task.state is not State.RUNNING:
            return False
        self._node.engine.verifier.cancel()
        return True

    def report(self) -> list[Answer]:
        """Every task that is remembered."""
        return [self._told(task) for task in self._last.values()]

    # -- inside

    def _begin(self, kind: Kind) -> Task:
        self._numbers += 1
        task = self._last[kind] = Task(self._numbers, kind, self._node.world.now())
        log.info("storage task begun", kind=str(kind), task=task.number)
        return task

    def _refuse_second(self, kind: Kind) -> None:
        task = self._last.get(kind)
        if task is not None and task.state is State.RUNNING:
            raise NotApplied(f"a {kind} is under way since before: task {task.number}", reason=Reason.FAILED)

    def _refused(self, task: Task, error: StorageError) -> NotApplied:
        """The store would not begin it."""
        self._ended(task, State.FAILED, str(error))
        return NotApplied(str(error), reason=Reason.FAILED)

    def _ended(self, task: Task, state: State, error: str = "") -> None:
        task.state, task.error, task.ended_s = state, error, self._node.world.now()
        log.info("storage task ended", kind=str(task.kind), task=task.number, state=str(state))

    def _compacted(self, task: Task, outcome: Compacted | StorageError) -> None:
        if isinstance(outcome, StorageError):
            self._ended(task, State.FAILED, str(outcome))
            return
        task.outcome = outcome
        self._ended(task, State.DONE)

    def _verified(self, task: Task, outcome: Verified | StorageError) -> None:
        if isinstance(outcome, StorageError):
            self._ended(task, State.FAILED, str(outcome))
            return
        task.outcome = outcome
        for damage in outcome.damages:
            log.error("a file of the store is damaged", path=damage.path, offset=damage.offset, what=damage.what)
        self._ended(task, State.CANCELLED if outcome.state is VerifyState.CANCELLED else State.DONE)

    def _told(self, task: Task) -> Answer:
        now = self._node.world.now()
        told: Answer = {
            "task": task.number,
            "kind": str(task.kind),
            "state": str(task.state),
            "error": task.error,
            "elapsed_s": (now if task.ended_s is None else task.ended_s) - task.begun_s,
        }
        match task.kind:
            case Kind.FLUSH:
                return told
            case Kind.COMPACT:
                found = task.outcome if task.outcome else self._node.engine.descents.progress()
                return {**told, **(compacted_fields(self._node, found) if isinstance(found, Compacted) else {})}
            case Kind.VERIFY:
                seen = task.outcome if task.outcome else self._node.engine.verifier.progress()
                return {**told, **(verified_fields(self._node, seen) if isinstance(seen, Verified) else {})}


def tree_name(node: Node, tree: TreeId | None) -> str:
    """The bucket a tree holds, or what else it is for; empty for none."""
    if tree is None:
        return ""
    if tree < FIRST_BUCKET_ID:
        return INTERNAL_NAMES.get(tree, f"({int(tree)})")
    bucket = node.view.buckets.get(int(tree))
    return bucket.properties.name if bucket else f"(tree {int(tree)})"


def compacted_fields(node: Node, found: Compacted) -> Answer:
    """How far a compaction is."""
    return {
        "trees": found.trees,
        "trees_total": found.trees_total,
        "tree": tree_name(node, found.tree_id),
        "level": found.level,
        "last_level": found.last_level,
        "jobs": found.jobs,
        "bytes_read": found.bytes_read,
        "bytes_written": found.bytes_written,
        "skipped": found.skipped,
        "share": node.engine.stats().compaction_share,
    }


def verified_fields(node: Node, found: Verified) -> Answer:
    """How far a verification is, and the first of what it has found."""
    return {
        "files": found.files,
        "files_total": found.files_total,
        "bytes_read": found.bytes_read,
        "bytes_total": found.bytes_total,
        "damaged_files": found.damaged_files,
        "damages_found": found.damages_found,
        "damages": list(_damages(node, found.damages[:STORAGE_DAMAGES_TOLD])),
    }


def _damages(node: Node, damages: Iterable[Damage]) -> Iterable[Answer]:
    metadata = node.view.metadata
    for damage in damages:
        of_bucket = damage.tree_id is not None and damage.tree_id >= FIRST_BUCKET_ID and metadata is not None
        partitions = touched(damage.smallest, damage.largest, metadata.partitions) if of_bucket and metadata else None
        yield {
            "path": damage.path,
            "offset": damage.offset,
            "what": damage.what,
            "tree": tree_name(node, damage.tree_id),
            "smallest": damage.smallest[:KEY_BYTES_TOLD],
            "largest": damage.largest[:KEY_BYTES_TOLD],
            "partitions": [partitions[0], partitions[-1]] if partitions else [],
        }
