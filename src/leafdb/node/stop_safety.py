"""Whether a member may be stopped now: what speaks against it, in words. Pure.

It may, when without it every range it holds keeps enough replicas, of those that are there and complete, for the reads
and writes that its bucket asks for by default; when nothing is on its disk alone; and when the control set keeps its
majority. What is on its way to being well, like hints that go home, is worth waiting for: stopping one node after the
other is how a cluster loses its newest writes one quorum at a time.

Fallbacks are not counted: a write that leans on them is taken, but it was for emergencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leafdb.codec.fields import as_int, bool_field, int_field, list_field
from leafdb.limits import NODE_ID_MAX, NODES_MAX, PARTITIONS_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.quorum.policy import ImpossibleQuorum, TooFewMembers, read_policy, write_policy
from leafdb.ring.ring import Ring
from leafdb.types import NodeId, PartitionId


@dataclass(frozen=True, slots=True)
class StopFacts:
    """What a member says of itself."""

    usable: frozenset[NodeId]
    """The others it sends requests to."""
    incomplete: frozenset[int]
    """Partitions of which it may have forgotten something."""
    hints: Mapping[NodeId, int]
    """What it keeps for others."""
    owed: int
    """Exchanges it owes."""
    draining: bool

    def to_wire(self) -> dict[str, Any]:
        """As an answer."""
        return {
            "usable": sorted(map(int, self.usable)),
            "incomplete": sorted(self.incomplete),
            "hints": [[int(node), records] for node, records in sorted(self.hints.items())],
            "owed": self.owed,
            "draining": self.draining,
        }

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any]) -> StopFacts:
        """Of an answer. ValueError."""
        hints = dict(list_field(answer, "hints", items_max=NODES_MAX))
        incomplete = list_field(answer, "incomplete", items_max=PARTITIONS_MAX)
        return cls(
            frozenset(_node(node) for node in list_field(answer, "usable", items_max=NODES_MAX)),
            frozenset(as_int(partition, "incomplete", high=PARTITIONS_MAX) for partition in incomplete),
            {_node(node): as_int(records, "hints") for node, records in hints.items()},
            int_field(answer, "owed"),
            bool_field(answer, "draining"),
        )


def reasons_against(target: NodeId, ring: Ring, facts: Mapping[NodeId, StopFacts]) -> list[str]:
    """Why `target` should not be stopped now; nothing when it may be. `facts`: of the members that answered."""
    metadata = ring.metadata
    name = {node: member.name for node, member in metadata.members.items()}
    there = {node: said for node, said in facts.items() if node != target}
    found = list(_of_itself(target, name, facts))
    found += _of_control(target, name, there, (metadata.control, metadata.control_next))
    if metadata.plan is not None:
        found.append(f"{metadata.plan.describe()}: copies wait for who is away")
    found += [f"requests of {name[one]} do not reach {name[other]}" for one, other in _severed(there)]
    found += _on_their_way(target, name, there)
    buckets = sorted(metadata.buckets.values(), key=lambda bucket: bucket.name)
    for bucket in buckets:
        found += _of_bucket(target, bucket, ring, name, there)
    return found


def _of_itself(target: NodeId, name: Mapping[NodeId, str], facts: Mapping[NodeId, StopFacts]) -> Iterator[str]:
    said = facts.get(target)
    if said is None:
        yield f"{name[target]} does not answer: what it keeps for others is not known"
        return
    for node, records in sorted(said.hints.items()):
        yield f"{name[target]} keeps {records} hints for {name.get(node, f'node {node}')}, and may be alone with them"


def _of_control(
    target: NodeId, name: Mapping[NodeId, str], there: Collection[NodeId], sets: Sequence[Collection[NodeId]]
) -> Iterator[str]:
    for control in sets:
        left = [node for node in control if node in there]
        if target in control and len(left) * 2 <= len(control):
            members = ", ".join(name[node] for node in control)
            yield f"the control set ({members}) would lose its majority: buckets and ring could not be changed"


def _severed(there: Mapping[NodeId, StopFacts]) -> list[tuple[NodeId, NodeId]]:
    return [(one, other) for one, said in there.items() for other in there if one != other and other not in said.usable]


def _on_their_way(target: NodeId, name: Mapping[NodeId, str], there: Mapping[NodeId, StopFacts]) -> Iterator[str]:
    waiting: Counter[NodeId] = Counter()
    for node, said in there.items():
        if said.owed:
            yield f"{name[node]} has {said.owed} partitions to compare with others"
        if said.draining:
            yield f"{name[node]} is draining: one node after the other"
        for owner, records in said.hints.items():
            if owner != target:
                waiting[owner] += records
    for owner, records in sorted(waiting.items()):
        yield f"{records} hints wait for {name.get(owner, f'node {owner}')}: it lacks newest writes"


def _of_bucket(
    target: NodeId, bucket: BucketProperties, ring: Ring, name: Mapping[NodeId, str], there: Mapping[NodeId, StopFacts]
) -> Iterator[str]:
    counts = {size: _counts(bucket, size) for size in range(1, bucket.n + 1)}
    short_reads = short_writes = held = 0
    missing: dict[NodeId, None] = {}
    for partition in map(PartitionId, range(ring.partitions)):
        if target not in ring.holders(partition, bucket.n):
            continue
        held += 1
        asked = ring.primaries(partition, bucket.n)
        complete = [node for node in asked if node in there and partition not in there[node].incomplete]
        if len(complete) < counts[len(asked)][0]:
            short_reads += 1
            missing.update(dict.fromkeys(node for node in asked if node != target and node not in complete))
        for owners in ring.write_sets(partition, bucket.n):
            present = [node for node in owners if node in there]
            if len(present) < counts[len(owners)][1]:
                short_writes += 1
                missing.update(dict.fromkeys(node for node in owners if node != target and node not in present))
    if not short_reads and not short_writes:
        return
    without = ", ".join([name[target], *(name[node] for node in missing)])
    r, w = counts[min(bucket.n, ring.effective_n(bucket.n))]
    yield (
        f"bucket {bucket.name!r}: without {without}, of {held} ranges held {short_reads} would have too few replicas "
        f"for reads (r={r}) and {short_writes} for writes (w={w})"
    )


def _counts(bucket: BucketProperties, size: int) -> tuple[int, int]:
    """(r, w) that the bucket asks for by default of so many owners; all of them where it asks for more."""
    try:
        return read_policy(bucket, size, r=0, pr=0).r, write_policy(bucket, size, w=0, pw=0, dw=0, sloppy=None).w
    except (ImpossibleQuorum, TooFewMembers):
        return size, size


def _node(value: object) -> NodeId:
    return NodeId(as_int(value, "node", low=1, high=NODE_ID_MAX))
