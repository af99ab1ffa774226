"""The history of the ring in words: what one version of the metadata changed of another, for `ring history`.

Two versions that follow each other differ in one thing, mostly. A node that was away sees them further apart: then the
sentence is about all that happened between, and says since when. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import Final

from leafdb.ring import staging
from leafdb.ring.metadata import FIRST_EPOCH, ClusterMetadata
from leafdb.ring.plan import Phase, Plan
from leafdb.types import NodeId

WORDS_MAX: Final = 300
"""Characters of one sentence that are kept."""

_PHASES: Final = {
    Phase.WRITE_BOTH_READ_OLD: "write both, read old",
    Phase.WRITE_BOTH_READ_NEW: "write both, read new",
    Phase.RETREAT: "given up, reads go back",
}


def phase_text(phase: Phase) -> str:
    """A phase for people."""
    return _PHASES[phase]


def what_changed(before: ClusterMetadata | None, after: ClusterMetadata) -> str:
    """What `after` changed of `before`, which is None when the node knew nothing."""
    if before is None:
        names = ", ".join(member.name for member in after.members.values())
        said = f"founded with {names}" if after.epoch == FIRST_EPOCH else f"first known here, with {names}"
        return _shortened(said)
    parts = [
        *_about_generation(before, after),
        *_about_plan(before, after),
        *_about_staged(before, after),
        *_about_control(before, after),
        *_about_buckets(before, after),
        *_about_horizons(before, after),
    ]
    if before.feature_level != after.feature_level:
        parts.append(f"feature level {after.feature_level}")
    said = "; ".join(parts) or "nothing that is told here"
    return _shortened(said if after.epoch == before.epoch + 1 else f"since epoch {before.epoch}: {said}")


def worth_telling(before: ClusterMetadata | None, after: ClusterMetadata) -> bool:
    """Whether anything changed but purge horizons: those rise all day."""
    if before is None or after.horizons == before.horizons:
        return True
    return replace(after, epoch=before.epoch, horizons=before.horizons, recent=before.recent) != before


def comings_and_goings(plan: Plan, metadata: ClusterMetadata) -> str:
    """Who comes and who goes by a plan, for people. `metadata` has them all as members."""
    replaced = dict(plan.replaced)
    parts = [f"{_name(new, metadata)} joins" for new in plan.joining if new not in replaced.values()] + [
        f"{_name(new, metadata)} replaces {_name(old, metadata)}" for old, new in plan.replaced
    ]
    parts += [f"{_name(node, metadata)} leaves" for node in plan.leaving]
    parts += [f"{_name(node, metadata)} is removed as dead" for node in plan.removed]
    return ", ".join(parts)


def _about_horizons(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[str]:
    if before.horizons != after.horizons:
        raised = sum(1 for old, new in zip_longest(before.horizons, after.horizons) if old != new and new.stamp)
        yield f"purge horizons of {raised} partitions"


def _about_generation(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[str]:
    if before.generation != after.generation:
        yield f"recovered by hand: generation {after.generation} begins"


def _about_plan(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[str]:
    old, new = before.plan, after.plan
    if old is not None and (new is None or new.epoch != old.epoch):
        done = after.owners == old.owners and not (old.going & after.members.keys())
        done = done and set(old.joining) <= after.members.keys()
        yield f"plan {old.id.hex()[:8]} {'done' if done else 'given up'}: {comings_and_goings(old, before)}"
    if new is not None and (old is None or new.epoch != old.epoch):
        yield f"plan {new.id.hex()[:8]} committed: {comings_and_goings(new, after)}"
    elif new is not None and old is not None and new.phase is not old.phase:
        yield f"plan {new.id.hex()[:8]}: {phase_text(new.phase)}"


def _about_staged(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[str]:
    committed = after.plan is not None and before.plan is None
    if before.staged == after.staged or (committed and not after.staged):
        return
    come = [change for change in after.staged if change not in before.staged]
    if come:
        yield "staged: " + ", ".join(staging.describe(change, after.members) for change in come)
    if len(after.staged) < len(before.staged) + len(come):
        yield "what was staged is cleared"


def _about_control(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[str]:
    if after.control_next and after.control_next != before.control_next:
        yield f"the control set is to be {_names(after.control_next, after)}"
    if after.control != before.control:
        yield f"the control set is {_names(after.control, after)}"


def _about_buckets(before: ClusterMetadata, after: ClusterMetadata) -> Iterator[str]:
    for number, bucket in after.buckets.items():
        if number not in before.buckets:
            yield f"bucket {bucket.name} created"
        elif before.buckets[number] != bucket:
            yield f"bucket {bucket.name} changed"
    for number, bucket in before.buckets.items():
        if number not in after.buckets:
            yield f"bucket {bucket.name} dropped"


def _names(nodes: Iterable[NodeId], metadata: ClusterMetadata) -> str:
    return ", ".join(_name(node, metadata) for node in nodes)


def _name(node: NodeId, metadata: ClusterMetadata) -> str:
    member = metadata.members.get(node)
    return f"node-{node}" if member is None else member.name


def _shortened(said: str) -> str:
    return said if len(said) <= WORDS_MAX else said[: WORDS_MAX - 4] + " ..."
