"""What failure detectors say to each other (wire number MEMBERSHIP, control lane; one map per message).

Every message carries the sender's `Standing`: its incarnation, which is an alive claim about itself, and the
(epoch, digest) of its cluster metadata, so that whoever is behind finds out within one probe. `claims` is gossip.

    ping     number                  answer with an ack of the same number
    ack      number                  the target lives; from a helper: the target answered me
    ask      number, target          please probe `target` for me
    nack     number                  I live, but the target has not answered me yet
    gossip                           claims alone
    sync     answer                  my whole table; `answer` asks for yours
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from leafdb.codec.fields import as_int, as_list, as_map, bool_field, bytes_field, int_field, list_field, map_field
from leafdb.limits import NODE_ID_MAX, NODES_MAX
from leafdb.membership.member import INCARNATION_MAX, LIVENESS_OF_RANK, LIVENESS_RANKS, Claim
from leafdb.types import Epoch, NodeId

DIGEST_BYTES_MAX: Final = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """What the sender says of itself."""

    incarnation: int
    epoch: Epoch
    digest: bytes
    """Digest of its cluster metadata; empty while it has none (epoch 0)."""


@dataclass(frozen=True, slots=True)
class Message:
    """What all six have in common. `kind` is the name on the wire and never changes its meaning."""

    kind: ClassVar[str] = ""

    standing: Standing
    claims: tuple[Claim, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """The message as a plain map."""
        return {
            "kind": self.kind,
            "incarnation": self.standing.incarnation,
            "epoch": self.standing.epoch,
            "digest": self.standing.digest,
            "claims": [
                [claim.node, LIVENESS_RANKS[claim.liveness], claim.incarnation, claim.accuser] for claim in self.claims
            ],
            **self._own_fields(),
        }

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The message of this class that `value` stands for; ValueError when it is malformed."""
        fields = as_map(value, "message")
        if map_field(fields, "kind") != cls.kind:
            raise ValueError(f"kind is not {cls.kind}")
        return cls(**cls._read_own_fields(fields), standing=_read_standing(fields), claims=_read_claims(fields))

    def _own_fields(self) -> dict[str, Any]:
        return {}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered(Message):
    """A message about one probe; `number` is the prober's."""

    number: int

    def _own_fields(self) -> dict[str, Any]:
        return {"number": self.number}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"number": int_field(fields, "number")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(Numbered):
    """Answer me."""

    kind: ClassVar[str] = "ping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack(Numbered):
    """The target of probe `number` lives."""

    kind: ClassVar[str] = "ack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Nack(Numbered):
    """The target has not answered the helper in time; the helper itself is well."""

    kind: ClassVar[str] = "nack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask(Numbered):
    """Probe `target` for me."""

    kind: ClassVar[str] = "ask"

    target: NodeId

    def _own_fields(self) -> dict[str, Any]:
        return {"number": self.number, "target": self.target}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        target = NodeId(int_field(fields, "target", low=1, high=NODE_ID_MAX))
        return {"number": int_field(fields, "number"), "target": target}


@dataclass(frozen=True, slots=True)
class Gossip(Message):
    """Claims, between probes."""

    kind: ClassVar[str] = "gossip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync(Message):
    """The sender's whole table in `claims`."""

    kind: ClassVar[str] = "sync"

    answer: bool

    def _own_fields(self) -> dict[str, Any]:
        return {"answer": self.answer}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"answer": bool_field(fields, "answer")}


AnyMessage = Ping | Ack | Nack | Ask | Gossip | Sync

_CLASSES: Final[Mapping[str, type[AnyMessage]]] = {each.kind: each for each in (Ping, Ack, Nack, Ask, Gossip, Sync)}


def from_wire(value: object) -> AnyMessage:
    """The message `value` stands for, whichever it is; ValueError when it is malformed."""
    kind = map_field(as_map(value, "message"), "kind")
    found = _CLASSES.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise ValueError("unknown kind of membership message")
    return found.from_wire(value)


def _read_standing(fields: Mapping[str, Any]) -> Standing:
    return Standing(
        incarnation=int_field(fields, "incarnation", high=INCARNATION_MAX),
        epoch=Epoch(int_field(fields, "epoch")),
        digest=bytes_field(fields, "digest", high=DIGEST_BYTES_MAX),
    )


def _read_claims(fields: Mapping[str, Any]) -> tuple[Claim, ...]:
    return tuple(_read_claim(item) for item in list_field(fields, "claims", items_max=NODES_MAX))


def _read_claim(item: object) -> Claim:
    parts = as_list(item, "claim", items_max=4)
    if len(parts) != 4:
        raise ValueError("claim has not four parts")
    return Claim(
        node=NodeId(as_int(parts[0], "claim's node", low=1, high=NODE_ID_MAX)),
        liveness=LIVENESS_OF_RANK[as_int(parts[1], "claim's liveness", high=len(LIVENESS_OF_RANK) - 1)],
        incarnation=as_int(parts[2], "claim's incarnation", high=INCARNATION_MAX),
        accuser=NodeId(as_int(parts[3], "claim's accuser", low=1, high=NODE_ID_MAX)),
    )
