"""What `leafdb top` shows, from two samples: rates, latencies, and what waits. Pure.

Rates are differences of counters over the time between. A quantile is that of the requests between the two samples: the
difference of two histograms, interpolated within a bucket, as Prometheus does it (histogram_quantile). A node that was
started again in between counts from nothing; it has no rates this once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from leafdb_cli.render import Column, human_bytes

OPERATIONS: Final = ("get", "put")
COUNTED: Final[Mapping[str, tuple[str, ...]]] = {
    "gets_per_s": ("gets_total",),
    "puts_per_s": ("puts_total",),
    "scans_per_s": ("scans_total",),
    "failed_per_s": ("failures_total", "outcomes_unknown_total", "deadlines_exceeded_total"),
    "received_bytes_per_s": ("received_bytes_total",),
    "sent_bytes_per_s": ("sent_bytes_total",),
}
REFUSED: Final = "refused_per_s"
READ: Final[Mapping[str, str]] = {
    "in_flight": "inflight_requests",
    "pending_keys": "pending_keys",
    "outbox_bytes": "outbox_bytes",
    "memory_bytes": "memory_bytes",
    "hints": "hints_pending",
    "repairs": "repairs_pending",
    "copies": "transfers_left",
    "compaction_bytes": "compaction_pending_bytes",
}
SUMMED: Final = frozenset({"hints_pending", "memory_bytes"})
"""Gauges with a value for each of a label's: for none, when there is nothing."""
LATENCIES: Final = ("get_p50_ms", "get_p99_ms", "put_p50_ms", "put_p99_ms")
WAITING: Final = (
    ("hints", "hints for others", str),
    ("repairs", "partitions to compare", str),
    ("copies", "copies to fetch", str),
    ("outbox_bytes", "to be sent", human_bytes),
    ("compaction_bytes", "to compact", human_bytes),
)
OUTBOX_BYTES_TOLD: Final = 1 << 20
COMPACTION_BYTES_TOLD: Final = 64 << 20

_BUCKET: Final = re.compile(r"^leafdb_request_duration_seconds_bucket\{([^}]*)\} (\S+)", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')

Histogram = Mapping[float, float]
"""Requests that took at most so many seconds, by that bound; the last is infinite."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What every node said at a moment: counters and gauges by name, and histograms by operation, each by node."""

    at_s: float
    counters: Mapping[str, Mapping[str, float]]
    latencies: Mapping[str, Mapping[str, Histogram]]


def histograms_of(page: str) -> dict[str, dict[float, float]]:
    """The latencies of requests on a page of metrics, by operation."""
    found: dict[str, dict[float, float]] = {}
    for match in _BUCKET.finditer(page):
        labels = dict(_LABEL.findall(match[1]))
        found.setdefault(labels.get("op", ""), {})[float(labels["le"])] = float(match[2])
    return found


def quantile_s(histogram: Histogram, q: float) -> float | None:
    """The q-quantile; None of nothing. Beyond the last finite bound it is that bound, and may be more."""
    bounds = sorted(histogram)
    total = histogram[bounds[-1]] if bounds else 0
    if total <= 0:
        return None
    wanted, low, below = q * total, 0.0, 0.0
    for bound in bounds:
        count = histogram[bound]
        if count >= wanted and count > below:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low


def difference(before: Histogram, now: Histogram) -> Histogram:
    """The requests between; those of `now` when the node was started again, and so has fewer."""
    if any(now.get(bound, 0) < count for bound, count in before.items()):
        return now
    return {bound: count - before.get(bound, 0) for bound, count in now.items()}


def added(histograms: Iterable[Histogram]) -> Histogram:
    """Of several nodes together."""
    total: dict[float, float] = {}
    for histogram in histograms:
        for bound, count in histogram.items():
            total[bound] = total.get(bound, 0) + count
    return total


def figures(before: Sample, now: Sample, states: Mapping[str, str]) -> list[dict[str, Any]]:
    """An item for each member, in their order. None: it cannot be said."""
    elapsed_s = max(0.001, now.at_s - before.at_s)
    return [_of_node(name, state, before, now, elapsed_s) for name, state in states.items()]


def whole(before: Sample, now: Sample, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same of the whole cluster: sums, and the quantiles of all requests together."""
    summed = [*COUNTED, REFUSED, *READ]
    total: dict[str, Any] = {
        name: sum(item[name] for item in items if item[name] is not None)
        if any(item[name] is not None for item in items)
        else None
        for name in summed
    }
    return total | _latencies(
        {op: added(_between(before, now, name, op) for name in now.latencies) for op in OPERATIONS}
    )


def _of_node(name: str, state: str, before: Sample, now: Sample, elapsed_s: float) -> dict[str, Any]:
    earlier, later = before.counters.get(name), now.counters.get(name)
    item: dict[str, Any] = {"name": name, "state": state}
    for figure, counters in COUNTED.items():
        item[figure] = _rate(earlier, later, counters, elapsed_s)
    refusals = [counter for counter in later or () if counter.startswith("rejected_")]
    item[REFUSED] = _rate(earlier, later, refusals, elapsed_s)
    for figure, gauge in READ.items():
        item[figure] = None if later is None else _gauge(later, gauge)
    return item | _latencies({op: _between(before, now, name, op) for op in OPERATIONS})


def _rate(
    earlier: Mapping[str, float] | None, later: Mapping[str, float] | None, counters: Iterable[str], elapsed_s: float
) -> float | None:
    if earlier is None or later is None:
        return None
    change = sum(later.get(counter, 0) - earlier.get(counter, 0) for counter in counters)
    return round(change / elapsed_s, 1) if change >= 0 else None


def _gauge(values: Mapping[str, float], name: str) -> int | None:
    """A gauge, or the sum of one that has a label."""
    found = [value for key, value in values.items() if key == name or key.startswith(f"{name}.")]
    return int(sum(found)) if found or name in SUMMED else None


def _between(before: Sample, now: Sample, name: str, op: str) -> Histogram:
    return difference(before.latencies.get(name, {}).get(op, {}), now.latencies.get(name, {}).get(op, {}))


def _latencies(histograms: Mapping[str, Histogram]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for figure in LATENCIES:
        op, quantile, _ = figure.split("_")
        seconds = quantile_s(histograms[op], int(quantile[1:]) / 100)
        found[figure] = None if seconds is None else round(seconds * 1000, 3)
    return found


# -- on a screen


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


COLUMNS: Final = [
    Column("name", "node", style=lambda _: "bold"),
    Column("gets_per_s", "get/s", _number, right=True),
    Column("puts_per_s", "put/s", _number, right=True),
    Column("get_ms", "get p50/p99", right=True),
    Column("put_ms", "put p50/p99", right=True),
    Column("refused_per_s", "refused/s", _number, right=True, spare=2),
    Column("failed_per_s", "failed/s", _number, right=True, style=lambda value: "red" if value else "", spare=1),
    Column("in_flight", "in flight", _number, right=True, spare=3),
    Column("scans_per_s", "scan/s", _number, right=True, spare=4),
    Column("received_bytes_per_s", "in/s", human_bytes, right=True, spare=5),
    Column("sent_bytes_per_s", "out/s", human_bytes, right=True, spare=6),
    Column("memory_bytes", "memory", human_bytes, right=True, spare=7),
]


def rows_of(items: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table's rows: each node, and all of them where there are several."""
    named = [{**item, "name": _called(item)} for item in items]
    if len(items) > 1:
        named.append({**total, "name": "all"})
    return [
        {
            **row,
            "get_ms": _pair(row["get_p50_ms"], row["get_p99_ms"]),
            "put_ms": _pair(row["put_p50_ms"], row["put_p99_ms"]),
        }
        for row in named
    ]


def _called(item: Mapping[str, Any]) -> str:
    return str(item["name"]) if item["state"] == "alive" else f"{item['name']} ({item['state']})"


def _pair(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{_ms(low)}/{_ms(high)} ms"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def waiting_lines(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Nodes in which something waits, and how much; silent about what is always there."""
    least = {"outbox_bytes": OUTBOX_BYTES_TOLD, "compaction_bytes": COMPACTION_BYTES_TOLD}
    lines = []
    for item in items:
        parts = [
            f"{show(item[figure])} {what}"
            for figure, what, show in WAITING
            if (item[figure] or 0) >= least.get(figure, 1)
        ]
        if parts:
            lines.append(f"{item['name']}: {', '.join(parts)}")
    return lines
