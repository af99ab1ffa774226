"""What operators ask of the ring, out of the arguments of admin verbs. Pure; ValueError and NotApplied for nonsense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from leafdb.codec.fields import as_bool, as_map, bytes_field, int_field, map_field
from leafdb.errors import NotApplied, Reason
from leafdb.ring.member import WEIGHT_MAX, ProposedMember
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.staging import STORE_ID_BYTES, ForceRemove, Join, Leave, Replace, StagedChange
from leafdb.types import NodeId

Args = Mapping[str, Any]


class Kind(Enum):
    """What shall be staged."""

    JOIN = "join"
    LEAVE = "leave"
    FORCE_REMOVE = "force-remove"
    REPLACE = "replace"

    @property
    def comes(self) -> bool:
        """Whether somebody comes by it."""
        return self in (Kind.JOIN, Kind.REPLACE)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What a node says of itself that would join: the answer to `join.describe`."""

    member: ProposedMember
    store: bytes
    blank: bool
    version: str
    feature_level: int

    @classmethod
    def from_wire(cls, answer: Args) -> Newcomer:
        """Of an answer. ValueError."""
        return cls(
            member=ProposedMember.from_wire(map_field(answer, "member")),
            store=bytes_field(answer, "store", low=STORE_ID_BYTES, high=STORE_ID_BYTES),
            blank=as_bool(map_field(answer, "blank"), "blank"),
            version=str(answer.get("version", "")),
            feature_level=int_field(answer, "feature_level"),
        )

    def check(self, metadata: ClusterMetadata, address: str) -> None:
        """That it can become a member. Raises NotApplied."""
        name = self.member.name
        if not self.blank:
            raise NotApplied(
                f"{name} at {address} is not blank: it has data, or belongs to a cluster. A node joins with an empty "
                "data directory",
                reason=Reason.BAD_REQUEST,
            )
        if self.feature_level < metadata.feature_level:
            raise NotApplied(
                f"{name} runs leafdb {self.version}, which knows feature level {self.feature_level}; the cluster is at "
                f"{metadata.feature_level}: install the newer version there first",
                reason=Reason.UNSUPPORTED,
            )


def text(args: Args, name: str) -> str:
    """A text argument; ValueError otherwise."""
    value = map_field(args, name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not text")
    return value


def member_asked(metadata: ClusterMetadata, asked: object) -> NodeId:
    """A member by name or number. Raises NotApplied when there is none, ValueError for what is neither."""
    if isinstance(asked, str):
        named = metadata.member_named(asked)
        if named is not None:
            return named.id
        number = int(asked) if asked.isascii() and asked.isdigit() else 0
    elif isinstance(asked, int) and not isinstance(asked, bool):
        number = asked
    else:
        raise ValueError("a node is given by its name or its number")
    if NodeId(number) in metadata.members:
        return NodeId(number)
    if NodeId(number) in metadata.bans:
        raise NotApplied(f"node {number} was removed for good", reason=Reason.BANNED)
    raise NotApplied(f"no member is called {asked!r}, or has that number", reason=Reason.NO_SUCH_MEMBER)


def change_asked(
    kind: Kind, args: Args, metadata: ClusterMetadata, newcomer: ProposedMember | None, store: bytes
) -> StagedChange:
    """The change that the arguments of `cluster.stage`, or of one in `ring.simulate`, mean."""
    match kind:
        case Kind.JOIN:
            assert newcomer is not None
            return Join(newcomer, store)
        case Kind.REPLACE:
            assert newcomer is not None
            return Replace(member_asked(metadata, map_field(args, "node")), newcomer, store)
        case Kind.LEAVE:
            return Leave(member_asked(metadata, map_field(args, "node")))
        case Kind.FORCE_REMOVE:
            return ForceRemove(member_asked(metadata, map_field(args, "node")))


def imagined(value: object) -> ProposedMember:
    """A newcomer of `ring.simulate`, who needs no addresses: {name, host, zone, weight}."""
    fields = as_map(value, "a change")
    name = text(fields, "name")
    return ProposedMember(
        name=name,
        host=str(fields.get("host") or name),
        zone=str(fields.get("zone") or ""),
        weight=int_field(fields, "weight", high=WEIGHT_MAX) if "weight" in fields else 1,
        client_address=f"{name}:client",
        peer_address=f"{name}:peer",
    )
