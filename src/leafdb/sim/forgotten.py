"""What the judges of a cluster that forgets are told: of each key every sibling that a store was given, and horizons.

Every write of every store passes by here, and so does all metadata that anybody believes in (`ring_watch`). From the
two follows what is gone by right (`testing/forgetting.py`). What is rare, and says that a run has met the dangerous
orders at all, is counted: records that were forgotten, keys that were written again after that, and what came late to
either: a write that a store leaves out, and that is gone by right, would have come back had it been taken.

They are told as well what a store takes along when it is replaced, or salvages a table: what nobody else had been
given.
"""

from __future__ import annotations

from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import decode_key as decode_hint_key
from leafdb.model.clock import CausalClock
from leafdb.model.key import decode_key
from leafdb.model.purge import death_of
from leafdb.model.record import header
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.node import Node
from leafdb.ring.token import split_storage_key
from leafdb.sim.ring_watch import RingWatch
from leafdb.sim.setting import Setting, name_of
from leafdb.sim.stage import Stage
from leafdb.storage.lost_ranges import LostRange
from leafdb.types import NodeId, TreeId

FORGOTTEN = "a record that was forgotten"
RECREATED = "a key that was written again after it was forgotten"
LATE = "a write that came after it was forgotten"
LATE_TO_NEW = "a write that came after it was forgotten, to a key that was written again"


class Forgotten:
    """Of the bucket of one setting, once its ring is watched."""

    def __init__(self, setting: Setting, ring: RingWatch) -> None:
        self._tree = TreeId(setting.bucket.id)
        self._ring = ring
        self._copies = setting.copies
        self._facts = setting.history.facts
        self._forgetting = setting.history.forgetting
        self._latest: dict[bytes, bytes] = {}
        """By storage key: the record that was looked at last; its replicas are told the same."""
        self._counted: dict[bytes, int] = {}
        """By storage key: how many members had forgotten it when that was counted."""
        self._again: set[bytes] = set()
        self._names: dict[bytes, str] = {}
        self._stored: dict[str, bytes] = {}
        self._forgetting.horizon = lambda key: ring.horizon(self._partition(key))
        self._forgetting.heard = lambda key: ring.heard_horizon(self._partition(key))
        self._copies.excuse = self._excused
        self._setting = setting
        setting.cluster.observe_writes(self._written)

    def follow(self, stage: Stage) -> None:
        """From now on what stores leave out is counted."""
        stage.on_start = self._watch
        stage.on_replace = lambda machine: self._destroyed(self._copies.member_on(machine))
        for node in stage.cluster.nodes.values():
            self._watch(node)

    def _watch(self, node: Node) -> None:
        replica, leaves_out = node.replica, node.replica.leaves_out

        def watched(local: bytes | None, incoming: bytes, key: bytes) -> int:
            out = leaves_out(local, incoming, key)
            if out:
                self._left_out(local, incoming, key)
            return out

        replica.leaves_out = watched  # type: ignore[method-assign]
        self._watch_losses(node)

    def _watch_losses(self, node: Node) -> None:
        engine, on_lost = node.engine, node.engine.on_lost

        def lost(ranges: tuple[LostRange, ...]) -> None:
            self._destroyed(node.view.self_id)
            on_lost(ranges)

        engine.on_lost = lost
        if node.metrics.lost_ranges_total:  # while it was starting
            self._destroyed(node.view.self_id)

    def _destroyed(self, member: NodeId | None) -> None:
        """Its store has lost something, of which we do not ask what: anything that nobody else has may be gone."""
        if member is not None:
            for storage_key, had, left in self._copies.held_by(member):
                self._forgetting.destroyed(self._name(storage_key), had, left)

    def _left_out(self, local: bytes | None, incoming: bytes, storage_key: bytes) -> None:
        gone = self._forgetting.gone(self._name(storage_key))
        if any(gone.covers(dot) for dot in header(incoming).heads):
            self._facts[LATE if local is None else LATE_TO_NEW] += 1

    def _partition(self, key: str) -> int:
        stored = self._stored.get(key)
        if stored is None:
            stored = self._stored[key] = self._setting.stored_key(key)
        return self._ring.ring.partition_of(split_storage_key(stored)[0])

    def _excused(self, storage_key: bytes, wanted: CausalClock, has: CausalClock) -> bool:
        name = self._name(storage_key)
        return bool(self._forgetting.gone(name)) and not self._forgetting.missing(name, wanted, has)

    def _name(self, storage_key: bytes) -> str:
        name = self._names.get(storage_key)
        if name is None:
            name = self._names[storage_key] = name_of(decode_key(split_storage_key(storage_key)[1]))
        return name

    def _written(self, machine: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        if tree == self._tree:
            if value is None:
                self._count(key)
            else:
                self._learn(key, value)
        elif tree == HINTS_TREE and value is not None:
            of = decode_hint_key(key)
            if of.bucket == self._setting.bucket.id:
                self._learn(of.storage_key, decode_hint(value).record)

    def _learn(self, storage_key: bytes, record: bytes) -> None:
        if self._latest.get(storage_key) == record:
            return
        self._latest[storage_key] = record
        name = self._name(storage_key)
        for dot, head in header(record).heads.items():
            self._forgetting.stored(name, dot, head.stamp, death_of(head), head.op_id)
        if storage_key in self._counted and storage_key not in self._again:
            self._again.add(storage_key)
            self._facts[RECREATED] += 1

    def _count(self, storage_key: bytes) -> None:
        """A record was dropped: by right, if that is what copies think of it, which hear of it first."""
        forgotten = len(self._copies.forgotten.get(storage_key, ()))
        if forgotten > self._counted.get(storage_key, 0):
            self._counted[storage_key] = forgotten
            self._facts[FORGOTTEN] += 1
            self._again.discard(storage_key)
