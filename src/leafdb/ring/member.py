"""A member of the cluster as the metadata knows it, and what one looks like before it has a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from leafdb.codec.fields import as_map, int_field
from leafdb.limits import NODE_ID_MAX
from leafdb.types import NodeId

LABEL_BYTES_MAX: Final = 128
ADDRESS_BYTES_MAX: Final = 300
WEIGHT_MAX: Final = 10_000
INCARNATION_MAX: Final = (1 << 32) - 1

_FIELDS: Final = frozenset(("id", "name", "host", "zone", "weight", "client", "peer", "http", "incarnation"))

_NOBODY: Final = NodeId(1)
"""Stands where a number must while a proposal has none; never kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedMember:
    """A node named at founding, or staged to come: everything but its number."""

    name: str
    host: str
    zone: str = ""
    weight: int = 1
    client_address: str
    peer_address: str
    http_address: str = ""
    incarnation: int = 1

    def numbered(self, node: NodeId) -> Member:
        """The member this becomes."""
        return Member(
            id=node,
            name=self.name,
            host=self.host,
            zone=self.zone,
            weight=self.weight,
            client_address=self.client_address,
            peer_address=self.peer_address,
            http_address=self.http_address,
            incarnation=self.incarnation,
        )

    def to_wire(self) -> dict[str, Any]:
        """The map of a member without `id`."""
        wire = self.numbered(_NOBODY).to_wire()
        del wire["id"]
        return wire

    @classmethod
    def from_wire(cls, value: object) -> ProposedMember:
        """The proposal in a decoded map. ValueError when a field is missing, unknown or mistyped."""
        fields = as_map(value, "proposed member")
        if "id" in fields:
            raise ValueError("a proposed member has no number yet")
        return Member.from_wire({**fields, "id": _NOBODY}).proposal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node with its number, which is never given to another."""

    id: NodeId
    name: str
    host: str
    """What it shares the fate of a machine with; copies of one key avoid a shared host."""
    zone: str
    weight: int
    """Its fair share of partitions relative to the others'. One of weight 0 owns nothing and takes part in the rest."""
    client_address: str
    peer_address: str
    http_address: str
    incarnation: int = 1
    """The store it was admitted with: acceptor id = both. A store that forgot has no vote under the same one, and the
    number stays what it is while the member is of the control set."""

    def proposal(self) -> ProposedMember:
        """Everything but the number."""
        return ProposedMember(
            name=self.name,
            host=self.host,
            zone=self.zone,
            weight=self.weight,
            client_address=self.client_address,
            peer_address=self.peer_address,
            http_address=self.http_address,
            incarnation=self.incarnation,
        )

    def check(self) -> list[str]:
        """What is wrong with it."""
        bounds = (
            ("node number", self.id, 1, NODE_ID_MAX),
            ("weight", self.weight, 0, WEIGHT_MAX),
            ("incarnation", self.incarnation, 1, INCARNATION_MAX),
        )
        problems = [
            f"{what} {number} is not {low} to {high}" for what, number, low, high in bounds if not low <= number <= high
        ]
        problems += _label_problems("name", self.name) + _label_problems("host", self.host)
        if self.zone:
            problems += _label_problems("zone", self.zone)
        for what, address in (
            ("client", self.client_address),
            ("peer", self.peer_address),
            ("http", self.http_address),
        ):
            if len(address.encode("utf-8", "replace")) > ADDRESS_BYTES_MAX:
                problems.append(f"{what} address is over {ADDRESS_BYTES_MAX} bytes")
        return [f"member {self.name!r}: {problem}" for problem in problems]

    def to_wire(self) -> dict[str, Any]:
        """Its map in the metadata (docs/formats/metadata.md)."""
        return {
            "id": int(self.id),
            "name": self.name,
            "host": self.host,
            "zone": self.zone,
            "weight": self.weight,
            "client": self.client_address,
            "peer": self.peer_address,
            "http": self.http_address,
            "incarnation": self.incarnation,
        }

    @classmethod
    def from_wire(cls, value: object) -> Member:
        """The member in a decoded map. ValueError when a field is missing, unknown or mistyped."""
        fields = as_map(value, "member")
        if odd := fields.keys() ^ _FIELDS:
            raise ValueError(f"member fields missing or unknown: {sorted(map(str, odd))}")
        texts = {name: fields[name] for name in _FIELDS - {"id", "weight", "incarnation"}}
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("a label or address of a member is not text")
        return cls(
            id=NodeId(int_field(fields, "id", low=1, high=NODE_ID_MAX)),
            name=texts["name"],
            host=texts["host"],
            zone=texts["zone"],
            weight=int_field(fields, "weight", high=WEIGHT_MAX),
            client_address=texts["client"],
            peer_address=texts["peer"],
            http_address=texts["http"],
            incarnation=int_field(fields, "incarnation", high=INCARNATION_MAX),
        )


def _label_problems(what: str, label: str) -> list[str]:
    if not label or not label.isprintable() or label != label.strip():
        return [f"{what} {label!r} is empty, padded or unprintable"]
    # isprintable has refused lone surrogates, so the label has UTF-8 bytes.
    if len(label.encode()) > LABEL_BYTES_MAX:
        return [f"{what} is over {LABEL_BYTES_MAX} bytes"]
    return []
