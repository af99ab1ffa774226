"""Nodes that hold one key, stripped to what decides about records: the real Replica, HintKeeper and leases over stores
that forget.

A node is a primary or a fallback; the latter keeps copies for absent primaries in its hints tree and mints there under
its own actor. All that is missing is the wire, the ring and the machine that counts answers. `WatchedReplica` tells the
oracle of every mint and merge as it happens.

What a node confirmed to others as durable it must keep, unless its store was made to forget: `held` remembers it, and
is emptied by what forgets.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final, Protocol, cast

from leafdb.errors import StorageError
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import encode_key
from leafdb.hints.ledger import Ledger
from leafdb.model.actor import ActorIdentity, epoch_of, node_of
from leafdb.model.hlc import LeaseExhausted
from leafdb.model.put import Named, PutResult
from leafdb.model.record import clock_of
from leafdb.node.hint_keeper import HINTS_TREE, HintKeeper
from leafdb.node.hinted_handoff import HintedHandoff, Removal
from leafdb.node.leases import EPOCH_KEY, STAMP_KEY, Leases
from leafdb.node.metrics import Metrics
from leafdb.node.minting import Minting
from leafdb.node.op_memory import OpMemory
from leafdb.node.register import META_TREE
from leafdb.node.replica import Replica
from leafdb.node.view import BucketView, ClusterView
from leafdb.sim.heap import Heap, Host
from leafdb.sim.record_oracle import Oracle
from leafdb.sim.record_store import Contents, ForgetfulStore, PlainRecords
from leafdb.sim.trace import Trace
from leafdb.storage.engine import Engine
from leafdb.testing.violation import Invariant, require
from leafdb.types import Conflict, Durability, NodeId, TreeId

KEY: Final = b"\0" * 8 + b"key"
"""The one key, with its token."""
EPOCHS_BLOCK: Final = 1
"""So small that leases run out."""
START_MS: Final = 1_700_000_000_000
ADOPTED: Final = "a fresh epoch on the replica path"
CHANGED: Final = "a hint changed while it was handed over"
NO_LEASE: Final = "a lease ran out"
OLD_SELF: Final = "a new incarnation met its old dots"
PASSED_OVER: Final = "an epoch below the floor was passed over"

_EPOCHS: Final = struct.Struct(">QQ")
_STAMPS: Final = struct.Struct(">Q")

Place = tuple[TreeId, bytes]


class SmallLeases(Leases):
    """Leases in blocks of a few numbers, renewed with every mint; like the real ones durable before they are used."""

    def __init__(self, store: ForgetfulStore, now_ms: Callable[[], int], *, clean: bool) -> None:
        epochs, stamps = store.value(META_TREE, EPOCH_KEY), store.value(META_TREE, STAMP_KEY)
        super().__init__(cast(Engine, store), META_TREE, now_ms, epochs=epochs, stamps=stamps, clean=clean)
        self._store = store
        self._small_asked = 0

    def renew(self, done: Callable[[StorageError | None], None] | None = None) -> None:
        """Ask for the next block only when this one is used up: now and then somebody comes too early."""
        epochs = self.epochs
        if epochs.ceiling == epochs.next_epoch and self._small_asked <= epochs.ceiling:
            self._small_asked = wanted = epochs.ceiling + EPOCHS_BLOCK
            value = _EPOCHS.pack(wanted, epochs.floor)
            self._store.write(
                ((META_TREE, EPOCH_KEY, value),), Durability.ALWAYS, lambda error: self.epochs.grant(wanted)
            )
        stamps = self.clock.lease_wanted(self._now_ms())
        if stamps is not None and stamps > self._stamps_asked:
            self._stamps_asked = stamps
            value = _STAMPS.pack(stamps)
            self._store.write(
                ((META_TREE, STAMP_KEY, value),), Durability.ALWAYS, lambda error: self.clock.grant(stamps)
            )
        if done is not None:
            done(None)


class WatchedPut(Minting, Protocol):
    """A put that knows which writes its writer had seen, and is told its number."""

    past: int
    number: int


class Oblivious(OpMemory):
    """Remembers nothing: what this tier judges is dots, and an operation sent twice may have two."""

    def note(self, tree: TreeId, storage_key: bytes, replaced: Sequence[Named]) -> None:
        """Forget it at once."""


class WatchedReplica(Replica):
    """Tells the oracle what it makes of what."""

    def __init__(self, store: ForgetfulStore, leases: SmallLeases, oracle: Oracle, trace: Trace) -> None:
        super().__init__(cast(Engine, store), leases, PlainRecords(store), Oblivious())
        self._was_replaced = None
        self._oracle = oracle
        self._small_leases = leases
        self._trace = trace

    def next_record(self, operation: Minting, local: bytes | None) -> PutResult:
        """As ever; the operation learns the number of its write."""
        put = cast(WatchedPut, operation)
        floor = self._small_leases.epochs.floor
        result = super().next_record(operation, local)
        if floor > 1 and local is not None and epoch_of(result.dot[0]) >= floor:
            assert self._identity is not None
            own = [actor for actor in clock_of(local).vector if actor.startswith(self._identity.prefix)]
            self._trace.probe(PASSED_OVER, bool(own) and epoch_of(max(own)) < floor)
        if result.data is local:
            put.number = self._oracle.number_of(result.dot)
        else:
            put.number = self._oracle.minted(local, put.past, result.data, result.dot)
        self._small_leases.renew()
        return result

    def accepted(self, local: bytes | None, incoming: bytes, conflict: Conflict, tree: TreeId, key: bytes) -> bytes:
        """As ever."""
        epochs = self._small_leases.epochs
        before = epochs.next_epoch
        result = super().accepted(local, incoming, conflict, tree, key)
        if epochs.next_epoch != before:
            self._trace.probe(ADOPTED)
            self._small_leases.renew()
        assert self._identity is not None
        if self._identity.incarnation > 1:
            me, prefix = self._identity.node, self._identity.prefix
            vector = clock_of(incoming).vector
            self._trace.probe(OLD_SELF, any(node_of(actor) == me and actor[:8] < prefix for actor in vector))
        self._oracle.merged(local, incoming, result)
        return result


class Node:
    """One node with its store, through all its lives and incarnations."""

    def __init__(
        self,
        heap: Heap,
        number: int,
        bucket: BucketView,
        oracle: Oracle,
        *,
        rng: Random,
        commit_s: float,
        cold: float,
        skew_ms: int,
    ) -> None:
        self.heap = heap
        self.id: NodeId = NodeId(number)
        self.host: Host = Host(heap, f"n{number}")
        self.bucket = bucket
        self.oracle = oracle
        self.store: ForgetfulStore = ForgetfulStore(heap, self.host, rng, commit_s=commit_s, cold=cold)
        self.incarnation: int = 1
        self.skew_ms = skew_ms
        self.held: dict[Place, int] = {}
        """By place, the writes this node has said to be durable there."""
        self.removals: Counter[Place] = Counter()
        """How often what was there was removed, or found unreadable."""
        self.backup: Contents = {}
        self.boot(clean=True)

    def now_ms(self) -> int:
        """Its wall clock."""
        return START_MS + int(self.heap.now * 1000) + self.skew_ms

    # -- lives

    def boot(self, *, clean: bool) -> None:
        """Come up with what the store has; leases are durable before anything is minted."""
        self.leases: SmallLeases = SmallLeases(self.store, self.now_ms, clean=clean)
        self.leases.renew()
        self.store.sync()
        self._check_held()
        self.replica: WatchedReplica = WatchedReplica(self.store, self.leases, self.oracle, self.heap.trace)
        self.replica.identify(ActorIdentity(1, self.id, self.incarnation))
        ledger = Ledger(partitions=1)
        for key, value in self.hint_items():
            ledger.load(key, value)
        self.ledger: Ledger = ledger
        self.hints: HintKeeper = HintKeeper(
            engine=cast(Engine, self.store),
            view=ClusterView(),
            replica=self.replica,
            ledger=ledger,
            metrics=Metrics(),
            now_ms=self.now_ms,
            mark=lambda effect: None,
            kept=lambda target: None,
        )
        self.host.start()

    def stop(self) -> None:
        """A clean shutdown: all is synced."""
        self.store.sync()
        self.host.crash()

    def crash(self, *, power: bool) -> None:
        """Die. A power cut on a periodic store makes it a new incarnation: what it confirmed may be gone."""
        self.host.crash()
        self.store.crash(power=power)
        if power and self.bucket.durability is Durability.PERIODIC:
            self._forgot()

    def wipe(self) -> None:
        """An empty disk."""
        self.host.crash()
        self.store.replace({})
        self._forgot()

    def restore(self) -> None:
        """An old copy of the disk, brought up as the new incarnation that it is."""
        self.host.crash()
        self.store.replace(self.backup)
        self._forgot()

    def quarantine(self, place: Place) -> bool:
        """One unreadable record; the incarnation stays."""
        found = self.store.quarantine(*place)
        if found:
            self.held.pop(place, None)
            self.removals[place] += 1
        if found and place[0] == HINTS_TREE:
            self.ledger = self.hints.ledger = Ledger(partitions=1)
            for key, value in self.hint_items():
                self.ledger.load(key, value)
        return found

    def _check_held(self) -> None:
        """What it has confirmed and had no reason to forget is there."""
        for place, known in self.held.items():
            value = self.store.value(*place)
            record = decode_hint(value).record if value is not None and place[0] == HINTS_TREE else value
            lost = known & ~self.oracle.of(record).known
            what = f"{self.host.name} had confirmed {lost:x}, and has forgotten it"
            require(not lost, Invariant.SURVIVES_STORES, what, "key")

    def _forgot(self) -> None:
        self.incarnation += 1
        self.held.clear()

    # -- what is here

    @property
    def own(self) -> Place:
        """Where a primary keeps the record."""
        return self.bucket.tree, KEY

    def hint_place(self, target: NodeId) -> Place:
        """Where a copy for `target` is kept."""
        return HINTS_TREE, encode_key(target, self.bucket.id, KEY)

    def hint_items(self) -> list[tuple[bytes, bytes]]:
        """All hints, in the order of their keys."""
        return sorted((key, value) for (tree, key), value in self.store.contents().items() if tree == HINTS_TREE)

    def record(self) -> bytes | None:
        """The primary's record, safe or not."""
        return self.store.value(*self.own)

    def hint(self, target: NodeId) -> bytes | None:
        """The record kept for `target`."""
        value = self.store.value(*self.hint_place(target))
        return None if value is None else decode_hint(value).record

    # -- what others ask of it

    def merge(self, record: bytes, durability: Durability, done: Callable[[], None]) -> None:
        """Take a record in; `done` when it is as durable as asked, never when it was refused."""
        self.replica.merge(
            self.bucket.tree,
            KEY,
            record,
            self.bucket.conflict,
            durability,
            partial(self._confirm, self.own, self.oracle.of(record).known, self.removals[self.own], done),
        )

    def keep(self, target: NodeId, record: bytes, done: Callable[[], None]) -> None:
        """Take in a fallback's copy for `target`."""
        place = self.hint_place(target)
        confirm = partial(self._confirm, place, self.oracle.of(record).known, self.removals[place], done)
        self._watch_hint(target, record, lambda: self.hints.keep(target, self.bucket, KEY, record, confirm))

    def owe(self, target: NodeId, record: bytes) -> None:
        """Note that `target` has missed the record."""
        self._watch_hint(target, record, lambda: self.hints.owe(target, self.bucket, KEY, record))

    def read(self, done: Callable[[bytes | None], None]) -> None:
        """The primary's record, once it may be shown."""

        def found(value: bytes | None, error: Exception | None) -> None:
            if error is None:
                done(value)

        self.replica.read(self.bucket.tree, KEY, self.bucket.durability, found)

    def removal(self, target: NodeId, handed: bytes, version: int) -> None:
        """`target` has confirmed the record it was `handed`: remove the hint, unless that is of another version now."""
        place = self.hint_place(target)
        hints = cast(HintedHandoff, _Removed(self, target, handed))
        self.replica.queue.do(*place, Removal(hints, place[1], version))

    def check(self) -> None:
        """What it confirmed is there, and its parts are sound."""
        self.replica.check()
        self.leases.epochs.check()
        self.leases.clock.check()
        self.ledger.check(self.hint_items())

    def must_hold(self) -> int:
        """The writes it has confirmed as durable and had no reason to forget."""
        must = 0
        for known in self.held.values():
            must |= known
        return must

    def _confirm(
        self, place: Place, known: int, removals: int, done: Callable[[], None], error: Exception | None
    ) -> None:
        if isinstance(error, LeaseExhausted):
            self.heap.trace.probe(NO_LEASE)
        if error is None:
            self.hold(place, known, removals)
            done()

    def hold(self, place: Place, known: int, removals: int) -> None:
        """It has confirmed these writes; what was removed meanwhile was handed over before its commit came, or
        became unreadable after it had been read."""
        if removals == self.removals[place]:
            self.held[place] = self.held.get(place, 0) | known

    def _watch_hint(self, target: NodeId, record: bytes, keep: Callable[[], None]) -> None:
        """Hints that were not minted here are merged plainly, past the replica: tell the oracle of that."""
        before = self.hint(target)
        keep()
        after = self.hint(target)
        if after is not None and after != before:
            self.oracle.merged(before, record, after)


class _Removed:
    """What a removal tells of itself, in place of the driver of handoff."""

    def __init__(self, node: Node, target: NodeId, handed: bytes) -> None:
        self._node = node
        self._target = target
        self._handed = handed

    def remove(self, key: bytes, value: bytes | None) -> None:
        """`value` is to be removed; None: it has changed, and stays."""
        node, place = self._node, (HINTS_TREE, key)
        if value is None:
            node.heap.trace.probe(CHANGED, node.store.value(*place) is not None)
            return
        node.store.write(((*place, None),), Durability.PERIODIC)
        node.ledger.removed(key, value)
        node.held.pop(place, None)
        node.removals[place] += 1
        left = node.oracle.of(decode_hint(value).record).known & ~node.oracle.of(self._handed).known
        what = f"{node.host.name} removed a hint with writes {left:x}, which n{self._target} has not confirmed"
        require(not left, Invariant.HINTS_CONSERVED, what, "key")
