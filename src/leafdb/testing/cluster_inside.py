"""What tests ask of running nodes: who holds what, what they hold, what they owe, whether they are sane."""

from __future__ import annotations

from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.model.record import describe
from leafdb.node.boot import read_value
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.node import Node
from leafdb.ring.token import storage_key
from leafdb.testing.network import MemoryNetwork
from leafdb.testing.stores import tree_of
from leafdb.types import Key, NodeId, Token, TreeId


class Inside:
    """The nodes that run, looked into. `MemoryCluster` is one."""

    nodes: dict[NodeId, Node]
    network: MemoryNetwork

    def unsettled(self) -> list[str]:
        """Who still owes what."""
        left = []
        for number, node in self.nodes.items():
            owed = {
                "hints": sum(summary.records for summary in node.hints.ledger.summaries()),
                "exchanges": node.anti_entropy.pending,
                "leftover ranges": node.estate.leftovers.ranges,
                "looks for what is left over": not node.estate.quiet,
                "incomplete": len(node.completeness.incomplete),
                "operations": len(node.coordinator.operations),
                "unreachable": len(self.nodes) - 1 - len(node.view.usable),
            }
            left += [f"n{number}: {count} {what}" for what, count in owed.items() if count]
        return left

    async def check(self) -> None:
        """Every invariant that a running node can check of itself."""
        self.network.check()
        for node in self.nodes.values():
            node.coordinator.check()
            node.wheel.check()
            node.peers.check()
            node.pump.check()
            node.engine.check()
            node.leases.epochs.check()
            node.leases.clock.check()
            node.anti_entropy.check()
            node.estate.leftovers.check()
            node.hints.ledger.check((await tree_of(node, HINTS_TREE)).items())

    def walk(self, bucket: BucketProperties, key: Key) -> tuple[NodeId, ...]:
        """Who holds the key by right, and then who stands in for them."""
        ring = next(node.view.ring for node in self.nodes.values() if node.view.ring is not None)
        token = int.from_bytes(storage_key(bucket.id, encode_key(key))[:8], "big")
        return ring.walk(ring.partition_of(Token(token)))

    def primaries(self, bucket: BucketProperties, key: Key) -> tuple[NodeId, ...]:
        """Who holds the key by right."""
        return self.walk(bucket, key)[: bucket.n]

    def key_of(self, bucket: BucketProperties, *nodes: NodeId, stem: str = "key") -> str:
        """A key whose primaries begin with these nodes."""
        return next(
            f"{stem}{number}"
            for number in range(10_000)
            if self.primaries(bucket, f"{stem}{number}")[: len(nodes)] == nodes
        )

    async def record(self, node: NodeId, bucket: BucketProperties, key: Key) -> bytes | None:
        """What a node's own replica holds of a key."""
        return await read_value(self.nodes[node].engine, TreeId(bucket.id), storage_key(bucket.id, encode_key(key)))

    async def hints(self, node: NodeId) -> dict[bytes, bytes]:
        """All hints a node keeps."""
        return await tree_of(self.nodes[node], HINTS_TREE)

    async def assert_replicas_equal(self, bucket: BucketProperties) -> None:
        """Every primary of every key holds the same bytes; nobody else holds any."""
        trees = {number: await tree_of(node, TreeId(bucket.id)) for number, node in self.nodes.items()}
        ring = next(node.view.ring for node in self.nodes.values() if node.view.ring is not None)
        for key in sorted(set().union(*trees.values())):
            owners = ring.primaries(ring.partition_of(Token(int.from_bytes(key[:8], "big"))), bucket.n)
            held = {number: tree.get(key) for number, tree in trees.items()}
            lines = [f"n{number}: {describe(data) if data else None}" for number, data in held.items()]
            story = "\n".join([f"{key!r} of {owners}", *lines])
            assert len({held[owner] for owner in owners}) == 1, story
            assert all(held[number] is None for number in held if number not in owners), story
