"""Answers about plans as a node gives them, made from real rings, for tests of who reads them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.packing import pack_owners
from leafdb.ring.plan_report import PlanReport, Spread, report
from leafdb.ring.plan_safety import ranges_text
from leafdb.ring.staging import ForceRemove, Join, Leave, StagedChange
from leafdb.types import NodeId
from support.ring_changes import committed, staged

GIB = 1 << 30
PARTITION_BYTES = 10 << 20


def newcomer(name: str, number: int, *, zone: str = "") -> ProposedMember:
    """A member on a host of its own."""
    return ProposedMember(
        name=name,
        host=f"host-{name}",
        zone=zone or f"rack-{1 + number % 2}",
        client_address=f"10.0.0.{number}:7411",
        peer_address=f"10.0.0.{number}:7412",
        http_address=f"10.0.0.{number}:7413",
    )


def cluster_of(*names: str, partitions: int = 256) -> ClusterMetadata:
    """A founded cluster."""
    members = [newcomer(name, number) for number, name in enumerate(names, 1)]
    return found("prod", b"c" * 16, members, partitions=partitions)


def join(name: str, number: int) -> Join:
    """A change that lets a newcomer join."""
    return Join(newcomer(name, number))


def leave(number: int) -> Leave:
    """A change that lets a member leave."""
    return Leave(NodeId(number))


def force_remove(number: int) -> ForceRemove:
    """A change that gives a member up."""
    return ForceRemove(NodeId(number))


def plan_map(
    metadata: ClusterMetadata,
    *changes: StagedChange,
    dead: Collection[int] = (),
    in_progress: bool = False,
) -> dict[str, Any]:
    """The answer to `cluster.plan` when those changes are staged, or committed."""
    ready = committed(metadata, *changes) if in_progress else staged(metadata, *changes)
    live = {node for node in ready.members if node not in dead}
    made = report(ready, live=live, bytes_of=lambda partition, bucket: PARTITION_BYTES)
    return {
        "plan_id": made.plan.id,
        "in_progress": in_progress,
        "phase": "write both, read old" if in_progress else "",
        "staged": [] if in_progress else [f"{type(change).__name__} of somebody" for change in changes],
        "what": "somebody comes or goes",
        **_figures(made),
        "owners_before": pack_owners(ready.owners),
        "owners_after": pack_owners(made.plan.owners),
        "future": ["a line"],
        "seconds_estimated": 170.0,
    }


def _figures(made: PlanReport) -> dict[str, Any]:
    return {
        "ownership": [
            {
                "node": int(row.node), "name": row.name, "host": row.host, "zone": row.zone, "before": row.before,
                "after": row.after, "share_before": row.share_before, "share_after": row.share_after,
                "fair_after": row.fair_after,
            }
            for row in made.ownership
        ],
        "copies": len(made.copies),
        "copies_least": made.copies_least,
        "copies_ratio": made.copies_ratio,
        "moved": made.moved,
        "moved_least": made.moved_least,
        "moved_ratio": made.moved_ratio,
        "bytes_to": [
            {"node": int(node), "name": next(row.name for row in made.ownership if row.node == node), "bytes": size}
            for node, size in made.bytes_to.items()
        ],
        "bytes_total": made.bytes_total,
        "steps": [
            {
                "name": step.name.value, "n": step.n, "least_live": step.least_live, "replicas": step.replicas,
                "ranges": ranges_text(step.partitions),
            }
            for step in made.steps
        ],
        "spread_before": _spread(made.spread_before),
        "spread_after": _spread(made.spread_after),
        "warnings": [finding.describe() for finding in made.warnings],
        "refusals": [finding.describe() for finding in made.refusals],
    }  # fmt: skip


def _spread(spread: Spread) -> dict[str, int]:
    return {
        "hosts": spread.hosts, "zones": spread.zones, "least_hosts": spread.least_hosts,
        "least_zones": spread.least_zones,
    }  # fmt: skip
