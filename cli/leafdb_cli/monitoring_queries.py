"""Queries of Prometheus over what nodes count, made by name from the node's own definitions.

A metric or a label that no node has cannot be asked for: `Metric` refuses it. So dashboards and alert rules are right
by their making, and a change of a metric's name breaks a test here and not a night on call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

WINDOW: Final = "$__rate_interval"
"""What Grafana puts in for the span of a rate."""
OF_EVERY_SERIES: Final = frozenset({"job", "instance", "le"})


@cache
def known() -> Mapping[str, frozenset[str]]:
    """The labels of every metric that a node shows by the name of its samples; those of the process with it."""
    from leafdb.node.metric_tables import HISTOGRAMS, labels_of

    names = dict(labels_of())
    for metric in {measured.metric for measured in HISTOGRAMS}:
        labels = names.pop(metric)
        names |= {f"{metric}_{part}": labels for part in ("bucket", "sum", "count")}
    process = ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds")
    return names | {f"leafdb_process_{name}": frozenset() for name in process} | {"up": frozenset()}


@cache
def help_of(metric: str) -> str:
    """The line that a node's page says about a metric; empty for what is not the node's own."""
    from leafdb.node.metric_tables import COUNTERS, GAUGES, HISTOGRAMS, REJECTED, REJECTED_HELP

    lines: dict[str, str] = {REJECTED: REJECTED_HELP}
    lines |= {counted.metric: counted.help for counted in COUNTERS}
    lines |= {gauge.metric: gauge.help for gauge in GAUGES.values()}
    lines |= {measured.metric: measured.help for measured in HISTOGRAMS}
    return lines.get(metric.removesuffix("_bucket"), "")


@dataclass(frozen=True, slots=True)
class Metric:
    """Samples of one name, where these labels are. ValueError when no node has them."""

    name: str
    where: str = ""
    """Matchers, as PromQL has them between braces."""

    def __post_init__(self) -> None:
        self._labels_known(*(part.split("=")[0].split("!")[0].strip() for part in self.where.split(",") if part))

    def _labels_known(self, *labels: str) -> None:
        if self.name not in known():
            raise ValueError(f"no node shows a metric {self.name}")
        strange = set(labels) - known()[self.name] - OF_EVERY_SERIES
        if strange:
            raise ValueError(f"{self.name} has no label {', '.join(sorted(strange))}")

    def __str__(self) -> str:
        return f"{self.name}{{{self.where}}}" if self.where else self.name

    def rate(self, *by: str, window: str = WINDOW) -> str:
        """How much of it comes in a second, added up by these labels."""
        self._labels_known(*by)
        return f"sum{_by(by)}(rate({self}[{window}]))"

    def increase(self, *by: str, window: str) -> str:
        """How much of it has come in the window, added up by these labels."""
        self._labels_known(*by)
        return f"sum{_by(by)}(increase({self}[{window}]))"

    def total(self, *by: str) -> str:
        """The values, added up by these labels."""
        self._labels_known(*by)
        return f"sum{_by(by)}({self})"

    def most(self, *by: str) -> str:
        """The greatest of the values by these labels."""
        self._labels_known(*by)
        return f"max{_by(by)}({self})"

    def least(self, *by: str) -> str:
        """The smallest of the values by these labels."""
        self._labels_known(*by)
        return f"min{_by(by)}({self})"

    def quantile(self, q: float, *by: str, window: str = WINDOW) -> str:
        """Of a histogram; this is the name of its buckets."""
        assert self.name.endswith("_bucket"), f"{self.name} is no histogram's"
        return f"histogram_quantile({q:g}, {self.rate(*by, 'le', window=window)})"


def _by(labels: tuple[str, ...]) -> str:
    return f" by ({', '.join(labels)}) " if labels else ""
