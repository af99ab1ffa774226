"""What this node believes of its cluster: metadata, ring, buckets, who can be reached. One object, read by all drivers.

The register driver installs metadata, the gossiper and the peers say who is there; everybody else only reads. Lookups
on the request path are attribute and dictionary accesses on values that were computed when something changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from leafdb.errors import NotApplied, NotEnoughReplicas, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.quorum.policy import (
    ImpossibleQuorum,
    JointReadPolicy,
    JointWritePolicy,
    ReadPolicy,
    TooFewMembers,
    WritePolicy,
    joint_read_policy,
    joint_write_policy,
    read_policy,
    write_policy,
)
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.ring import Ring
from leafdb.types import BucketId, Conflict, Durability, Liveness, NodeId, TreeId
from leafdb.wire.requests import FLAG_SLOPPY, FLAG_STRICT


class BucketView:
    """A bucket as the request path needs it, for one version of the metadata."""

    __slots__ = (
        "conflict",
        "durability",
        "effective_n",
        "generation",
        "id",
        "joint_read_policies",
        "joint_write_policies",
        "properties",
        "read_policies",
        "tree",
        "ttl_ms",
        "write_policies",
    )

    def __init__(self, properties: BucketProperties, effective_n: int) -> None:
        self.properties: BucketProperties = properties
        self.id: BucketId = properties.id
        self.tree: TreeId = TreeId(properties.id)
        self.generation: int = properties.generation
        self.effective_n: int = effective_n
        """Copies in a range with one set of owners. In a plan each set has its own: its length."""
        self.conflict: Conflict = properties.conflict
        self.durability: Durability = properties.durability
        self.ttl_ms: int = properties.ttl_ms
        self.write_policies: dict[tuple[int, int, int, int], WritePolicy] = {}
        self.read_policies: dict[tuple[int, int], ReadPolicy] = {}
        self.joint_write_policies: dict[tuple[int, ...], JointWritePolicy] = {}
        self.joint_read_policies: dict[tuple[int, ...], JointReadPolicy] = {}

    def write_policy(self, w: int, pw: int, dw: int, flags: int) -> WritePolicy:
        """The resolved policy of a write. Raises NotApplied or NotEnoughReplicas."""
        asked = (w, pw, dw, flags & (FLAG_SLOPPY | FLAG_STRICT))
        policy = self.write_policies.get(asked)
        if policy is None:
            with _refusals():
                policy = write_policy(self.properties, self.effective_n, w=w, pw=pw, dw=dw, sloppy=_sloppy(flags))
            self.write_policies[asked] = policy
        return policy

    def read_policy(self, r: int, pr: int) -> ReadPolicy:
        """The resolved policy of a read. Raises NotApplied or NotEnoughReplicas."""
        policy = self.read_policies.get((r, pr))
        if policy is None:
            with _refusals():
                policy = read_policy(self.properties, self.effective_n, r=r, pr=pr)
            self.read_policies[(r, pr)] = policy
        return policy

    def joint_write_policy(self, w: int, pw: int, dw: int, flags: int, old_n: int, new_n: int) -> JointWritePolicy:
        """The resolved policy of a write of a range with so many old and new owners. Raises as `write_policy`."""
        asked = (w, pw, dw, flags & (FLAG_SLOPPY | FLAG_STRICT), old_n, new_n)
        policy = self.joint_write_policies.get(asked)
        if policy is None:
            with _refusals():
                policy = joint_write_policy(self.properties, old_n, new_n, w=w, pw=pw, dw=dw, sloppy=_sloppy(flags))
            self.joint_write_policies[asked] = policy
        return policy

    def joint_read_policy(self, r: int, pr: int, asked_n: int, other_n: int) -> JointReadPolicy:
        """The resolved policy of a read that asks so many owners and shows what so many others hold as well.

        Raises as `read_policy`."""
        asked = (r, pr, asked_n, other_n)
        policy = self.joint_read_policies.get(asked)
        if policy is None:
            with _refusals():
                policy = joint_read_policy(self.properties, asked_n, other_n, r=r, pr=pr)
            self.joint_read_policies[asked] = policy
        return policy


def _sloppy(flags: int) -> bool | None:
    """What the request says of stand-ins; None: nothing."""
    return True if flags & FLAG_SLOPPY else False if flags & FLAG_STRICT else None


@contextmanager
def _refusals() -> Iterator[None]:
    """What is wrong with a policy, as the client is told it."""
    try:
        yield
    except ImpossibleQuorum as error:
        raise NotApplied(str(error), reason=Reason.IMPOSSIBLE_QUORUM) from None
    except TooFewMembers as error:
        raise NotEnoughReplicas(str(error), alive=error.alive, required=error.required) from None


class ClusterView:
    """The node's own picture of the cluster. `metadata` is None until it has been founded or joined."""

    def __init__(self) -> None:
        self.self_id: NodeId = NodeId(0)
        self.metadata: ClusterMetadata | None = None
        self.ring: Ring | None = None
        self.epoch: int = 0
        self.buckets: dict[int, BucketView] = {}
        self.usable: set[NodeId] = set()
        """Peers whose requests lane is up and whom the failure detector has not given up."""
        self.draining: set[NodeId] = set()
        """Peers that take no work of clients, nor such as is forwarded to them; as replicas they are what they were."""
        self.liveness: dict[NodeId, Liveness] = {}
        self.first: bool = True
        """While `on_install` runs: whether this is the first metadata the node has ever had in this life."""
        self.on_install: list[Callable[[ClusterMetadata], None]] = []
        self.on_judged: list[Callable[[NodeId, Liveness], None]] = []
        self._connected: set[NodeId] = set()

    def install(self, self_id: NodeId, metadata: ClusterMetadata) -> None:
        """Take a newer version of the metadata; an older one is a bug of the caller."""
        assert self.metadata is None or metadata.version > self.metadata.version
        ring = Ring(metadata)
        self.self_id = self_id
        self.buckets = {
            int(bucket.id): BucketView(bucket, ring.effective_n(bucket.n)) for bucket in metadata.buckets.values()
        }
        self.ring = ring
        self.metadata = metadata
        self.epoch = int(metadata.epoch)
        for callback in self.on_install:
            callback(metadata)
        self.first = False

    def bucket_named(self, name: str) -> BucketView | None:
        """The bucket of that name, if this version of the metadata has one."""
        for bucket in self.buckets.values():
            if bucket.properties.name == name:
                return bucket
        return None

    def name_of(self, node: NodeId) -> str:
        """A node's name for people; its number when it is not a member."""
        member = self.metadata.members.get(node) if self.metadata else None
        return member.name if member else f"node-{node}"

    def connected(self, node: NodeId) -> None:
        """The requests lane to `node` is up."""
        self._connected.add(node)
        self._refresh(node)

    def disconnected(self, node: NodeId) -> None:
        """The requests lane to `node` is down."""
        self._connected.discard(node)
        self._refresh(node)

    def judged(self, node: NodeId, liveness: Liveness) -> None:
        """The failure detector changed its mind about `node`."""
        self.liveness[node] = liveness
        self._refresh(node)
        for callback in self.on_judged:
            callback(node, liveness)

    def not_dead(self) -> frozenset[NodeId]:
        """The members that are not believed dead, this one included."""
        members = self.metadata.members if self.metadata else {}
        return frozenset(node for node in members if self.liveness.get(node) is not Liveness.DEAD)

    def _refresh(self, node: NodeId) -> None:
        if node in self._connected and self.liveness.get(node) is not Liveness.DEAD:
            self.usable.add(node)
        else:
            self.usable.discard(node)

    def readiness(self) -> tuple[bool, Reason | None]:
        """Whether requests can be taken at all, and why not."""
        if self.metadata is None:
            return False, Reason.NOT_READY
        return True, None
