"""What a node counts: the tables describe every attribute, the page is valid Prometheus text, nodes stay apart."""

from __future__ import annotations

import re

import pytest

from leafdb.errors import DeadlineExceeded, NotApplied, NotEnoughReplicas, OutcomeUnknown, Reason, ServerBug
from leafdb.node.metric_tables import COUNTERS, GAUGES, TRANSPORT_COUNTERS, Measured
from leafdb.node.metrics import Histogram, Metrics
from leafdb.transport.counters import TransportCounters

prometheus_parser = pytest.importorskip("prometheus_client.parser")


def page_of(metrics: Metrics) -> str:
    from leafdb.node.metrics_page import MetricsPage

    return MetricsPage(metrics).render().decode()


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    for family in prometheus_parser.text_string_to_metric_families(page_of(metrics)):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return float(found.value)
    raise AssertionError(f"no sample {name} {labels}")


def test_every_counter_is_described_once_and_every_description_counts() -> None:
    metrics = Metrics()
    attributes = {name for name in vars(metrics) if name.endswith("_total")}
    assert attributes == {counted.attribute for counted in COUNTERS}
    assert len({(counted.metric, counted.labels) for counted in COUNTERS}) == len(COUNTERS)
    metrics.check()


def test_names_follow_the_convention() -> None:
    for counted in COUNTERS:
        assert re.fullmatch(r"leafdb_[a-z_]+_total", counted.metric)
        assert counted.help.endswith(".")
    for gauge in GAUGES.values():
        assert re.fullmatch(r"leafdb_[a-z_]+", gauge.metric)
        assert not gauge.metric.endswith("_total")
    labels = {name for counted in COUNTERS for name, _ in counted.labels} | {gauge.label for gauge in GAUGES.values()}
    assert not labels & {"key", "address", "client", "bucket"}


def test_samples_of_one_metric_stand_together() -> None:
    order = [counted.metric for counted in COUNTERS]
    assert len(set(order)) == sum(1 for i, name in enumerate(order) if i == 0 or order[i - 1] != name)


def test_a_counter_kept_elsewhere_reaches_the_page() -> None:
    """The node counts nothing twice: what transport counts is read from there."""
    metrics = Metrics()
    counters = TransportCounters()
    metrics.follow(counters, TRANSPORT_COUNTERS)
    counters.protocol_errors_total += 2
    counters.handler_errors_total += 1
    assert sample(metrics, "leafdb_protocol_errors_total") == 2
    assert metrics.counters()["callbacks_failed_total"] == 1
    assert metrics.snapshot()["protocol_errors_total"] == 2
    metrics.check()


def test_a_counter_reaches_the_page() -> None:
    metrics = Metrics()
    metrics.puts_total += 3
    metrics.gets_total += 1
    assert sample(metrics, "leafdb_requests_total", op="put") == 3
    assert sample(metrics, "leafdb_requests_total", op="get") == 1


def test_refusals_are_counted_by_what_they_say() -> None:
    metrics = Metrics()
    metrics.refused(NotApplied("no", reason=Reason.CONFLICT_LIMIT))
    metrics.refused(NotEnoughReplicas("no", alive=1, required=2))
    metrics.refused(OutcomeUnknown("?", acks=1, required=2))
    metrics.refused(DeadlineExceeded("late", stage="wait"))
    metrics.refused(ServerBug("ours"))
    assert sample(metrics, "leafdb_rejected_total", reason="conflict_limit") == 1
    assert sample(metrics, "leafdb_rejected_total", reason="not_enough_replicas") == 1
    assert sample(metrics, "leafdb_rejected_total", reason="draining") == 0
    counts = (metrics.outcomes_unknown_total, metrics.deadlines_exceeded_total, metrics.failures_total)
    assert counts == (1, 1, 1)
    assert metrics.snapshot()["rejected_conflict_limit_total"] == 1


def test_a_histogram_is_cumulative_on_the_page() -> None:
    metrics = Metrics()
    for value in (0.0001, 0.0002, 0.9, 60.0):
        metrics.put_duration.observe(value)
    name = "leafdb_request_duration_seconds"
    assert sample(metrics, f"{name}_bucket", op="put", le="0.0001") == 1
    assert sample(metrics, f"{name}_bucket", op="put", le="1.0") == 3
    assert sample(metrics, f"{name}_bucket", op="put", le="+Inf") == 4
    assert sample(metrics, f"{name}_count", op="put") == 4
    assert sample(metrics, f"{name}_sum", op="put") == pytest.approx(60.9003)
    assert sample(metrics, f"{name}_count", op="get") == 0


def test_quantiles_are_upper_bounds() -> None:
    histogram = Histogram(Measured("x", "leafdb_x_seconds", "x.", (1.0, 2.0, 4.0)))
    assert histogram.quantile(0.5) == 0.0
    for value in (0.5, 1.5, 1.5, 3.0):
        histogram.observe(value)
    assert histogram.quantile(0.5) == 2.0
    assert histogram.quantile(0.99) == 4.0
    histogram.observe(9.0)
    assert histogram.quantile(1.0) == float("inf")


def test_gauges_are_read_when_asked() -> None:
    metrics = Metrics()
    table: dict[int, int] = {}
    metrics.watch("inflight_requests", lambda: len(table))
    metrics.watch("members", lambda: {"alive": 2.0, "dead": 1.0})
    assert sample(metrics, "leafdb_inflight_requests") == 0
    table[1] = 1
    assert sample(metrics, "leafdb_inflight_requests") == 1
    assert sample(metrics, "leafdb_members", state="dead") == 1
    assert metrics.snapshot()["members.alive"] == 2.0
    with pytest.raises(AssertionError):
        metrics.watch("unheard_of", lambda: 0.0)


def test_two_nodes_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.puts_total += 5
    assert sample(first, "leafdb_requests_total", op="put") == 5
    assert sample(second, "leafdb_requests_total", op="put") == 0


def test_everything_on_the_page_is_ours_by_name() -> None:
    metrics = Metrics()
    metrics.info("leafdb_build_info", version="0.1.0")
    for family in prometheus_parser.text_string_to_metric_families(page_of(metrics)):
        assert family.name.startswith("leafdb_")
        assert family.documentation
    assert sample(metrics, "leafdb_build_info", version="0.1.0") == 1
