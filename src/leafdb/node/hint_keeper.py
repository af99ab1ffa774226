"""The request path's door to hints: keep a copy for somebody who is away, and read what is kept.

A *fallback copy* counts to W: it is synced before it is acknowledged, and refused rather than dropped when there is no
room. A *coordinator hint* is a note to ourselves that a primary missed a write other replicas hold; it never counts,
and when there is no room for it the range is marked for anti-entropy instead. Both are merged per (target, bucket, key)
in the hints tree, under the rules of hints/; replaying them is hinted_handoff's business.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final, NamedTuple

from leafdb.errors import StorageError, StoreFailed
from leafdb.hints.effects import MarkRange
from leafdb.hints.hint import Hint, Kind, decode, decode_key, encode_key, with_record
from leafdb.hints.ledger import Ledger
from leafdb.model.admission import admitted
from leafdb.model.record import RecordError, header, merge
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.left_out import LeftOut, all_but
from leafdb.node.metrics import Metrics
from leafdb.node.minting import Minting
from leafdb.node.replica import REFUSALS, Found, Merged, Replica
from leafdb.node.view import BucketView, ClusterView
from leafdb.storage.engine import Engine
from leafdb.types import Conflict, Durability, NodeId, PartitionId, TreeId

HINTS_TREE: Final = TreeId(3)
NO_ROOM_RETRY_AFTER_S: Final = 5.0


class _Keep(NamedTuple):
    """Merge a record into the hint of one target and key."""

    keeper: HintKeeper
    key: bytes
    kind: Kind
    record: bytes
    conflict: Conflict
    done: Merged

    def run(self, value: bytes | None, sequence: int) -> None:
        try:
            merged, done = self._merged(None if value is None else decode(value))
            if merged is None:
                self.keeper.when_safe(sequence, done)
            else:
                self.keeper.write(self.key, value, self.kind, merged, sequence, done)
        except (*REFUSALS, ValueError) as error:
            self.done(error)

    def _merged(self, hint: Hint | None) -> tuple[bytes | None, Merged]:
        """What is to be kept, and whom to tell. Where there is a horizon, only what a holder would take in."""
        replica, local = self.keeper.replica, None if hint is None else hint.record
        _, bucket, storage_key = decode_key(self.key)
        record: bytes | None = self.record
        out = replica.leaves_out(local, self.record, storage_key)
        done = self.done if not out else partial(all_but, self.done, LeftOut(out))
        if hint is not None and hint.kind is Kind.MINTED:
            # The next put is minted from this copy: what it shows us to have forgotten must be settled now.
            accepted = replica.accepted_above if out else replica.accepted
            return accepted(local, self.record, self.conflict, TreeId(bucket), storage_key), done
        if out:
            record = admitted(local, self.record, replica.horizon_at(storage_key))
        if record is None or local is None:
            header(self.record)  # a record that cannot be read must not get in
            return record or local, done
        return merge(local, record, self.conflict), done

    def refuse(self, error: Exception) -> None:
        self.done(error)


class _Coordinate(NamedTuple):
    """Mint a put on this node as a fallback: its actor, its copy in the hints tree."""

    keeper: HintKeeper
    key: bytes
    operation: Minting

    def run(self, value: bytes | None, sequence: int) -> None:
        operation = self.operation
        if operation.abandoned:
            return
        try:
            local: bytes | None = None
            if value is not None:
                hint = decode(value)
                local = hint.record
                if hint.kind is not Kind.MINTED:
                    # What of ours is in it came from elsewhere, and need not be all.
                    replica, bucket = self.keeper.replica, operation.bucket
                    local = replica.accepted(None, local, bucket.conflict, bucket.tree, operation.storage_key)
            result = self.keeper.replica.next_record(operation, local)
            if result.data is not local:
                self.keeper.write(self.key, value, Kind.MINTED, result.data, sequence, operation.committed)
        except (*REFUSALS, ValueError) as error:
            operation.unminted(error)
            return
        operation.minted(result.data, result.dot)
        if result.data is local:
            self.keeper.when_safe(sequence, operation.committed)

    def refuse(self, error: Exception) -> None:
        self.operation.unminted(error)


class HintKeeper:
    """Hints of this node for all others."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        replica: Replica,
        ledger: Ledger,
        metrics: Metrics,
        now_ms: Callable[[], int],
        mark: Callable[[MarkRange], None],
        kept: Callable[[NodeId], None],
    ) -> None:
        """`mark` makes a range owe its target an exchange; `kept` tells the replay that there is something for a
        node."""
        self.replica = replica
        self.ledger = ledger
        self.closed = False
        """This node goes for good as soon as it keeps nothing: it takes nothing in."""
        self.watch: Callable[[bytes, bytes], None] | None = None
        """Told of the key and the record of each hint that is taken in; None while nobody wants to know."""
        self._engine = engine
        self._view = view
        self._metrics = metrics
        self._now_ms = now_ms
        self._mark = mark
        self._kept = kept

    def owe(self, target: NodeId, bucket: BucketView, storage_key: bytes, record: bytes) -> None:
        """Keep a coordinator hint: `target` missed `record`. It never fails loudly: what cannot be kept is marked."""
        key = encode_key(target, bucket.id, storage_key)
        done = partial(self._owed, key)
        self.replica.queue.do(HINTS_TREE, key, _Keep(self, key, Kind.COORDINATOR, record, bucket.conflict, done))

    def keep(self, target: NodeId, bucket: BucketView, storage_key: bytes, record: bytes, done: Merged) -> None:
        """Keep a fallback copy for `target`; `done` once it is synced, or with the error that kept it out."""
        key = encode_key(target, bucket.id, storage_key)
        self.replica.queue.do(HINTS_TREE, key, _Keep(self, key, Kind.FALLBACK, record, bucket.conflict, done))

    def take_over(
        self, target: NodeId, bucket: BucketView, storage_key: bytes, kind: Kind, record: bytes, done: Merged
    ) -> None:
        """Keep for `target` what was kept for somebody who is gone; `done` as in `keep`."""
        assert kind is not Kind.MINTED, "nothing was minted into this one"
        key = encode_key(target, bucket.id, storage_key)
        self.replica.queue.do(HINTS_TREE, key, _Keep(self, key, kind, record, bucket.conflict, done))

    def coordinate(self, target: NodeId, operation: Minting) -> None:
        """Coordinate a put here although this node is no primary: `target` is the primary it stands for."""
        key = encode_key(target, operation.bucket.id, operation.storage_key)
        self.replica.queue.do(HINTS_TREE, key, _Coordinate(self, key, operation))

    def write(
        self, key: bytes, old: bytes | None, kind: Kind, record: bytes, sequence: int, done: Callable[..., None]
    ) -> None:
        """Replace the hint under `key`. Raises ReplicaOverloaded when there is no room for it, or none is taken."""
        value = with_record(old, kind, self._now_ms(), record)
        if value is old:
            self._engine.when_safe(sequence, Durability.ALWAYS, done)
            return
        if self.closed:
            raise ReplicaOverloaded(NO_ROOM_RETRY_AFTER_S)
        refused = self.ledger.admit(key, old, value)
        if refused is not None:
            self._metrics.hints_overflowed_total += 1
            self._mark(refused)
            raise ReplicaOverloaded(NO_ROOM_RETRY_AFTER_S)
        if self.watch is not None:
            self.watch(key, record)
        self._engine.write(((HINTS_TREE, key, value),), Durability.ALWAYS, done)
        self._metrics.hints_stored_total += 1
        self._kept(NodeId(int.from_bytes(key[:2], "big")))

    def when_safe(self, sequence: int, done: Callable[[StorageError | None], None]) -> None:
        """Call `done` once the hint that was written with this sequence number is synced."""
        self._engine.when_safe(sequence, Durability.ALWAYS, done)

    def _owed(self, key: bytes, error: Exception | None) -> None:
        if error is not None and not isinstance(error, StoreFailed | LeftOut):
            self._mark(self.ledger.mark(key))

    # -- reading as a fallback

    def read_fallback(
        self, bucket: BucketView, partition: PartitionId, storage_key: bytes, horizon: int, done: Found
    ) -> None:
        """The merge of everything kept here for the key's holders, as far as a reader believes it who knows of that
        `horizon`; None when nothing is: never a definitive absence."""
        ring = self._view.ring
        assert ring is not None
        holders = ring.holders(partition, bucket.properties.n)
        _FallbackRead(self, bucket, storage_key, holders, horizon, done).next()

    def show(self, target: NodeId, bucket: BucketView, storage_key: bytes, done: Found) -> None:
        """The record kept for `target`, once it is safe to show."""
        key = encode_key(target, bucket.id, storage_key)
        self.replica.read(HINTS_TREE, key, Durability.ALWAYS, done)

    def fallbacks(self, partition: PartitionId, bucket: BucketView, taken: Collection[NodeId]) -> list[NodeId]:
        """Who may stand in for a holder, nearest first: usable nodes beyond the holders that are not `taken`."""
        ring = self._view.ring
        assert ring is not None
        usable = self._view.usable
        own = self._view.self_id
        return [
            node
            for node in ring.fallbacks(partition, bucket.properties.n)
            if node not in taken and (node in usable or node == own)
        ]


class _FallbackRead:
    """Reads the hints for each holder in turn and merges them."""

    __slots__ = ("_bucket", "_done", "_horizon", "_keeper", "_left", "_merged", "_storage_key")

    def __init__(
        self,
        keeper: HintKeeper,
        bucket: BucketView,
        storage_key: bytes,
        holders: Sequence[NodeId],
        horizon: int,
        done: Found,
    ) -> None:
        self._keeper = keeper
        self._bucket = bucket
        self._storage_key = storage_key
        self._left = list(holders)
        self._horizon = horizon
        self._merged: bytes | None = None
        self._done = done

    def next(self) -> None:
        if not self._left:
            try:
                kept = self._merged
                if kept is not None:
                    below = self._keeper.replica.doubted(self._storage_key, self._horizon, holder=False)
                    kept = admitted(None, kept, below)
            except RecordError as problem:
                self._done(None, problem)
            else:
                self._done(kept, None)
            return
        self._keeper.show(self._left.pop(), self._bucket, self._storage_key, self._shown)

    def _shown(self, value: bytes | None, error: Exception | None) -> None:
        if error is not None:
            self._done(None, error)
            return
        if value is not None:
            try:
                record = decode(value).record
                merged = self._merged
                self._merged = record if merged is None else merge(merged, record, self._bucket.conflict)
            except (RecordError, ValueError) as problem:
                self._done(None, problem)
                return
        self.next()
