"""Two stores in memory and an exchange between them, driven to its end without a network.

A record is the bytes of a set of small numbers, so merging is a union, and a join like the real one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from leafdb.merkle.effects import Counts, Done, Effect, ExchangeConfig, Failed, Fetch, NeedLeaves, Offer, Send
from leafdb.merkle.exchange import Initiator
from leafdb.merkle.messages import from_wire
from leafdb.merkle.responder import Responder
from leafdb.merkle.tree import Tree, leaf_of, record_digest
from leafdb.types import BucketId, NodeId, PartitionId

INITIATOR, RESPONDER = NodeId(1), NodeId(2)
Store = dict[bytes, bytes]


def union(one: bytes, other: bytes) -> bytes:
    """The merge of two records."""
    return bytes(sorted({*one, *other}))


def tree_of(store: Store) -> Tree:
    """A tree built by a scan of `store`."""
    tree = Tree()
    for key in sorted(store):
        tree.add(key, store[key])
    return tree


class Pair:
    """An exchange between `mine` (the initiator's) and `theirs`."""

    def __init__(self, mine: Store, theirs: Store, config: ExchangeConfig, *, settle: bool = False) -> None:
        self.mine, self.theirs, self.settle = mine, theirs, settle
        self.initiator = Initiator(
            config,
            peer=RESPONDER,
            exchange=7,
            bucket=BucketId(300),
            partition=PartitionId(3),
            tree=tree_of(mine),
        )
        self.responder = Responder(config, peer=INITIATOR, exchange=7, tree=tree_of(theirs), now=0.0)
        self.wire: list[tuple[NodeId, dict[str, Any]]] = []
        self.fetched: list[bytes] = []
        self.offered: list[bytes] = []
        self.scans = 0
        self.ends: dict[NodeId, Done | Failed] = {}

    def run(self) -> tuple[Counts, Counts]:
        """To the end; answers both sides' counts."""
        self.perform(INITIATOR, self.initiator.start(0.0))
        done, other = self.ends[INITIATOR], self.ends[RESPONDER]
        assert isinstance(done, Done), done
        assert isinstance(other, Done), other
        return done.counts, other.counts

    def perform(self, side: NodeId, effects: Iterable[Effect]) -> None:
        """What one side asked for."""
        machine = self.initiator if side == INITIATOR else self.responder
        store = self.mine if side == INITIATOR else self.theirs
        for effect in effects:
            machine.check()
            match effect:
                case Send(to=to, message=message):
                    self.wire.append((to, message.to_wire()))
                    receiver = self.responder if to == RESPONDER else self.initiator
                    answer = receiver.on_message(side, from_wire(message.to_wire()), 0.0)
                    self.perform(to, answer)
                case NeedLeaves(leaves=leaves):
                    self.scans += 1
                    for leaf in leaves:
                        entries = [
                            (key, record_digest(key, store[key])) for key in sorted(store) if leaf_of(key) == leaf
                        ]
                        self.perform(side, machine.on_leaf(leaf, entries, 0.0))
                case Fetch(keys=keys):
                    self.fetch(keys)
                case Offer(keys=keys):
                    self.offered += keys
                    for key in keys:
                        self.theirs[key] = union(self.theirs.get(key, b""), self.mine[key])
                    size = sum(len(self.mine[key]) for key in keys)
                    self.perform(INITIATOR, self.initiator.on_offered(len(keys), size, 0.0))
                case Done() | Failed():
                    assert side not in self.ends, "an exchange ends once"
                    self.ends[side] = effect

    def fetch(self, keys: tuple[bytes, ...]) -> None:
        """Their records, merged into ours."""
        self.fetched += keys
        settled = []
        for key in keys:
            self.mine[key] = union(self.mine.get(key, b""), self.theirs[key])
            if self.settle and self.mine[key] == self.theirs[key]:
                settled.append(key)
        size = sum(len(self.theirs[key]) for key in keys)
        self.perform(INITIATOR, self.initiator.on_fetched(len(keys), size, 0.0, settled=settled))
