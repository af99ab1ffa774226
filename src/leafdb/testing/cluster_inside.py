"""What tests ask of running nodes: who holds what, what they hold, what they owe, whether they are sane."""

from __future__ import annotations

from collections.abc import Iterator

from leafdb.config import AuthConfig
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.model.record import describe
from leafdb.node.engine_reads import read_value
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.node import Node
from leafdb.ring.ring import Ring
from leafdb.ring.token import storage_key
from leafdb.testing.network import MemoryNetwork
from leafdb.testing.stores import tree_of
from leafdb.types import Key, NodeId, Token, TreeId


class Inside:
    """The nodes that run, looked into. `MemoryCluster` is one."""

    nodes: dict[NodeId, Node]
    network: MemoryNetwork
    auth: AuthConfig = AuthConfig(mode="off")

    def members(self) -> Iterator[tuple[Node, set[NodeId]]]:
        """The nodes that run and are members by their own metadata, each with the numbers of the others it knows that
        run."""
        running = {node.view.self_id for node in self.nodes.values() if node.view.metadata is not None}
        for node in self.nodes.values():
            if node.view.metadata is not None:
                yield node, running & node.view.metadata.members.keys() - {node.view.self_id}

    def machine_of(self, member: NodeId) -> NodeId:
        """The machine on which the member of this number runs. KeyError when it does not."""
        for machine, node in self.nodes.items():
            if node.view.self_id == member:
                return machine
        raise KeyError(member)

    @property
    def ring(self) -> Ring:
        """The newest ring that anybody believes in."""
        return max((node.view.ring for node in self.nodes.values() if node.view.ring), key=lambda ring: ring.epoch)

    def unsettled(self) -> list[str]:
        """Who still owes what."""
        left = []
        missed = {node.view.self_id: others - node.view.usable for node, others in self.members()}
        for number, node in self.nodes.items():
            owed = {
                "hints": sum(summary.records for summary in node.hints.ledger.summaries()),
                "exchanges": node.anti_entropy.pending,
                "leftover ranges": node.estate.leftovers.ranges,
                "looks for what is left over": not node.estate.quiet,
                "incomplete": len(node.completeness.incomplete),
                "ranges not vouched for": node.anti_entropy.standings.wholeness.unvouched().bit_count(),
                "operations": len(node.coordinator.operations),
                "unreachable": len(missed.get(node.view.self_id, ())),
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
            node.purge.check()
            await _check_hints(node)

    def walk(self, bucket: BucketProperties, key: Key) -> tuple[NodeId, ...]:
        """Who holds the key by right, and then who stands in for them."""
        ring = self.ring
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
        trees = {node.view.self_id: await tree_of(node, TreeId(bucket.id)) for node, _ in self.members()}
        ring = self.ring
        for key in sorted(set().union(*trees.values())):
            owners = ring.primaries(ring.partition_of(Token(int.from_bytes(key[:8], "big"))), bucket.n)
            held = {number: tree.get(key) for number, tree in trees.items()}
            lines = [f"n{number}: {describe(data) if data else None}" for number, data in held.items()]
            story = "\n".join([f"{key!r} of {owners}", *lines])
            assert len({held[owner] for owner in owners}) == 1, story
            assert all(held[number] is None for number in held if number not in owners), story


async def _check_hints(node: Node) -> None:
    """The ledger says what the tree does, at a moment at which neither changes."""
    while True:
        counted = node.metrics.hints_stored_total, node.hints.ledger.summaries()
        tree = await tree_of(node, HINTS_TREE)
        if counted == (node.metrics.hints_stored_total, node.hints.ledger.summaries()):
            node.hints.ledger.check(tree.items())
            return
