"""What metadata say about the acceptors of their register: the one place that knows which fields name them.

A node that is named has a seat: the state of an acceptor in its store, from the moment on at which it believes the
metadata that name it. Without one it has forgotten, and its store has no vote any more, in whatever control set;
FORGOTTEN in place of a state remembers that.
"""

from __future__ import annotations

from typing import Final

from leafdb.codec import cbor
from leafdb.consensus.ballot import AcceptorId
from leafdb.consensus.control_set import ControlSet
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.types import NodeId

FORGOTTEN: Final = cbor.dumps({"format": 0})
"""No acceptor state: reading it fails, as it is meant to."""


def control_of(metadata: ClusterMetadata) -> ControlSet:
    """Whose votes count in rounds that build on this value."""
    return ControlSet.of(
        (AcceptorId(node, incarnation) for node, incarnation in metadata.acceptors()),
        (AcceptorId(node, incarnation) for node, incarnation in metadata.next_acceptors()),
    )


def named(value: bytes) -> ControlSet:
    """The same of an encoded value. Raises MetadataError."""
    return control_of(decode(value))


def has_seat(node: NodeId, metadata: ClusterMetadata) -> bool:
    """Whether the node is an acceptor, or becomes one by the change under way."""
    return any(acceptor.node == node for acceptor in control_of(metadata).everyone)


def acceptor_of(node: NodeId, metadata: ClusterMetadata) -> AcceptorId:
    """The id under which a member votes, or would."""
    return AcceptorId(node, metadata.members[node].incarnation)
