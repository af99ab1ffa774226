"""The rules of founding a cluster: who is named, who may take part, with which cluster id it goes on. Pure.

Founding writes epoch 1 on every member named, once. It can stop anywhere and is then run again with the same list. What
makes that safe:

- Epoch 1 follows from (name, member list, cluster id) alone, to the byte.
- The id is drawn for a founding that nobody has begun. The member named last is the keystone: it adopts first, and
  nobody else before it has confirmed. So of two foundings at once one finds the keystone taken, and a founding that
  was begun anywhere can be found at the keystone.
- A member keeps what it is asked to adopt (FOUNDING_KEY) before its store is stamped. So one that was cut off between
  can still prove which founding it belongs to.
- A blank store under the name of a member whom others have met is no founding that was cut off: that member has lost
  its disk. What it minted and promised is forgotten there; it is another store and does not get the number again.

From the last to the first is also the order in which nobody dials a member that would have to refuse: of two nodes the
one with the lower number dials.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from leafdb.codec.fields import as_int, as_list, as_map, bytes_field, int_field
from leafdb.config import parse_address
from leafdb.errors import ConfigError, NotApplied, Reason
from leafdb.limits import METADATA_BYTES_MAX, NODE_ID_MAX, NODES_MAX
from leafdb.node.config_rules import NAME, NAME_RULE
from leafdb.ring.member import WEIGHT_MAX, ProposedMember
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode, found
from leafdb.types import NodeId

FOUNDING_KEY: Final = b"founding/"
"""In the META tree, before a cluster id: the epoch 1 this node was asked to adopt."""
CLUSTER_ID_BYTES: Final = 16

_TEXTS: Final = ("name", "host", "zone", "client", "peer", "http")
_PROBE_ID: Final = bytes(CLUSTER_ID_BYTES)


def refused(message: str) -> NotApplied:
    """A founding that cannot be, and what to do about it."""
    return NotApplied(message, reason=Reason.BAD_REQUEST)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a member answers to "cluster.prepare": where it stands towards any founding."""

    cluster_id: bytes
    """Of the cluster its store is stamped for; empty: of none."""
    node: int
    metadata: bytes
    """In force here, or kept from a founding that was cut off; empty when there is neither."""
    in_force: bool
    met: frozenset[int] = frozenset()
    """The numbers of the members it has ever had a session with."""

    def to_wire(self) -> dict[str, Any]:
        """As an answer."""
        return {
            "cluster_id": self.cluster_id,
            "node": self.node,
            "metadata": self.metadata,
            "in_force": self.in_force,
            "met": sorted(self.met),
        }

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any]) -> Standing:
        """Of an answer. ValueError."""
        return cls(
            bytes_field(answer, "cluster_id", high=CLUSTER_ID_BYTES),
            int_field(answer, "node", high=NODE_ID_MAX),
            bytes_field(answer, "metadata", high=METADATA_BYTES_MAX),
            bool(answer.get("in_force")),
            frozenset(as_int(number, "met") for number in as_list(answer.get("met", []), "met", items_max=NODES_MAX)),
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster to be: its name and its members in the order of their numbers."""

    name: str
    members: tuple[ProposedMember, ...]

    def epoch_one(self, cluster_id: bytes) -> ClusterMetadata:
        """The metadata every member adopts."""
        return found(self.name, cluster_id, self.members)

    def id_begun(self, standings: Mapping[str, Standing]) -> bytes | None:
        """The id of this very founding if it was begun; None when nobody is part of any. Raises NotApplied."""
        ids = {name: standing.cluster_id for name, standing in standings.items() if standing.cluster_id}
        strangers = [_stranger(name, standings[name]) for name in ids if not self._is_ours(standings[name])]
        if strangers:
            raise refused(
                "; ".join(strangers) + ". A node belongs to one cluster for good: found this one without it, or stop "
                "it, empty its data directory if nothing in it is wanted, and start it again"
            )
        if len(set(ids.values())) > 1:
            listed = ", ".join(f"{name} to {cluster_id.hex()}" for name, cluster_id in ids.items())
            raise refused(
                f"the members belong to different clusters that were founded from this list ({listed}): stop those "
                "that hold no data, empty their data directories and start them again"
            )
        lost = [name for name in self._lost(standings) if name not in ids]
        if lost:
            raise refused(
                "; ".join(f"{name} is a member already, and its data directory is not here" for name in lost)
                + ". What it has promised is not in another one: start it on its own data directory. A new store is a "
                "new member, with a name of its own"
            )
        return next(iter(ids.values()), None)

    def _lost(self, standings: Mapping[str, Standing]) -> Iterator[str]:
        """Members whom somebody has met."""
        for number, member in enumerate(self.members, 1):
            if any(number in standing.met for standing in standings.values()):
                yield member.name

    def _is_ours(self, standing: Standing) -> bool:
        """Whether it belongs to a cluster that was founded by this plan, whatever epoch that has reached."""
        try:
            theirs = decode(standing.metadata)
        except MetadataError:
            return False
        ours = self.epoch_one(standing.cluster_id)
        return (theirs.cluster_id, theirs.cluster_name, theirs.partitions, theirs.members) == (
            ours.cluster_id,
            ours.cluster_name,
            ours.partitions,
            ours.members,
        )


def read_plan(args: Mapping[str, Any]) -> Plan:
    """The plan in the arguments of "cluster.init". Raises NotApplied with everything that is wrong with it."""
    name = args.get("name")
    try:
        entries = [as_map(entry, "a member") for entry in as_list(args.get("members"), "members", items_max=NODES_MAX)]
        members = tuple(_proposed(entry) for entry in entries)
    except ValueError as error:
        raise refused(f"cluster.init: {error}") from None
    problems = [*_name_problems(name, members), *_address_problems(members)]
    if not problems:
        assert isinstance(name, str)
        try:
            found(name, _PROBE_ID, members)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise refused("this cluster cannot be founded: " + "; ".join(problems))
    assert isinstance(name, str)
    return Plan(name, members)


def member_to_wire(member: ProposedMember) -> dict[str, Any]:
    """A member as the list names it."""
    return {
        "name": member.name,
        "host": member.host,
        "zone": member.zone,
        "weight": member.weight,
        "client": member.client_address,
        "peer": member.peer_address,
        "http": member.http_address,
    }


def check_adoption(metadata: ClusterMetadata, node: int, name: str) -> None:
    """That this is an epoch 1 in which the member called `name` has that number. Raises NotApplied."""
    member = metadata.members.get(NodeId(node))
    if metadata.epoch != 1 or metadata.buckets or member is None:
        raise refused("this is no founding of a cluster")
    if member.name != name:
        raise refused(f"this node is called {name!r}, not {member.name!r}")


def _proposed(entry: Mapping[str, Any]) -> ProposedMember:
    known = (*_TEXTS, "weight")
    odd = sorted(str(field) for field in entry if field not in known)
    if odd:
        raise ValueError(f"a member has {', '.join(known)}, not {', '.join(odd)}")
    for field in _TEXTS:
        if not isinstance(entry.get(field, ""), str):
            raise ValueError(f"{field} of a member is not text")
    for field in ("name", "client", "peer"):
        if not entry.get(field):
            raise ValueError(f"a member without {field}")
    return ProposedMember(
        name=entry["name"],
        host=entry.get("host") or entry["name"],
        zone=entry.get("zone", ""),
        weight=int_field(entry, "weight", high=WEIGHT_MAX) if "weight" in entry else 1,
        client_address=entry["client"],
        peer_address=entry["peer"],
        http_address=entry.get("http", ""),
    )


def _name_problems(name: object, members: tuple[ProposedMember, ...]) -> Iterator[str]:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"{name!r} is no name for a cluster: {NAME_RULE}"
    for repeated in _repeated(member.name for member in members):
        yield f"two members are called {repeated!r}"


def _address_problems(members: tuple[ProposedMember, ...]) -> Iterator[str]:
    used = []
    for member in members:
        for field, address in (
            ("client", member.client_address),
            ("peer", member.peer_address),
            ("http", member.http_address),
        ):
            if not address:
                continue
            used.append(address)
            try:
                parsed = parse_address(address)
            except ValueError as error:
                yield f"{field} of {member.name}: {error}"
                continue
            if not parsed.port or parsed.wildcard:
                yield f"{field} of {member.name}: nobody can reach {address}"
    for repeated in _repeated(used):
        yield f"{repeated} is named twice"


def _repeated(values: Iterator[str] | list[str]) -> list[str]:
    return sorted(value for value, count in Counter(values).items() if count > 1)


def _stranger(name: str, standing: Standing) -> str:
    try:
        theirs = decode(standing.metadata)
    except MetadataError:
        return f"{name} belongs to a cluster already ({standing.cluster_id.hex()})"
    return f"{name} belongs to cluster {theirs.cluster_name!r} of {len(theirs.members)} members already"
