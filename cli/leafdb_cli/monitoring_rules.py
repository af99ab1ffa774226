"""Alert rules for Prometheus, each with the case that sets it off and one that does not.

The rules and the unit tests that `promtool` runs over them are written out from one list, so neither is there without
the other. An alert is for people: it says what is wrong, what that means for data or requests, and where it is written
what to do. `page` wakes somebody; `ticket` waits for the morning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from leafdb_cli.monitoring_queries import Metric

JOB: Final = 'job="leafdb"'
PAGE: Final = "docs/operations/monitoring.md"
RULES_FILE: Final = "leafdb.rules.yml"
TESTS_FILE: Final = "leafdb.rules.test.yml"
DAY_S: Final = 86_400
A: Final = 'job="leafdb", instance="a:7413"'
B: Final = 'job="leafdb", instance="b:7413"'


class Severity(StrEnum):
    """Who hears of it."""

    PAGE = "page"
    TICKET = "ticket"


@dataclass(frozen=True, slots=True)
class Case:
    """Series over time, a value a minute, and when to look."""

    series: Mapping[str, str]
    at: str
    labels: Mapping[str, str]
    """What the alert carries besides its severity."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule."""

    name: str
    expr: str
    lasting: str
    severity: Severity
    summary: str
    meaning: str
    fires: Case
    quiet: Mapping[str, str]
    """The same series when all is well."""


def metric(name: str, where: str = "") -> Metric:
    """Samples of our job."""
    return Metric(name, f"{JOB}, {where}" if where else JOB)


ON_A: Final = {"job": "leafdb", "instance": "a:7413"}
OF_ALL: Final = {"job": "leafdb"}


def alerts() -> Sequence[Alert]:
    """All there are, the gravest first."""
    return (*_of_requests(), *_of_data(), *_of_machines(), *_of_work(), *_of_access())


def _of_requests() -> Sequence[Alert]:
    short, answered = metric("leafdb_quorum_shortfalls_total"), metric("leafdb_requests_total", 'op=~"put|get"')
    failing = short.rate("job", window="5m")
    return (
        Alert(
            "LeafdbNodeDown", f"{metric('up')} == 0", "2m", Severity.PAGE,
            "{{ $labels.instance }} does not answer",
            "Its ranges have one replica less. Writes for it are kept as hints by others.",
            Case({f"up{{{A}}}": "1 1 0x10", f"up{{{B}}}": "1x12"}, "5m", ON_A), {f"up{{{A}}}": "1x12"},
        ),
        Alert(
            "LeafdbRangesShort", f"{metric('leafdb_ranges_short').most('job', 'op')} > 0", "1m", Severity.PAGE,
            "ranges have too few replicas for {{ $labels.op }}s",
            "Their strict requests are refused, sloppy ones lean on fallbacks.",
            Case({f'leafdb_ranges_short{{{A}, op="put"}}': "0 12x10"}, "4m", {**OF_ALL, "op": "put"}),
            {f'leafdb_ranges_short{{{A}, op="put"}}': "0x12"},
        ),
        Alert(
            "LeafdbQuorumShortfalls", f"{failing} / ({failing} + {answered.rate('job', window='5m')}) > 0.01", "5m",
            Severity.PAGE, "more than one request in a hundred finds too few replicas",
            "Clients see refusals, deadlines and unknown outcomes.",
            Case(
                {
                    f'leafdb_quorum_shortfalls_total{{{A}, op="put"}}': "0+10x20",
                    f'leafdb_requests_total{{{A}, op="put"}}': "0+100x20",
                },
                "15m", OF_ALL,
            ),
            {
                f'leafdb_quorum_shortfalls_total{{{A}, op="put"}}': "0x20",
                f'leafdb_requests_total{{{A}, op="put"}}': "0+100x20",
            },
        ),
        Alert(
            "LeafdbManySiblings",
            f"{metric('leafdb_siblings_per_key_bucket').quantile(0.99, 'job', window='15m')} > 10",
            "10m", Severity.TICKET, "reads find more than ten siblings",
            "Clients write blindly, or merge and do not write back. At 64 siblings a blind write is refused.",
            Case(
                {
                    f'leafdb_siblings_per_key_bucket{{{A}, le="10.0"}}': "0+50x40",
                    f'leafdb_siblings_per_key_bucket{{{A}, le="20.0"}}': "0+100x40",
                    f'leafdb_siblings_per_key_bucket{{{A}, le="+Inf"}}': "0+100x40",
                },
                "35m", OF_ALL,
            ),
            {
                f'leafdb_siblings_per_key_bucket{{{A}, le="1.0"}}': "0+100x40",
                f'leafdb_siblings_per_key_bucket{{{A}, le="+Inf"}}': "0+100x40",
            },
        ),
    )  # fmt: skip


def _of_data() -> Sequence[Alert]:
    return (
        _above(
            "LeafdbPossibleLoss", "leafdb_possible_loss_partitions", 0, "0m", Severity.PAGE,
            "writes may be lost on {{ $labels.instance }}", "No owner of some ranges remembered everything.",
        ),
        _above(
            "LeafdbDamage", "leafdb_damaged_tables", 0, "0m", Severity.TICKET,
            "the disk of {{ $labels.instance }} returned other bytes than were written",
            "What was lost is brought back from other replicas. Look at the disk.",
        ),
        _above(
            "LeafdbRepairOverdue", "leafdb_repair_ranges_over_age", 0, "15m", Severity.TICKET,
            "{{ $labels.instance }} has ranges that were not compared for longer than promised",
            "Replicas may differ, and nothing that was deleted there is forgotten.",
        ),
        _above(
            "LeafdbDeletesKept", "leafdb_purge_lag_seconds", 86_400, "1h", Severity.TICKET,
            "deleted data of {{ $labels.instance }} waits to be forgotten for more than a day",
            "Somebody holds the proof up. It costs disk, and scans get slower.",
        ),
        Alert(
            "LeafdbHintsOld",
            f"{metric('leafdb_hint_oldest_age_seconds')} > 0.5 * {metric('leafdb_hint_age_limit_seconds')}", "5m",
            Severity.TICKET, "{{ $labels.instance }} keeps hints that are half as old as they may be",
            "Past that age they are given up, and comparing whole ranges does their work.",
            Case(
                {
                    f"leafdb_hint_oldest_age_seconds{{{A}}}": "6000+60x20",
                    f"leafdb_hint_age_limit_seconds{{{A}}}": "10800x20",
                },
                "10m", ON_A,
            ),
            {
                f"leafdb_hint_oldest_age_seconds{{{A}}}": "0+60x20",
                f"leafdb_hint_age_limit_seconds{{{A}}}": "10800x20",
            },
        ),
    )  # fmt: skip


def _of_machines() -> Sequence[Alert]:
    free, size = metric("leafdb_disk_free_bytes"), metric("leafdb_disk_bytes")
    skew = metric("leafdb_clock_skew_seconds")
    return (
        Alert(
            "LeafdbDiskFilling", f"{free} / {size} < 0.2", "10m", Severity.TICKET,
            "the disk of {{ $labels.instance }} is more than 80 % full",
            "Compactions need room for what they make. A full disk takes no writes.",
            Case({f"leafdb_disk_free_bytes{{{A}}}": "10x30", f"leafdb_disk_bytes{{{A}}}": "100x30"}, "20m", ON_A),
            {f"leafdb_disk_free_bytes{{{A}}}": "30x30", f"leafdb_disk_bytes{{{A}}}": "100x30"},
        ),
        Alert(
            "LeafdbDiskFullSoon", f"predict_linear({free}[1h], 14400) < 0", "10m", Severity.PAGE,
            "the disk of {{ $labels.instance }} is full in four hours at this rate",
            "Then the node takes no writes.",
            Case({f"leafdb_disk_free_bytes{{{A}}}": "10000-100x90"}, "80m", ON_A),
            {f"leafdb_disk_free_bytes{{{A}}}": "10000x90"},
        ),
        Alert(
            "LeafdbClockSkew", f"abs({skew}) > 0.25", "2m", Severity.TICKET,
            "the clock of {{ $labels.peer }} is off, says {{ $labels.instance }}",
            "lww buckets and expiry go by clocks; more than 5 s ahead is refused.",
            Case({f'leafdb_clock_skew_seconds{{{A}, peer="b"}}': "-0.4x10"}, "5m", {**ON_A, "peer": "b"}),
            {f'leafdb_clock_skew_seconds{{{A}, peer="b"}}': "0.1x10"},
        ),
        Alert(
            "LeafdbLoopLag",
            f"{metric('leafdb_event_loop_lag_seconds_bucket').quantile(0.99, 'job', 'instance', window='5m')} > 0.1",
            "5m", Severity.TICKET, "the event loop of {{ $labels.instance }} is late by more than 0.1 s",
            "Its processor is the limit, or something else uses it.",
            Case(
                {
                    f'leafdb_event_loop_lag_seconds_bucket{{{A}, le="0.1"}}': "0+10x20",
                    f'leafdb_event_loop_lag_seconds_bucket{{{A}, le="0.25"}}': "0+600x20",
                    f'leafdb_event_loop_lag_seconds_bucket{{{A}, le="+Inf"}}': "0+600x20",
                },
                "15m", ON_A,
            ),
            {
                f'leafdb_event_loop_lag_seconds_bucket{{{A}, le="0.001"}}': "0+600x20",
                f'leafdb_event_loop_lag_seconds_bucket{{{A}, le="+Inf"}}': "0+600x20",
            },
        ),
    )  # fmt: skip


def _of_work() -> Sequence[Alert]:
    epoch = metric("leafdb_ring_epoch")
    return (
        Alert(
            "LeafdbEpochsDisagree", f"{epoch.most('job')} != {epoch.least('job')}", "5m", Severity.TICKET,
            "nodes go by different metadata", "One of them does not hear of changes: it is cut off, or of no cluster.",
            Case({f"leafdb_ring_epoch{{{A}}}": "7x15", f"leafdb_ring_epoch{{{B}}}": "8x15"}, "10m", OF_ALL),
            {f"leafdb_ring_epoch{{{A}}}": "8x15", f"leafdb_ring_epoch{{{B}}}": "7 8x15"},
        ),
        _above(
            "LeafdbWritesHeld", "leafdb_write_debt_ratio", 0.99, "5m", Severity.PAGE,
            "{{ $labels.instance }} puts writes off", "Its disk cannot keep up with flushes or compactions.",
        ),
        Alert(
            "LeafdbStorageJobsFail",
            f"{metric('leafdb_storage_jobs_failed_total').increase('job', 'instance', window='15m')} > 0", "0m",
            Severity.TICKET, "flushes or compactions of {{ $labels.instance }} fail",
            "They are tried again; the log of the node says why they failed.",
            Case({f"leafdb_storage_jobs_failed_total{{{A}}}": "0x5 1x20"}, "8m", ON_A),
            {f"leafdb_storage_jobs_failed_total{{{A}}}": "3x25"},
        ),
    )  # fmt: skip


def _of_access() -> Sequence[Alert]:
    ends = metric("leafdb_tls_certificate_not_after_seconds")
    rejected = metric("leafdb_logins_total", 'result="rejected"')

    def within(name: str, days: int, severity: Severity, meaning: str) -> Alert:
        """In the tests of rules time begins at 0."""
        series = f'leafdb_tls_certificate_not_after_seconds{{{A}, certificate="node"}}'
        labels = {**ON_A, "certificate": "node"}
        return Alert(
            name, f"{ends} - time() < {days * DAY_S}", "10m", severity,
            f"a certificate ({{{{ $labels.certificate }}}}) of {{{{ $labels.instance }}}} ends within {days} days",
            meaning, Case({series: f"{days * DAY_S}x30"}, "20m", labels), {series: f"{days * DAY_S + 3_600}x30"},
        )  # fmt: skip

    return (
        within(
            "LeafdbCertificateEndsNow", 3, Severity.PAGE,
            "When it has run out nobody gets a new connection to this node; those that are open go on.",
        ),
        within(
            "LeafdbCertificateEnds", 30, Severity.TICKET, "There is time to exchange it calmly: leafdb cert rotate.",
        ),
        Alert(
            "LeafdbLoginsRejected", f"{rejected.increase('job', window='15m')} > 100", "15m", Severity.TICKET,
            "more than a hundred logins in a quarter of an hour are rejected",
            "A program has an old password or token, or somebody tries them out.",
            Case({f'leafdb_logins_total{{{A}, result="rejected"}}': "0+12x60"}, "45m", OF_ALL),
            {f'leafdb_logins_total{{{A}, result="rejected"}}': "0+1x60"},
        ),
    )  # fmt: skip


def _above(name: str, of: str, bound: float, lasting: str, severity: Severity, summary: str, meaning: str) -> Alert:
    """A gauge that should be no greater."""
    over, series = 2 * bound + 1, f"{of}{{{A}}}"
    fires = Case({series: f"0x5 {over:g}x200"}, "120m", ON_A)
    return Alert(
        name, f"{metric(of)} > {bound:g}", lasting, severity, summary, meaning, fires, {series: f"{bound:g}x120"}
    )


# -- as Prometheus has it


def runbook(alert: Alert) -> str:
    """Where it is written what to do."""
    return f"{PAGE}#{alert.name.lower()}"


def render_rules() -> str:
    """The file of rules."""
    lines = ["# Made by `leafdb metrics rules` from the definitions of the metrics: change those.", "groups:"]
    lines += ["- name: leafdb", "  rules:"]
    for alert in alerts():
        lines += [
            f"  - alert: {alert.name}",
            f"    expr: {_quoted(alert.expr)}",
            f"    for: {alert.lasting}",
            f"    labels: {_map({'severity': str(alert.severity)})}",
            "    annotations:",
            f"      summary: {_quoted(alert.summary)}",
            f"      description: {_quoted(alert.meaning)}",
            f"      runbook: {_quoted(runbook(alert))}",
        ]
    return "\n".join(lines) + "\n"


def render_tests() -> str:
    """Unit tests of the rules, for `promtool test rules`: each fires in its case and not when all is well."""
    lines = ["# Made by `leafdb metrics rules` with the rules. To run: promtool test rules " + TESTS_FILE]
    lines += [f"rule_files: [{RULES_FILE}]", "evaluation_interval: 1m", "tests:"]
    for alert in alerts():
        lines += _test(alert, alert.fires.series, fires=True)
        lines += _test(alert, alert.quiet, fires=False)
    return "\n".join(lines) + "\n"


def _test(alert: Alert, series: Mapping[str, str], *, fires: bool) -> list[str]:
    lines = [f"- name: {alert.name} {'fires' if fires else 'is quiet'}", "  interval: 1m"]
    lines += ["  input_series:"]
    lines += [f"  - {_map({'series': name, 'values': values})}" for name, values in series.items()]
    lines += ["  alert_rule_test:", f"  - eval_time: {alert.fires.at}", f"    alertname: {alert.name}"]
    if not fires:
        return [*lines, "    exp_alerts: []"]
    carried = dict(alert.fires.labels)
    texts = {"summary": alert.summary, "description": alert.meaning, "runbook": runbook(alert)}
    filled = {name: _filled(text, carried) for name, text in texts.items()}
    return [
        *lines, "    exp_alerts:", f"    - exp_labels: {_map({**carried, 'severity': str(alert.severity)})}",
        f"      exp_annotations: {_map(filled)}",
    ]  # fmt: skip


def _filled(text: str, labels: Mapping[str, str]) -> str:
    """What Prometheus makes of a text with labels in it."""
    for name, value in labels.items():
        text = text.replace(f"{{{{ $labels.{name} }}}}", value)
    assert "{{" not in text, f"a label that the alert does not carry: {text}"
    return text


def _quoted(text: str) -> str:
    """A scalar of YAML: its double quotes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _map(values: Mapping[str, str]) -> str:
    """A map of YAML in one line, which is that of JSON."""
    return json.dumps(dict(values), ensure_ascii=False)
