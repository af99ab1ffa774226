"""The one door to local records: read, mint, merge. Client writes, hints, repair and exchanges all end here.

One read-modify-write per key at a time: it runs to its end in one call when the current record is in memory or in the
page cache; otherwise the key enters a bounded pending table and later mutations queue behind it in order.

A put that comes a second time, known by its operation id, mints nothing: it is in the record, or remembered as replaced
(op_memory.py), and what there is goes to everybody as it would have at first.

Where there is a horizon, below which things may have been forgotten, what comes is taken in sibling by sibling, and
what readers are shown depends on whether this store vouches (`Horizons`, docs/decisions/0008).

A version is shown only when it is safe: whatever reveals a version (a read's answer, a merge's acknowledgement even if
the merge changed nothing) is released by the engine once the commit has passed that version's sequence number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from leafdb.errors import StorageError
from leafdb.limits import EPOCH_LEASE, EPOCH_LEASE_RENEW_AT
from leafdb.model.actor import ActorIdentity
from leafdb.model.admission import admitted, left_out
from leafdb.model.clock import Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import LeaseExhausted
from leafdb.model.record import (
    Header,
    Named,
    PutRefused,
    PutResult,
    RecordError,
    accept,
    accept_above,
    clock_of,
    dots_of,
    put,
)
from leafdb.model.record_format import any_below
from leafdb.node.key_queue import KeyQueue, ReplicaOverloaded
from leafdb.node.leases import Leases
from leafdb.node.left_out import Doubted, LeftOut, all_believed, all_but
from leafdb.node.minting import Minting, Records
from leafdb.node.op_memory import OperationForgotten, OpMemory
from leafdb.storage.engine import Engine
from leafdb.storage.wal_format import WalEntry
from leafdb.types import Conflict, Durability, TreeId

Merged = Callable[[Exception | None], None]
Found = Callable[[bytes | None, Exception | None], None]


REFUSALS: Final = (
    PutRefused,
    RecordError,
    LeaseExhausted,
    StorageError,
    ReplicaOverloaded,
    OperationForgotten,
    LeftOut,
)
"""What may come of a mint or a merge without all of it having been written."""


RENEW_AFTER_MINTED: Final = 1_024
"""How often minting looks whether its leases need another block; time looks as well (Leases.run)."""
assert RENEW_AFTER_MINTED < EPOCH_LEASE * (1 - EPOCH_LEASE_RENEW_AT) / 2


class _Put(NamedTuple):
    replica: Replica
    operation: Minting

    def run(self, local: bytes | None, sequence: int) -> None:
        self.replica.mint(self.operation, local, sequence)

    def refuse(self, error: Exception) -> None:
        self.operation.unminted(error)


class _Merge(NamedTuple):
    replica: Replica
    tree: TreeId
    key: bytes
    incoming: bytes
    conflict: Conflict
    durability: Durability
    done: Merged

    def run(self, local: bytes | None, sequence: int) -> None:
        self.replica.merge_into(
            local, sequence, self.tree, self.key, self.incoming, self.conflict, self.durability, self.done
        )

    def refuse(self, error: Exception) -> None:
        self.done(error)


class _Read(NamedTuple):
    replica: Replica
    durability: Durability
    done: Found

    def run(self, local: bytes | None, sequence: int) -> None:
        self.replica.reveal(local, sequence, self.durability, self.done)

    def refuse(self, error: Exception) -> None:
        self.done(None, error)


class Replica:
    """This node's copy of the records it is responsible for."""

    def __init__(
        self,
        engine: Engine,
        leases: Leases,
        trees: Records,
        operations: OpMemory | None = None,
        *,
        horizon_at: Callable[[bytes], int] = lambda key: 0,
        doubted: Doubted = all_believed,
    ) -> None:
        """`horizon_at`: the horizon at a storage key; `doubted`: below what readers believe nothing of it."""
        self.horizon_at = horizon_at
        self.doubted = doubted
        self._engine = engine
        self._trees = trees
        self._leases = leases
        self.operations: OpMemory = OpMemory() if operations is None else operations
        self._was_replaced: Callable[[bytes, Header], bool] | None = self.operations.was_replaced
        self._identity: ActorIdentity | None = None
        self.queue: KeyQueue = KeyQueue(engine)
        self.says_more: Callable[[TreeId, bytes], None] = lambda tree, key: None
        """Told of each record of which this node had nothing, and has now stored more than it was given; and of each
        of which something was covered as it came."""
        self.minted_total: int = 0
        self.merged_total: int = 0
        self.merged_unchanged_total: int = 0
        self.left_out_total: int = 0

    def identify(self, identity: ActorIdentity) -> None:
        """Who mints here. Until the node belongs to a cluster nobody does."""
        self._identity = identity

    @property
    def pending_keys(self) -> int:
        """Keys whose record is being fetched from the disk."""
        return len(self.queue)

    def admit(self) -> None:
        """Raises ReplicaOverloaded or DiskFull when the engine cannot take a write now."""
        wait_s = self._engine.admit()
        if wait_s > 0.0:
            raise ReplicaOverloaded(wait_s)

    # -- minting: the coordinating replica's alone

    def coordinate(self, operation: Minting) -> None:
        """Read the current record, mint the put's dot, write the merge; answers through `operation`."""
        tree = operation.bucket.tree
        try:
            current = self.queue.now(tree, operation.storage_key)
        except StorageError as error:
            operation.unminted(error)
            return
        if current is None:
            self.queue.later(tree, operation.storage_key, _Put(self, operation))
        else:
            self.mint(operation, *current)

    def mint(self, operation: Minting, local: bytes | None, sequence: int) -> None:
        """The second half of `coordinate`, with the current record at hand."""
        if operation.abandoned:
            return
        try:
            result = self.next_record(operation, local)
            if result.data is not local:
                self._trees.write(
                    operation.bucket.tree, operation.storage_key, local, result.data, operation.durability,
                    operation.committed,
                )  # fmt: skip
        except REFUSALS as error:
            operation.unminted(error)
            return
        operation.minted(result.data, result.dot)
        if result.data is local:
            self._engine.when_safe(sequence, operation.durability, operation.committed)

    def next_record(self, operation: Minting, local: bytes | None) -> PutResult:
        """The record that `operation` makes of `local`, the very object `local` if it made that already. Raises one of
        REFUSALS."""
        assert self._identity is not None
        tree, key = operation.bucket.tree, operation.storage_key
        known = self.operations.dot_in(operation.op_id, tree, key)
        if known is not None:
            return self._replaced(operation, local, known)
        replaced: list[Named] = []
        result = put(
            local,
            operation.context,
            identity=self._identity,
            epochs=self._leases.epochs,
            stamp=self._leases.stamp(),
            expires_ms=operation.expires_ms,
            op_id=operation.op_id,
            value=operation.value,
            conflict=operation.bucket.conflict,
            floor=operation.seen,
            replaced=replaced,
        )
        if result.data is local:
            operation.known(dots_of(local, operation.op_id))
            return result
        if replaced:
            self.operations.note(tree, key, replaced)
        self.minted_total += 1
        if not self.minted_total % RENEW_AFTER_MINTED:
            self._leases.renew()
        return result

    def _replaced(self, operation: Minting, local: bytes | None, known: Dot) -> PutResult:
        """A put of an operation that had the dot `known` here and was replaced since."""
        if local is None or not clock_of(local).covers(known):
            raise OperationForgotten(operation.op_id)
        operation.known((known, *dots_of(local, operation.op_id)))
        return PutResult(local, known)

    # -- merging: everybody else's way in

    def merge(
        self, tree: TreeId, key: bytes, incoming: bytes, conflict: Conflict, durability: Durability, done: Merged
    ) -> None:
        """Merge a record into what is here; `done` once the result is as durable as asked, or with the error."""
        try:
            current = self.queue.now(tree, key)
        except StorageError as error:
            done(error)
            return
        if current is None:
            self.queue.later(tree, key, _Merge(self, tree, key, incoming, conflict, durability, done))
        else:
            self.merge_into(current[0], current[1], tree, key, incoming, conflict, durability, done)

    def merge_into(
        self,
        local: bytes | None,
        sequence: int,
        tree: TreeId,
        key: bytes,
        incoming: bytes,
        conflict: Conflict,
        durability: Durability,
        done: Merged,
    ) -> None:
        """The second half of `merge`, with the current record at hand."""
        before = self.additions
        try:
            out = self.leaves_out(local, incoming, key)
            if not out:
                merged: bytes | None = self.accepted(local, incoming, conflict, tree, key)
            else:
                merged = self.accepted_above(local, incoming, conflict, tree, key)
                done = partial(all_but, done, LeftOut(out))
            self.merged_total += 1
            if merged is local:
                self.merged_unchanged_total += 1
                self._engine.when_safe(sequence, durability, done)
            else:
                self._trees.write(tree, key, local, merged, durability, done)
                if (local is None and merged is not incoming) or self.additions != before:
                    self.says_more(tree, key)
        except REFUSALS as error:
            done(error)

    def accepted(self, local: bytes | None, incoming: bytes, conflict: Conflict, tree: TreeId, key: bytes) -> bytes:
        """What is to be stored when `incoming` meets `local`, what is here of a key of the bucket with this tree; the
        very object `local` when nothing is. Raises one of REFUSALS."""
        assert self._identity is not None
        replaced: list[Named] = []
        merged = accept(
            local,
            incoming,
            conflict,
            identity=self._identity,
            epochs=self._leases.epochs,
            replaced=replaced,
            was_replaced=self._was_replaced,
        )
        if replaced:
            self.operations.note(tree, key, replaced)
        return merged

    @property
    def additions(self) -> tuple[int, int]:
        """Another one when a record came to say something that none of those it was made of did: that an operation is
        replaced, or a fresh entry of this store, which has forgotten dots of its own (model/put, `adopt`)."""
        return self.operations.covered_total, self._leases.epochs.next_epoch

    # -- exchanges: what a record becomes there is for `exchanged.py` to say

    @property
    def minter(self) -> tuple[ActorIdentity, EpochLease]:
        """As whom this node mints, and by which epochs."""
        assert self._identity is not None
        return self._identity, self._leases.epochs

    def replace(
        self,
        local: bytes | None,
        sequence: int,
        new: bytes | None,
        tree: TreeId,
        key: bytes,
        durability: Durability,
        done: Merged,
    ) -> None:
        """In the key's turn (`queue.do`), which brought `local`: the record becomes `new`, the very object `local` when
        nothing changes, None when nothing is kept. Raises StorageError."""
        self.merged_total += 1
        if new is local:
            self.merged_unchanged_total += 1
            self._engine.when_safe(sequence, durability, done)
        else:
            self._trees.write(tree, key, local, new, durability, done)

    def leaves_out(self, local: bytes | None, incoming: bytes, key: bytes) -> int:
        """How many siblings of `incoming` are not taken in where `local` is, since they were forgotten by right. Raises
        RecordError."""
        horizon = self.horizon_at(key)
        if not horizon or not any_below(incoming, horizon):
            return 0
        out = len(left_out(local, incoming, horizon))
        self.left_out_total += out
        return out

    def accepted_above(
        self, local: bytes | None, incoming: bytes, conflict: Conflict, tree: TreeId, key: bytes
    ) -> bytes | None:
        """As `accepted`, where something is left out; None: nothing is to be stored. Raises one of REFUSALS."""
        assert self._identity is not None
        replaced: list[Named] = []
        merged = accept_above(
            local,
            incoming,
            conflict,
            identity=self._identity,
            epochs=self._leases.epochs,
            horizon=self.horizon_at(key),
            replaced=replaced,
            was_replaced=self._was_replaced,
        )
        if replaced:
            self.operations.note(tree, key, replaced)
        return merged

    # -- forgetting

    def remove(
        self,
        tree: TreeId,
        key: bytes,
        record: bytes,
        durability: Durability,
        done: Merged | None = None,
        also: Sequence[WalEntry] = (),
    ) -> None:
        """Delete the record of a key, in its turn (`queue.do`): `record` is what the turn brought. `also` goes with it,
        all or nothing. That it may be forgotten is for the caller to know. Raises StorageError."""
        self._trees.write(tree, key, record, None, durability, done, also)

    # -- reading

    def read(self, tree: TreeId, key: bytes, durability: Durability, done: Found) -> None:
        """The current record (None: nothing here), once it may be shown."""
        try:
            current = self.queue.now(tree, key)
        except StorageError as error:
            done(None, error)
            return
        if current is None:
            self.queue.later(tree, key, _Read(self, durability, done))
        elif current[1] <= self._engine.safe_sequence(durability):
            done(current[0], None)
        else:
            self._engine.when_safe(current[1], durability, partial(_shown, done, current[0]))

    def show(self, tree: TreeId, key: bytes, durability: Durability, horizon: int, done: Found) -> None:
        """As `read`, of what a reader is given who knows of that `horizon`: no more than this store vouched for before
        it was read, and does still."""
        self.read(tree, key, durability, partial(self._give, key, horizon, self.doubted(key, horizon), done))

    def _give(
        self, key: bytes, horizon: int, below: int, done: Found, record: bytes | None, error: Exception | None
    ) -> None:
        if record is not None and (below := self.doubted(key, horizon) or below):
            try:
                record = admitted(None, record, below)
            except RecordError as problem:
                record, error = None, problem
        done(record, error)

    def reveal(self, local: bytes | None, sequence: int, durability: Durability, done: Found) -> None:
        """The second half of `read`, with the current record at hand."""
        self._engine.when_safe(sequence, durability, partial(_shown, done, local))

    def check(self) -> None:
        """The pending table is within its bounds."""
        self.queue.check()


def _shown(done: Found, value: bytes | None, error: StorageError | None) -> None:
    if error is not None:
        done(None, error)
    else:
        done(value, None)
