"""The rules of joining: what a blank store says of itself, and whom it becomes. Pure.

An operator starts a node with the cluster's secret and a name of its own; it waits, blank. It is staged by its
address, and a plan that is committed gives it a number and names its store. From then on it is a member that must be
told so: `cluster.admit` brings it the metadata. What makes that safe:

- Only a plan in progress admits, under its own id, and only while copies are being made. A store that has none of them
  yet is too late once reads go by the new table, and has no business in a plan that is being given up.
- The plan names the store. A wiped disk at the same address is another store, and is refused.
- A store belongs to one cluster under one number for good: what it minted and promised is bound to them. So only a
  blank one is taken, or the one that this number was given to already, for whom the call changes nothing but may bring
  news.
- What a store was asked to be is kept before it is stamped (`becoming`), and its next start goes on with that by
  itself. If the plan was given up meanwhile, the others refuse it, and it is blank again (`expulsion`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from leafdb.codec import cbor
from leafdb.codec.fields import as_map, bytes_field, int_field
from leafdb.config import Address, Config
from leafdb.errors import NotApplied, Reason
from leafdb.limits import METADATA_BYTES_MAX, NODE_ID_MAX
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.ring.plan import Phase, Plan
from leafdb.storage.identity import Identity
from leafdb.types import NodeId

JOINING_KEY: Final = b"joining"
"""In the META tree: the invitation this node has accepted."""


def refused(message: str) -> NotApplied:
    """A join that cannot be, and what to do about it."""
    return NotApplied(message, reason=Reason.BAD_REQUEST)


@dataclass(frozen=True, slots=True)
class Invitation:
    """Who a store is to be, and in what."""

    metadata: ClusterMetadata
    node: NodeId

    def encode(self) -> bytes:
        """As it is kept."""
        return cbor.dumps({"metadata": self.metadata.encode(), "node": int(self.node)})

    @staticmethod
    def decode(kept: bytes) -> Invitation:
        """Of what was kept. ValueError."""
        return Invitation.of(as_map(cbor.loads(kept), "an invitation"))

    @staticmethod
    def of(fields: Any) -> Invitation:
        """In the arguments of "cluster.admit". ValueError."""
        encoded = bytes_field(fields, "metadata", high=METADATA_BYTES_MAX)
        return Invitation(decode(encoded), NodeId(int_field(fields, "node", low=1, high=NODE_ID_MAX)))

    def is_of(self, identity: Identity) -> bool:
        """Whether a start of this store may go on with it: it is blank, or stamped accordingly."""
        stamped = (identity.cluster_id, identity.node_id)
        return stamped in ((b"", 0), (self.metadata.cluster_id, int(self.node)))


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A node as it is found by an invitation."""

    name: str
    cluster: str
    """As its configuration has it; empty: any."""
    identity: Identity
    metadata: ClusterMetadata | None
    """In force."""

    @property
    def blank(self) -> bool:
        """It belongs to no cluster."""
        return self.metadata is None and not self.identity.cluster_id

    def check(self, invitation: Invitation, plan_id: bytes) -> None:
        """That it may accept. Raises NotApplied."""
        metadata, node = invitation.metadata, invitation.node
        member = metadata.members.get(node)
        if member is None:
            raise refused(f"node {node} is no member in the metadata that came with its admission")
        if member.name != self.name:
            raise refused(f"this node is called {self.name!r}, not {member.name!r}")
        if self.cluster not in ("", metadata.cluster_name):
            raise refused(f"its configuration says cluster.name = {self.cluster!r}")
        if not self.blank:
            self._check_stamp(metadata, node)
        if self.metadata is None:
            _check_plan(metadata.plan, plan_id, node, self.identity.store_id)

    def _check_stamp(self, metadata: ClusterMetadata, node: NodeId) -> None:
        ours = self.identity
        if ours.cluster_id != metadata.cluster_id:
            known = ours.cluster_id.hex() if self.metadata is None else repr(self.metadata.cluster_name)
            raise refused(
                f"its store belongs to another cluster already ({known}), and does for good: stop it, empty its data "
                "directory if nothing in it is wanted, start it and stage it again"
            )
        if ours.node_id != node:
            raise refused(
                f"its store is that of node {ours.node_id} of this cluster, and is for good: stop it, empty its data "
                "directory, start it and stage it again"
            )


def _check_plan(plan: Plan | None, plan_id: bytes, node: NodeId, store_id: bytes) -> None:
    """That the plan lets this blank store in. Raises NotApplied."""
    if plan is None or plan.id != plan_id or node not in plan.joining:
        raise refused(f"no plan {plan_id.hex()} is in progress in which node {node} joins")
    if plan.phase is not Phase.WRITE_BOTH_READ_OLD:
        raise refused(f"it is too late to join, and this store is blank: {plan.describe()}")
    wanted = plan.store_of(node)
    if wanted and wanted != store_id:
        raise refused(
            f"another store was staged under this name ({wanted.hex()}) than lies here ({store_id.hex()}): give it "
            "that data directory back, or abort the plan and stage this one"
        )


def member_of(config: Config) -> ProposedMember:
    """The member that a node of this configuration would be. Raises NotApplied when nobody could reach it."""
    listen = config.listen
    client, peer = (_reachable(listen.advertised(address)) for address in (listen.client, listen.peer))
    http = listen.advertised(listen.http)
    return ProposedMember(
        name=config.node.name,
        host=config.node.host or config.node.name,
        zone=config.node.zone,
        client_address=client,
        peer_address=peer,
        http_address=str(http) if http.port and not http.wildcard else "",
    )


def _reachable(address: Address) -> str:
    if address.wildcard:
        raise refused(f"nobody can reach {address}: set listen.advertise in its configuration")
    if not address.port:
        raise refused(f"nobody can know the port of {address}: set it in its configuration")
    return str(address)
