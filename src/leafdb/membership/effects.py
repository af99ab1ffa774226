"""What the failure detector asks its driver to do."""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.membership.messages import AnyMessage
from leafdb.types import Epoch, Liveness, NodeId


@dataclass(frozen=True, slots=True)
class Send:
    """Put `message` on the control lane to `to`; without a session it is dropped, which counts as no answer."""

    to: NodeId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """`node` is now believed to be `liveness`. For health pages and hedging: suspicion never moves data."""

    node: NodeId
    liveness: Liveness


@dataclass(frozen=True, slots=True)
class PeerEpoch:
    """`node` holds this version of the cluster metadata. Said when it changes, and with each probe while not ours.

    If `epoch` is above our own, fetch from `node`; the same epoch with another digest is a bug or a split history.
    """

    node: NodeId
    epoch: Epoch
    digest: bytes


@dataclass(frozen=True, slots=True)
class Expelled:
    """We were a member and are none any more: stop serving. The machine is silent from here on, but for its acks.

    Said once, by the `set_members` that does not name us; a node that never was a member is not told.
    """


Effect = Send | MemberChanged | PeerEpoch | Expelled
