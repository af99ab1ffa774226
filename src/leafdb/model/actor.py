"""Actors: who minted a dot. One actor is one replica's memory of one key, for as long as that memory is sure.

An actor is cluster number, node number, store incarnation and key epoch (docs/formats/actor.md), big-endian, so that
comparing bytes compares the fields in that order. The first three are an *identity*: they change when the store may
have forgotten something as a whole. The epoch changes when the record of one key may have been forgotten. A dot is an
actor and a counter, and no dot may ever name two writes: whoever is unsure what it minted takes a fresh epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import Final, NewType

from leafdb.limits import NODE_ID_MAX
from leafdb.types import NodeId

Actor = NewType("Actor", bytes)

ACTOR_BYTES: Final = 14
IDENTITY_BYTES: Final = 8
EPOCH_MAX: Final = (1 << 48) - 1

_IDENTITY: Final = Struct(">HHI")


@dataclass(frozen=True, slots=True)
class ActorIdentity:
    """What all actors of one store have in common."""

    cluster: int
    node: NodeId
    incarnation: int
    prefix: bytes = field(init=False, repr=False, compare=False)
    """The first 8 bytes of every actor of this store."""

    def __post_init__(self) -> None:
        assert 0 <= self.cluster <= 0xFFFF
        assert 0 <= self.incarnation <= 0xFFFFFFFF
        assert 0 < self.node <= NODE_ID_MAX
        object.__setattr__(self, "prefix", _IDENTITY.pack(self.cluster, self.node, self.incarnation))

    def actor(self, epoch: int) -> Actor:
        """The actor of `epoch`."""
        return Actor(self.prefix + epoch.to_bytes(6, "big"))


def epoch_of(actor: Actor) -> int:
    """The key epoch."""
    return int.from_bytes(actor[IDENTITY_BYTES:], "big")


def node_of(actor: Actor) -> NodeId:
    """The node number."""
    return NodeId(int.from_bytes(actor[2:4], "big"))


def incarnation_of(actor: Actor) -> int:
    """The store incarnation."""
    return int.from_bytes(actor[4:8], "big")


def describe(actor: Actor) -> str:
    """For people: `node.incarnation/epoch`, with the cluster number in front unless it is 0."""
    cluster, node, incarnation = _IDENTITY.unpack_from(actor)
    where = f"{cluster}:{node}" if cluster else f"{node}"
    return f"{where}.{incarnation}/{epoch_of(actor)}"
