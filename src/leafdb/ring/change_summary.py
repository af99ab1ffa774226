"""The change of the ring that is on its way, in names: what status, lists and the ring tell beside their own.

Pure, of the metadata alone. A change that is only staged is a number here; `cluster plan` tells it.
"""

from __future__ import annotations

from typing import Any

from leafdb.ring.history import phase_text
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Plan
from leafdb.types import NodeId


def change_summary(metadata: ClusterMetadata) -> dict[str, Any]:
    """`change`: the plan in progress, empty without one; how many are `staged`; `bans` by number. For an answer."""
    plan = metadata.plan
    return {
        "change": {} if plan is None else _plan(metadata, plan),
        "staged": len(metadata.staged),
        "bans": [int(node) for node in metadata.bans],
    }


def change_of(metadata: ClusterMetadata, node: NodeId) -> str:
    """What the plan in progress does to a member, in a word or two; empty when nothing."""
    plan = metadata.plan
    if plan is None:
        return ""
    successors = dict(plan.replaced)
    if node in successors:
        return f"replaced by {metadata.members[successors[node]].name}"
    for old, new in plan.replaced:
        if new == node:
            return f"replaces {metadata.members[old].name}"
    if node in plan.joining:
        return "joining"
    if node in plan.leaving:
        return "leaving"
    return "removed" if node in plan.removed else ""


def _plan(metadata: ClusterMetadata, plan: Plan) -> dict[str, Any]:
    def names(nodes: tuple[NodeId, ...]) -> list[str]:
        return [metadata.members[node].name for node in nodes]

    replacements = {new for _, new in plan.replaced}
    return {
        "id": plan.id,
        "phase": phase_text(plan.phase),
        "joining": names(tuple(node for node in plan.joining if node not in replacements)),
        "leaving": names(plan.leaving),
        "removed": names(plan.removed),
        "replaced": [names(pair) for pair in plan.replaced],
    }
