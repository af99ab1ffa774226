"""What must be true of one version of the metadata and the next, and of a ring at rest: judged without the code that
makes them (I18, I20, I22). Pure; each answers what is wrong, in sentences with their numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase, Plan
from leafdb.ring.ring import Ring
from leafdb.testing.violation import Invariant
from leafdb.types import NodeId, PartitionId

Problem = tuple[Invariant, str]

ALLOWED: Final[set[tuple[Phase | None, Phase | None]]] = {
    (None, Phase.WRITE_BOTH_READ_OLD),
    (Phase.WRITE_BOTH_READ_OLD, Phase.WRITE_BOTH_READ_NEW),
    (Phase.WRITE_BOTH_READ_OLD, None),
    (Phase.WRITE_BOTH_READ_NEW, None),
    (Phase.WRITE_BOTH_READ_NEW, Phase.RETREAT),
    (Phase.RETREAT, None),
}
"""What a plan may do in one epoch, besides nothing."""


def phase_of(metadata: ClusterMetadata) -> Phase | None:
    """How far the plan is; None without one."""
    return None if metadata.plan is None else metadata.plan.phase


def may_be_gone(metadata: ClusterMetadata, node: NodeId) -> bool:
    """Whether a node may say, while these are the newest anybody has written down, that it was sent away for good: it
    was, or it is by the next step of the plan, which whoever had a part in that round knows before everybody."""
    plan = metadata.plan
    if plan is None or node in metadata.bans:
        return node in metadata.bans
    return node in (plan.going if plan.phase is Phase.WRITE_BOTH_READ_NEW else plan.joining)


def step_problems(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[Problem]:
    """What is wrong with `after` as the version that follows on `before`, of one generation."""
    assert (before.generation, before.epoch + 1) == (after.generation, after.epoch)
    what = f"epoch {after.epoch}"
    if not set(before.bans) <= set(after.bans) or set(after.bans) & set(after.members):
        yield Invariant.BANS_FINAL, f"{what} takes back a ban: {before.bans}, then {after.bans}"
    if reused := [node for node in after.members.keys() - before.members.keys() if node < before.next_node_id]:
        yield Invariant.BANS_FINAL, f"{what} gives numbers a second time: {reused}"
    for partition, (was, now) in enumerate(zip(before.range_epochs, after.range_epochs, strict=True)):
        if now != was and now != after.epoch:
            yield Invariant.ONE_HISTORY, f"{what} sets the range epoch of partition {partition} from {was} to {now}"
    yield from _control(before, after, what)
    yield from _plan(before, after, what)


def _control(before: ClusterMetadata, after: ClusterMetadata, what: str) -> Iterator[Problem]:
    began = after.control == before.control
    ended = after.control == before.control_next and not after.control_next
    if not began and not ended:
        text = f"{what} changes the control set in one step: {before.control}, then {after.control}"
        yield Invariant.ONE_HISTORY, text
    if missing := set(after.control) - set(after.members):
        yield Invariant.ONE_HISTORY, f"{what} has a control set with members that are none: {sorted(missing)}"


def _plan(before: ClusterMetadata, after: ClusterMetadata, what: str) -> Iterator[Problem]:
    was, now = before.plan, after.plan
    if was is None and now is None:
        if before.owners != after.owners or before.members.keys() != after.members.keys():
            yield Invariant.ONE_HISTORY, f"{what} changes owners or members without a plan"
        return
    if was is not None and now is not None and was.phase is now.phase:
        if was != now or before.members.keys() != after.members.keys() or before.owners != after.owners:
            yield Invariant.ONE_HISTORY, f"{what} changes a plan in progress"
        return
    if (phase_of(before), phase_of(after)) not in ALLOWED:
        yield Invariant.ONE_HISTORY, f"{what} takes a plan from {phase_of(before)} to {phase_of(after)}"
    if was is None:
        assert now is not None
        arrived = after.members.keys() - before.members.keys()
        if before.owners != after.owners or arrived != set(now.joining) or not before.staged or after.staged:
            yield Invariant.ONE_HISTORY, f"{what} commits something else than was staged"
    elif now is None:
        yield from _over(before, after, was, what)
    elif before.owners != after.owners or before.members.keys() != after.members.keys() or was.id != now.id:
        yield Invariant.ONE_HISTORY, f"{what} moves on with another plan"


def _over(before: ClusterMetadata, after: ClusterMetadata, plan: Plan, what: str) -> Iterator[Problem]:
    finished = plan.phase is Phase.WRITE_BOTH_READ_NEW
    gone = plan.going if finished else set(plan.joining)
    owners = plan.owners if finished else before.owners
    how = "finishes" if finished else "gives up"
    if after.owners != owners or after.members.keys() != before.members.keys() - gone:
        yield Invariant.BANS_FINAL, f"{what} {how} a plan, and owners or members are not what they were to be"
    if not gone <= set(after.bans):
        yield Invariant.BANS_FINAL, f"{what} {how} a plan and does not ban {sorted(gone - set(after.bans))}"


def lasting_problems(committed_on: ClusterMetadata, after: ClusterMetadata) -> Iterator[Problem]:
    """What is wrong with `after`, in which a plan was given up that had been committed on `committed_on`."""
    if committed_on.owners != after.owners or committed_on.members.keys() != after.members.keys():
        text = f"epoch {after.epoch} gives up a plan, and the ring is not what it was in epoch {committed_on.epoch}"
        yield Invariant.BANS_FINAL, text


def rest_problems(metadata: ClusterMetadata, n: int) -> Iterator[Problem]:
    """What is wrong with a ring in which no plan is in progress, whose loads were fair at the beginning (I20)."""
    ring = Ring(metadata)
    loads = Counter(metadata.owners)
    weights = {node: member.weight for node, member in metadata.members.items()}
    for node, weight in weights.items():
        fair = metadata.partitions * weight / sum(weights.values())
        if abs(loads[NodeId(node)] - fair) > 1:
            yield Invariant.OWNERSHIP_FAIR, f"n{node} owns {loads[NodeId(node)]} partitions, its share is {fair:.1f}"
    hosts = {metadata.members[node].host for node in loads}
    for partition in map(PartitionId, range(metadata.partitions)):
        owners = ring.primaries(partition, n)
        if len({metadata.members[node].host for node in owners}) < min(n, len(hosts)):
            yield Invariant.OWNERSHIP_FAIR, f"partition {partition} has copies on one host: {owners}"
