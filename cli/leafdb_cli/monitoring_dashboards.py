"""Three Grafana dashboards as JSON: the cluster at a glance, one node, and how replicas become equal.

A panel is a title, a unit and queries; where it lies follows from its place in the list. Dashboards have fixed uids, so
that one that is provisioned again takes its own place, and variables for the data source, the job and the instances.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from leafdb_cli.monitoring_queries import Metric, help_of

SELECTED: Final = 'job="$job", instance=~"$instance"'
COLUMNS: Final = 24
WIDTH: Final = 8
HEIGHT: Final = 8
SCHEMA: Final = 39
"""Of Grafana 10 and later."""


@dataclass(frozen=True, slots=True)
class Query:
    """One or several lines of a panel."""

    text: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart. `about`: the metric whose help explains it."""

    title: str
    unit: str
    about: str
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page of charts."""

    uid: str
    title: str
    one_node: bool
    rows: Mapping[str, Sequence[Panel]]


def rates(title: str, unit: str, name: str, *by: str, where: str = "") -> Panel:
    """How much of a counter comes in a second."""
    text = _selected(name, where).rate(*by)
    return Panel(title, unit, name, (Query(text, _legend(by)),))


def values(title: str, unit: str, name: str, *by: str) -> Panel:
    """A gauge, added up."""
    return Panel(title, unit, name, (Query(_selected(name).total(*by), _legend(by)),))


def extremes(title: str, unit: str, name: str, *by: str) -> Panel:
    """A gauge, the greatest."""
    return Panel(title, unit, name, (Query(_selected(name).most(*by), _legend(by)),))


def quantiles(title: str, unit: str, histogram: str, *by: str, where: str = "") -> Panel:
    """Median and 99th percentile of a histogram."""
    bucket = _selected(f"{histogram}_bucket", where)
    lines = (Query(bucket.quantile(q, *by), f"p{q * 100:g} {_legend(by)}".strip()) for q in (0.5, 0.99))
    return Panel(title, unit, histogram, tuple(lines))


def _selected(name: str, where: str = "") -> Metric:
    return Metric(name, f"{SELECTED}, {where}" if where else SELECTED)


def _legend(by: Sequence[str]) -> str:
    return " ".join(f"{{{{{label}}}}}" for label in by)


def dashboards() -> list[Dashboard]:
    """All there are."""
    return [_overview(), _node(), _anti_entropy()]


def _overview() -> Dashboard:
    return Dashboard(
        uid="leafdb-overview",
        title="leafdb: overview",
        one_node=False,
        rows={
            "Requests": (
                rates("Requests answered", "ops", "leafdb_requests_total", "op"),
                quantiles("Puts and gets", "s", "leafdb_request_duration_seconds", "op", where='op=~"put|get"'),
                rates("Requests refused", "ops", "leafdb_rejected_total", "reason"),
                rates("Too few replicas", "ops", "leafdb_quorum_shortfalls_total", "op"),
                rates("Unknown outcomes", "ops", "leafdb_outcomes_unknown_total", "instance"),
                quantiles("Siblings of what is read", "short", "leafdb_siblings_per_key"),
            ),
            "Cluster": (
                extremes("Members", "short", "leafdb_members", "instance", "state"),
                extremes("Epoch of the metadata", "short", "leafdb_ring_epoch", "instance"),
                values("Ranges short of replicas", "short", "leafdb_ranges_short", "instance", "op"),
                extremes("Clocks of peers", "s", "leafdb_clock_skew_seconds", "instance", "peer"),
                values("Hints held", "short", "leafdb_hints_pending", "instance", "target"),
                values("Copies of a ring change left", "short", "leafdb_transfer_exchanges_left", "instance"),
            ),
            "Machines": (
                rates("Processor", "percentunit", "leafdb_process_cpu_seconds_total", "instance"),
                values("Disk free", "bytes", "leafdb_disk_free_bytes", "instance"),
                quantiles("Event loop lag", "s", "leafdb_event_loop_lag_seconds", "instance"),
            ),
        },
    )


def _node() -> Dashboard:
    return Dashboard(
        uid="leafdb-node",
        title="leafdb: node",
        one_node=True,
        rows={
            "Requests": (
                rates("Requests answered", "ops", "leafdb_requests_total", "op"),
                quantiles("How long they take", "s", "leafdb_request_duration_seconds", "op"),
                quantiles("How long other replicas take", "s", "leafdb_replica_request_duration_seconds", "op"),
                values("Under way", "short", "leafdb_inflight_requests", "instance"),
                values("Connections", "short", "leafdb_sessions", "kind"),
                rates("Slow requests", "ops", "leafdb_slow_requests_total", "instance"),
            ),
            "Process": (
                quantiles("Event loop lag", "s", "leafdb_event_loop_lag_seconds"),
                quantiles("Pauses of the garbage collector", "s", "leafdb_gc_pause_seconds"),
                values("Memory given out", "bytes", "leafdb_memory_bytes", "use"),
                values("Resident memory", "bytes", "leafdb_process_resident_memory_bytes", "instance"),
                values("Bytes waiting to be sent", "bytes", "leafdb_outbox_bytes", "instance"),
                rates("Log lines left out", "ops", "leafdb_log_lines_left_out_total", "instance"),
            ),
            "Storage": (
                quantiles("Syncs of the log", "s", "leafdb_wal_sync_duration_seconds"),
                values("On disk", "bytes", "leafdb_storage_bytes", "kind"),
                values("Free", "bytes", "leafdb_disk_free_bytes", "instance"),
                rates("Compactions read and wrote", "Bps", "leafdb_compaction_bytes_total", "direction"),
                values("Left to compact", "bytes", "leafdb_compaction_pending_bytes", "instance"),
                extremes("Debt of flushes", "percentunit", "leafdb_write_debt_ratio", "instance"),
                rates("Blocks wanted", "ops", "leafdb_block_cache_total", "result"),
                values("Reads waiting for the disk", "short", "leafdb_storage_reads_pending", "instance"),
                values("Bytes held by snapshots", "bytes", "leafdb_snapshot_bytes", "instance"),
            ),
        },
    )


def _anti_entropy() -> Dashboard:
    return Dashboard(
        uid="leafdb-anti-entropy",
        title="leafdb: anti-entropy",
        one_node=False,
        rows={
            "Hints": (
                values("Held, by whom they are for", "short", "leafdb_hints_pending", "target"),
                extremes("Oldest", "s", "leafdb_hint_oldest_age_seconds", "instance"),
                rates("What becomes of them", "ops", "leafdb_hints_total", "event"),
            ),
            "Comparisons": (
                values("Ranges that wait", "short", "leafdb_repairs_pending", "instance"),
                extremes("Oldest proof that a range is equal", "s", "leafdb_repair_oldest_age_seconds", "instance"),
                values("Ranges over the promised age", "short", "leafdb_repair_ranges_over_age", "instance"),
                rates("Comparisons", "ops", "leafdb_anti_entropy_exchanges_total", "instance"),
                rates("Keys that differed", "ops", "leafdb_anti_entropy_keys_differing_total", "instance"),
                rates("Records sent and received", "ops", "leafdb_anti_entropy_keys_total", "direction"),
                rates("Repairs by reads", "ops", "leafdb_read_repairs_total", "instance"),
                values("Hash trees to be built", "short", "leafdb_hash_trees_unknown", "instance"),
                values("Ranges that may have lost writes", "short", "leafdb_possible_loss_partitions", "instance"),
            ),
            "Forgetting what is deleted": (
                extremes("For how long the oldest waits", "s", "leafdb_purge_lag_seconds", "instance"),
                values("Ranges held up", "short", "leafdb_purge_held_up_partitions", "reason"),
                rates("Proofs", "ops", "leafdb_purge_proofs_total", "event"),
            ),
            "Reading again": (
                extremes("Age of the scrub", "s", "leafdb_scrub_age_seconds", "instance"),
                rates("Bytes read again", "Bps", "leafdb_verified_bytes_total", "instance"),
                values("Damaged tables", "short", "leafdb_damaged_tables", "instance"),
            ),
        },
    )


# -- as Grafana has it


def render(dashboard: Dashboard) -> str:
    """The file for Grafana's provisioning, or its import."""
    return json.dumps(_document(dashboard), indent=1, ensure_ascii=False) + "\n"


def _document(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["leafdb"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": _variables(dashboard)},
        "annotations": {"list": []},
        "panels": _panels(dashboard),
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    build, of_job, several = Metric("leafdb_build_info"), 'job="$job"', not dashboard.one_node
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "job", "label": "Job", "type": "query", "datasource": source, "refresh": 2,
            "query": f"label_values({build}, job)",
        },
        {
            "name": "instance", "label": "Node", "type": "query", "datasource": source, "refresh": 2, "sort": 1,
            "query": f"label_values({Metric(build.name, of_job)}, instance)",
            "multi": several, "includeAll": several, "allValue": ".*" if several else None,
        },
    ]  # fmt: skip


def _panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    top = 0
    for title, panels in dashboard.rows.items():
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        found.append({"id": len(found) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        top += 1
        for number, panel in enumerate(panels):
            place = {
                "x": number * WIDTH % COLUMNS,
                "y": top + number * WIDTH // COLUMNS * HEIGHT,
                "w": WIDTH,
                "h": HEIGHT,
            }
            found.append({"id": len(found) + 1, "gridPos": place, **_chart(panel)})
        top += -(-len(panels) * WIDTH // COLUMNS) * HEIGHT
    return found


def _chart(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": help_of(panel.about),
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": None, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": query.text, "legendFormat": query.legend}
            for number, query in enumerate(panel.queries)
        ],
    }
