"""`cluster recover`: from what the reachable members know to the first value of a new generation. Pure.

What a member believes was chosen, so of the believed values the latest is safe. What an acceptor has accepted may have
been chosen: of all that reachable acceptors hold the one of the highest ballot counts, as in a round of the register,
and it is taken if it is later than what is believed. A change that nobody confirmed may come true by that; one that was
confirmed, and of which a reachable acceptor knows, is not lost.

Everybody who cannot be reached has to be named as lost. That is the fence against doing this on both sides of a cut:
the register cannot help any more, so a person says who is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from leafdb.consensus.desired_control import Candidate, desired_control
from leafdb.errors import NotApplied, Reason
from leafdb.node.register import Standing
from leafdb.node.view import ClusterView
from leafdb.ring.history import what_changed
from leafdb.ring.horizons import highest
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.owner_table import OwnerTable
from leafdb.ring.plan_report import N_WITHOUT_BUCKETS
from leafdb.ring.plan_safety import Finding
from leafdb.ring.recovery import recovered
from leafdb.ring.ring import Ring
from leafdb.types import NodeId, PartitionId


@dataclass(frozen=True, slots=True)
class Recovery:
    """What would be done, and what may be lost by it."""

    base: ClusterMetadata
    made: ClusterMetadata
    losses: tuple[str, ...]


def latest(standings: Mapping[NodeId, Standing]) -> ClusterMetadata:
    """The newest value that anybody believes."""
    return max((standing.metadata for standing in standings.values()), key=lambda metadata: metadata.version)


def recovery_of(standings: Mapping[NodeId, Standing], lost: Collection[NodeId]) -> Recovery:
    """The recovery that these make. Raises NotApplied when somebody is neither reachable nor lost, or is both.

    `standings` has every reachable member of `latest`.
    """
    believed = latest(standings)
    _check_lost(believed, standings.keys(), lost)
    perhaps = _accepted(standings, believed)
    base = believed if perhaps is None else perhaps
    # A store may have forgotten by the horizons of a generation that this one was made without.
    horizons = highest(standing.metadata.horizons for standing in standings.values())
    made = recovered(base, _control(base, standings.keys()), len(set(lost)), horizons)
    losses = (
        *_about_changes(believed, perhaps, lost),
        *_about_ranges(base, standings.keys()),
    )
    return Recovery(base, made, losses)


def _check_lost(metadata: ClusterMetadata, reachable: Collection[NodeId], lost: Collection[NodeId]) -> None:
    def names(nodes: Collection[NodeId]) -> str:
        return ", ".join(metadata.members[node].name for node in sorted(nodes))

    if alive := set(lost) & set(reachable):
        raise NotApplied(f"{names(alive)} can be reached, so it is not lost", reason=Reason.BAD_REQUEST)
    if missing := metadata.members.keys() - set(reachable) - set(lost):
        raise NotApplied(
            f"{names(missing)} cannot be reached and is not named as lost: what only it knows would be lost. Bring it "
            "back, or name it too if it is gone for good",
            reason=Reason.BAD_REQUEST,
        )


def _accepted(standings: Mapping[NodeId, Standing], believed: ClusterMetadata) -> ClusterMetadata | None:
    """What the acceptor with the highest ballot holds, when that is later than what is believed."""
    held = [
        (standing.ballot, standing.accepted)
        for standing in standings.values()
        if standing.ballot is not None
        and standing.accepted is not None
        and standing.accepted.generation == believed.generation
    ]
    if not held:
        return None
    _, value = max(held, key=lambda pair: pair[0])
    return value if value.version > believed.version else None


def _control(base: ClusterMetadata, reachable: Collection[NodeId]) -> tuple[NodeId, ...]:
    """Of the reachable members, those that ought to keep the register; who goes by a plan only if nobody stays."""
    plan = base.plan
    coming = frozenset[NodeId]() if plan is None else frozenset(plan.joining)
    going = frozenset[NodeId]() if plan is None else plan.going
    fit = [node for node in sorted(reachable) if node in base.members and node not in coming]
    staying = [node for node in fit if node not in going] or fit
    if not staying:
        raise NotApplied("nobody who can be reached can keep the register", reason=Reason.CONTROL_SET)
    candidates = [
        Candidate(node, base.members[node].host, base.members[node].zone, base.members[node].weight) for node in staying
    ]
    return desired_control(candidates, [node for node in base.control if node in staying])


def _about_changes(
    believed: ClusterMetadata, perhaps: ClusterMetadata | None, lost: Collection[NodeId]
) -> Iterator[str]:
    base = believed if perhaps is None else perhaps
    keepers = sorted({*base.control, *base.control_next} & set(lost))
    if keepers:
        names = ", ".join(base.members[node].name for node in keepers)
        yield (
            f"changes of buckets and of the ring after epoch {base.epoch}, if there were any, are lost: only {names} "
            "can have known of them"
        )
    if perhaps is not None:
        yield f"a change that may never have been confirmed comes true: {what_changed(believed, perhaps)}"


def _about_ranges(base: ClusterMetadata, reachable: Collection[NodeId]) -> Iterator[str]:
    table = OwnerTable(base.owners, base.places())
    for n in sorted({bucket.n for bucket in base.buckets.values()} or {N_WITHOUT_BUCKETS}):
        gone, few = [], []
        for partition, owners in enumerate(table.lists_of(n)):
            there = sum(owner in reachable for owner in owners)
            if not there:
                gone.append(PartitionId(partition))
            elif there < len(owners) // 2 + 1:
                few.append(PartitionId(partition))
        if gone:
            yield Finding(f"n = {n}: no owner can be reached, what they hold is lost", tuple(gone)).describe()
        if few:
            what = f"n = {n}: no majority of the owners can be reached, acknowledged writes may be lost"
            yield Finding(what, tuple(few)).describe()


def unvouched(view: ClusterView, following: ClusterMetadata) -> list[PartitionId]:
    """Of metadata of another generation that are about to be believed: the partitions this node is to hold by them
    without holding everything of them now.

    The value a cluster is recovered with may be older than what this node knows, if it was away then. It may have given
    ranges away since, and dropped them; it holds them by right again, and must not say what is absent from them.
    """
    before, after, own = view.ring, Ring(following), view.self_id
    assert before is not None, "there is no other generation before the first"
    counts = {bucket.n for bucket in following.buckets.values()}
    return [
        partition
        for partition in map(PartitionId, range(after.partitions))
        if any(
            after.is_primary(own, partition, n)
            and (own not in before.holders(partition, n) or own in before.copying(partition, n))
            for n in counts
        )
    ]
