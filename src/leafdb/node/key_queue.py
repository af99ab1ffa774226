"""One read-modify-write per key at a time, without a lock.

When a key's current value is in memory or in the page cache, a mutation runs to its end in one call and nothing can
come between. When the disk must be asked, the key enters a bounded table, its value is fetched once, and everything
that wants the key meanwhile queues behind in order and runs in one go when the value is there.

What waits was admitted under the ring of its arrival. Whoever copies a range that changes its owners must not read past
it: `turn` marks all that waits at the moment of a change, `older_waiting` says whether any of that is left.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Final, Protocol

from leafdb.errors import StorageError
from leafdb.limits import PENDING_KEYS_MAX, PENDING_PER_KEY_MAX
from leafdb.storage.engine import Engine
from leafdb.types import TreeId

RETRY_AFTER_S: Final = 0.05
Current = tuple[bytes | None, int]
"""A stored value (None: nothing) and the sequence number of the commit that made it (0: long ago)."""


class ReplicaOverloaded(Exception):
    """The queues are full or the engine asks writers to wait: nothing was applied."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"try again in {retry_after_s:.3f} s")
        self.retry_after_s = retry_after_s


class Work(Protocol):
    """Something to do with a key's current value, or to refuse when it cannot be had."""

    def run(self, value: bytes | None, sequence: int) -> None:
        """Do it."""

    def refuse(self, error: Exception) -> None:
        """It never ran; say so to whoever asked."""


class KeyQueue:
    """The engine's values, one mutation at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pending: dict[tuple[TreeId, bytes], deque[Work]] = {}
        self._older: set[tuple[TreeId, bytes]] = set()
        """Keys that were pending at the last turn and have been ever since."""

    def __len__(self) -> int:
        return len(self._pending)

    def turn(self) -> None:
        """Owners of ranges have changed: what waits was admitted before that."""
        self._older = set(self._pending)

    @property
    def older_waiting(self) -> bool:
        """Whether anything admitted before the last turn is still to be done."""
        return bool(self._older)

    def now(self, tree: TreeId, key: bytes) -> Current | None:
        """The value without waiting; None when the disk must be read or others already wait for this key."""
        if self._pending and (tree, key) in self._pending:
            return None
        return self._engine.get_now(tree, key)

    def later(self, tree: TreeId, key: bytes, work: Work) -> None:
        """Run `work` once the key's value has been read, after everything that came before it."""
        slot = (tree, key)
        queue = self._pending.get(slot)
        if queue is not None:
            if len(queue) >= PENDING_PER_KEY_MAX:
                work.refuse(ReplicaOverloaded(RETRY_AFTER_S))
            else:
                queue.append(work)
            return
        if len(self._pending) >= PENDING_KEYS_MAX:
            work.refuse(ReplicaOverloaded(RETRY_AFTER_S))
            return
        self._pending[slot] = deque((work,))
        try:
            self._engine.get_soon(tree, key, partial(self._fetched, slot))
        except StorageError as error:
            del self._pending[slot]
            work.refuse(error)

    def do(self, tree: TreeId, key: bytes, work: Work) -> None:
        """Run `work` now if that needs no waiting, else later."""
        try:
            current = self.now(tree, key)
        except StorageError as error:
            work.refuse(error)
            return
        if current is None:
            self.later(tree, key, work)
        else:
            work.run(*current)

    def _fetched(self, slot: tuple[TreeId, bytes], result: Current | StorageError) -> None:
        queue = self._pending[slot]
        current: Current = (None, 0) if isinstance(result, StorageError) else result
        while queue:
            work = queue.popleft()
            if isinstance(result, StorageError):
                work.refuse(result)
                continue
            work.run(*current)
            try:
                # The work may have written: then the memtable has the key now. If not, what was read still holds.
                newer = self._engine.get_now(*slot)
            except StorageError as error:
                result = error
                continue
            if newer is not None and newer[1]:
                current = newer
        del self._pending[slot]
        self._older.discard(slot)

    def check(self) -> None:
        """The pending table is within its bounds."""
        assert len(self._pending) <= PENDING_KEYS_MAX
        assert all(0 < len(queue) <= PENDING_PER_KEY_MAX for queue in self._pending.values())
        assert self._older <= self._pending.keys()
