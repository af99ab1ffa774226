"""A node's `Metrics` as Prometheus text. Part of the server extra; the node itself never imports this.

The registry belongs to the page, not to the process: several nodes in one process each have their own. Values are
read at scrape, on the event loop, so they need no locks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from leafdb.node.metric_tables import COUNTERS, GAUGES, REJECTED, REJECTED_HELP, Counted
from leafdb.node.metrics import Histogram, Metrics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MetricsPage:
    """The body of `/metrics` for one node."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(metrics))
        ProcessCollector(namespace="leafdb", registry=self._registry)

    def render(self) -> bytes:
        """Everything, as of now."""
        return generate_latest(self._registry)


class NodeCollector(Collector):
    """Reads a `Metrics` when scraped."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """Nothing beforehand: registering must not read values of a node that is still being built."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, each once."""
        metrics = self._metrics
        for name, labels in metrics.infos.items():
            info = InfoMetricFamily(name.removesuffix("_info"), "What this node is.", labels=[])
            info.add_metric([], dict(labels))
            yield info
        for metric, group in groupby(COUNTERS, key=lambda counted: counted.metric):
            yield _counter(metric, list(group), metrics)
        rejected = CounterMetricFamily(REJECTED.removesuffix("_total"), REJECTED_HELP, labels=["reason"])
        for reason, count in metrics.rejected.items():
            rejected.add_metric([reason], count)
        yield rejected
        for metric, histograms in groupby(metrics.histograms, key=lambda histogram: histogram.about.metric):
            yield _histogram(metric, list(histograms))
        for name, value in metrics.gauges().items():
            yield _gauge(name, value)


def _counter(metric: str, group: list[Counted], metrics: Metrics) -> Metric:
    first = group[0]
    family = CounterMetricFamily(metric.removesuffix("_total"), first.help, labels=[name for name, _ in first.labels])
    for counted in group:
        family.add_metric([value for _, value in counted.labels], metrics.counter(counted.attribute))
    return family


def _histogram(metric: str, histograms: list[Histogram]) -> Metric:
    first = histograms[0].about
    family = HistogramMetricFamily(metric, first.help, labels=[name for name, _ in first.labels])
    for histogram in histograms:
        seen = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), seen))
        family.add_metric([value for _, value in histogram.about.labels], buckets, histogram.total)
    return family


def _gauge(name: str, value: float | Mapping[str, float]) -> Metric:
    gauge = GAUGES[name]
    family = GaugeMetricFamily(gauge.metric, gauge.help, labels=[gauge.label] if gauge.label else [])
    if isinstance(value, Mapping):
        assert gauge.label, f"{name} has no label"
        for label, one in value.items():
            family.add_metric([label], one)
    else:
        family.add_metric([], value)
    return family
