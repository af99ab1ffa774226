"""The report of a plan as the answer of `cluster.plan` and `ring.simulate`: one map of plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from leafdb.ring import staging
from leafdb.ring.history import comings_and_goings, phase_text
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.packing import pack_owners
from leafdb.ring.plan_report import Ownership, PlanReport, Spread
from leafdb.ring.plan_safety import Step, ranges_text
from leafdb.ring.ring import Ring
from leafdb.ring.transitions import commit

RATE_ASSUMED_BYTES_PER_S: Final = 16 * 1024 * 1024
"""What one node takes in, as long as nothing was measured: a busy network, or one core of an old machine."""


def plan_answer(metadata: ClusterMetadata, report: PlanReport, bytes_per_s: float = 0.0) -> dict[str, Any]:
    """The whole answer. `bytes_per_s` is what a node was seen to take in; 0: nothing was seen."""
    in_progress = metadata.plan is not None
    plan = report.plan
    under_way = metadata if in_progress else commit(metadata, plan.id)
    rate = bytes_per_s if bytes_per_s > 0 else RATE_ASSUMED_BYTES_PER_S
    return {
        "plan_id": plan.id,
        "in_progress": in_progress,
        "phase": phase_text(plan.phase) if in_progress else "",
        "what": comings_and_goings(plan, under_way),
        "staged": staged_texts(metadata),
        "ownership": [_ownership(each) for each in report.ownership],
        "copies": len(report.copies),
        "copies_least": report.copies_least,
        "copies_ratio": _finite(report.copies_ratio),
        "moved": report.moved,
        "moved_least": report.moved_least,
        "moved_ratio": _finite(report.moved_ratio),
        "bytes_to": [
            {"node": int(node), "name": under_way.members[node].name, "bytes": size}
            for node, size in report.bytes_to.items()
        ],
        "bytes_total": report.bytes_total,
        "seconds_estimated": max(report.bytes_to.values(), default=0) / rate,
        "rate_measured": bytes_per_s > 0,
        "steps": [_step(step) for step in report.steps],
        "spread_before": _spread(report.spread_before),
        "spread_after": _spread(report.spread_after),
        "warnings": [finding.describe() for finding in report.warnings],
        "refusals": [finding.describe() for finding in report.refusals],
        "owners_before": pack_owners(under_way.owners),
        "owners_after": pack_owners(plan.owners),
        "future": Ring(_after(under_way)).describe().splitlines(),
    }


def staged_texts(metadata: ClusterMetadata) -> list[str]:
    """What is staged, for people."""
    return [staging.describe(change, metadata.members) for change in metadata.staged]


def _after(under_way: ClusterMetadata) -> ClusterMetadata:
    """The value with the plan done, as far as a ring looks at it."""
    plan = under_way.plan
    assert plan is not None
    members = {node: member for node, member in under_way.members.items() if node not in plan.going}
    return replace(under_way, members=members, owners=plan.owners, plan=None)


def _ownership(each: Ownership) -> Mapping[str, Any]:
    return {
        "node": int(each.node),
        "name": each.name,
        "host": each.host,
        "zone": each.zone,
        "before": each.before,
        "after": each.after,
        "share_before": each.share_before,
        "share_after": each.share_after,
        "fair_after": each.fair_after,
    }


def _step(step: Step) -> Mapping[str, Any]:
    return {
        "name": step.name.value,
        "n": step.n,
        "least_live": step.least_live,
        "replicas": step.replicas,
        "ranges": ranges_text(step.partitions),
        "ranges_count": len(step.partitions),
    }


def _spread(spread: Spread) -> Mapping[str, Any]:
    return {
        "hosts": spread.hosts,
        "zones": spread.zones,
        "least_hosts": spread.least_hosts,
        "least_zones": spread.least_zones,
    }


def _finite(ratio: float) -> float | None:
    """CBOR here has no infinity: None says that there is no least to compare with."""
    return None if ratio == float("inf") else ratio
