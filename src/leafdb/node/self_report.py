"""What a node says of itself: to peers and clients when they meet, to operators when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leafdb.types import Epoch
from leafdb.wire.hello import PeerFacts, ServerFacts
from leafdb.wire.registry import Lane

if TYPE_CHECKING:
    from leafdb.node.node import Node


def problems(node: Node) -> list[str]:
    """What is wrong with this node, in words an operator can act on."""
    found = [] if node.ready else ["it is not serving"]
    if node.draining:
        found.append("it is draining")
    stats = node.engine.stats()
    if stats.disk_full:
        found.append(f"its disk is full ({stats.disk_free_bytes} bytes free): it takes no writes")
    if stats.damaged_tables:
        found.append(f"{stats.damaged_tables} tables on its disk are damaged; what they lost is brought back by repair")
    if node.memory.full:
        found.append("it has as much in memory as it may hold")
    if node.anti_entropy.possible_losses:
        found.append(
            f"writes may be lost in {node.anti_entropy.possible_losses} partitions: no owner "
            "remembered everything; leafdb repair acknowledge, when that was read"
        )
    if node.anti_entropy.losses.returned:
        found.append(
            f"deleted values may be back in {node.anti_entropy.losses.returned} partitions: no owner could vouch for "
            "what was deleted long ago; leafdb repair acknowledge, when that was read"
        )
    return found + node.tls.problems() + node.anti_entropy.schedule.problems() + node.estate.problems()


def peer_facts(node: Node) -> PeerFacts:
    """For the handshake with another node; the lane is replaced by whoever dials."""
    identity = node.engine.identity
    return PeerFacts(
        cluster_id=identity.cluster_id,
        node=node.view.self_id,
        incarnation=identity.incarnation,
        boot=node.engine.recovery.boot,
        boot_nonce=node.belonging.boot_nonce,
        epoch=Epoch(node.view.epoch),
        lane=Lane.CONTROL,
        store=identity.store_id,
        past=node.belonging.past,
    )


def server_facts(node: Node) -> ServerFacts:
    """For the welcome of a client."""
    metadata = node.view.metadata
    return ServerFacts(
        node=node.view.self_id,
        name=node.config.node.name,
        cluster=metadata.cluster_name if metadata else "",
        cluster_id=metadata.cluster_id if metadata else b"",
        epoch=Epoch(node.view.epoch),
        traces=True,
    )
