"""A store that forgets: what replica, hints and leases ask of an engine, over a dict, a log and a heap of events.

A write is in memory at once and has a sequence number. Some time later a commit makes everything so far *written*
(safe for `periodic`), and *synced* (safe for `always`), the latter at once if anything of it asks for that. A crash
keeps a prefix: all that was safe, and as much of the rest as chance will have. Reads are sometimes cold: then the
caller must wait and its key's other work queues behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from leafdb.errors import StorageError
from leafdb.sim.heap import Heap, Host
from leafdb.types import FIRST_BUCKET_ID, Durability, TreeId

Waiter = Callable[[StorageError | None], None]
Entry = tuple[TreeId, bytes, bytes | None]
Slot = tuple[bytes | None, int]
Contents = dict[tuple[TreeId, bytes], bytes]

SYNC_INTERVAL_S: Final = 0.1
FETCH_S: Final = 0.01
STUCK_S: Final = 1.0
"""A disk is stuck now and then, longer than a request lives."""
WAITED: Final = "a mutation waited for the disk"


class PlainRecords:
    """Writes records as `KeptTrees` does, and keeps no trees: nobody compares any here."""

    def __init__(self, store: ForgetfulStore) -> None:
        self._store = store

    def write(
        self,
        tree: TreeId,
        key: bytes,
        old: bytes | None,
        new: bytes | None,
        durability: Durability,
        done: Waiter | None = None,
        also: Sequence[Entry] = (),
    ) -> int:
        """As there."""
        return self._store.write(((tree, key, new), *also), durability, done)


class ForgetfulStore:
    """One node's disk and what is in front of it. Mimics the part of Engine that the record path uses."""

    def __init__(self, heap: Heap, host: Host, rng: Random, *, commit_s: float, cold: float) -> None:
        self._heap = heap
        self._host = host
        self._rng = rng
        self._commit_s = commit_s
        self._cold = cold
        """How many reads have to wait."""
        self.durable: Contents = {}
        self._slots: dict[tuple[TreeId, bytes], Slot] = {}
        self._log: list[tuple[int, Sequence[Entry]]] = []
        """What was written since the last sync."""
        self.sequence: int = 0
        self.written: int = 0
        self.synced: int = 0
        self._sync_wanted = False
        self._commit_set = False
        self._waiters: list[tuple[int, Durability, Waiter]] = []
        self._fetching: Counter[tuple[TreeId, bytes]] = Counter()

    # -- as the engine has it

    def admit(self) -> float:
        """Always ready to write."""
        return 0.0

    def get_now(self, tree: TreeId, key: bytes) -> Slot | None:
        """The value and its sequence number; None when it has to be fetched."""
        slot = self._slots.get((tree, key))
        if slot is not None:
            return slot
        if self._cold and tree >= FIRST_BUCKET_ID and self._rng.random() < self._cold:
            return None
        value = self.durable.get((tree, key))
        return value, 0

    def get_soon(self, tree: TreeId, key: bytes, done: Callable[[Slot | StorageError], None]) -> None:
        """Fetch it: the state of now, a little later."""
        self._heap.trace.probe(WAITED)
        slot = self._slots.get((tree, key), (self.durable.get((tree, key)), 0))
        longest = STUCK_S if self._rng.random() < 0.03 else FETCH_S
        self._fetching[tree, key] += 1

        def fetched() -> None:
            self._fetching[tree, key] -= 1
            done(slot)

        self._host.at(self._heap.now + self._rng.random() * longest, fetched)

    def write(
        self, writes: Sequence[Entry], durability: Durability = Durability.ALWAYS, done: Waiter | None = None
    ) -> int:
        """In memory at once; `done` when it is as durable as asked."""
        self.sequence = sequence = self.sequence + 1
        for tree, key, value in writes:
            self._slots[tree, key] = (value, sequence)
        self._log.append((sequence, writes))
        if done is not None:
            self.when_safe(sequence, durability, done)
        self._want_commit(durability)
        return sequence

    def safe_sequence(self, durability: Durability) -> int:
        """Up to here everything is as durable as that."""
        return self.synced if durability is Durability.ALWAYS else self.written

    def when_safe(self, sequence: int, durability: Durability, done: Waiter) -> None:
        """`done` once that is so for `sequence`; inside the call if it is."""
        if sequence <= self.safe_sequence(durability):
            done(None)
            return
        self._waiters.append((sequence, durability, done))
        self._want_commit(durability)

    # -- commits

    def value(self, tree: TreeId, key: bytes) -> bytes | None:
        """What a reader in this process would find, safe or not."""
        slot = self._slots.get((tree, key))
        return self.durable.get((tree, key)) if slot is None else slot[0]

    def contents(self) -> Contents:
        """Everything, safe or not."""
        found = dict(self.durable)
        for _, writes in self._log:
            _apply(found, writes)
        return found

    def sync(self) -> None:
        """Everything so far is durable."""
        self._sync_wanted = True
        self._commit()

    def _want_commit(self, durability: Durability) -> None:
        self._sync_wanted |= durability is Durability.ALWAYS
        if not self._commit_set:
            self._commit_set = True
            self._host.at(self._heap.now + self._rng.random() * self._commit_s, self._commit)

    def _commit(self) -> None:
        self._commit_set = False
        self.written = self.sequence
        if self._sync_wanted:
            self._sync_wanted = False
            self.synced = self.sequence
            for _, writes in self._log:
                _apply(self.durable, writes)
            self._log.clear()
            self._slots.clear()
        elif self._log:
            self._host.at(self._heap.now + SYNC_INTERVAL_S, self.sync)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            self.when_safe(*waiter)

    # -- what goes wrong

    def crash(self, *, power: bool) -> None:
        """The process dies, or the machine: the suffix of what was not written (not synced) is lost, or part of it."""
        kept = self._rng.randint(self.synced if power else self.written, self.sequence)
        for sequence, writes in self._log:
            if sequence <= kept:
                _apply(self.durable, writes)
        self._begin_again()

    def replace(self, contents: Contents) -> None:
        """Another disk in its place: empty, or an old copy."""
        self.durable = dict(contents)
        self._begin_again()

    def quarantine(self, tree: TreeId, key: bytes) -> bool:
        """A bad block: one key's value is gone. False when there is none on the disk, or memory has it still.

        Nor while it is being fetched: mutations queued behind the fetch are given what it found, rightly, and confirm
        what the block no longer holds; rot between two readings is what is meant here.
        """
        slot = (tree, key)
        if slot in self._slots or slot not in self.durable or self._fetching[slot]:
            return False
        del self.durable[slot]
        return True

    def _begin_again(self) -> None:
        self._slots.clear()
        self._log.clear()
        self._waiters.clear()
        self._fetching.clear()
        self._commit_set = self._sync_wanted = False
        self.written = self.synced = self.sequence


def _apply(contents: Contents, writes: Sequence[Entry]) -> None:
    for tree, key, value in writes:
        if value is None:
            contents.pop((tree, key), None)
        else:
            contents[tree, key] = value
