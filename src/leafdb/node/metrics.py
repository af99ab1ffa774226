"""What a node counts. Plain attributes and small lists, read when somebody asks.

The request path pays one attribute increment for a counter and one bisection for a histogram. Nothing here knows
Prometheus: an embedded node counts as well, and `metrics_page` turns a `Metrics` into text where the server extra is
installed. One object per node, never one per process, so that a whole cluster can live in one process.

Every counter, gauge and histogram has a line in `metric_tables`: what is not described there cannot be shown, and a
test holds the tables and the attributes together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from math import inf

from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, NotEnoughReplicas, OutcomeUnknown, Reason
from leafdb.node.metric_tables import COUNTERS, GAUGES, HISTOGRAMS, REJECTED, TRANSPORT_COUNTERS, Labels, Measured


class Histogram:
    """Counts of observations by upper bound, the last for those beyond every bound."""

    __slots__ = ("about", "bounds", "counts", "total")

    def __init__(self, about: Measured) -> None:
        assert list(about.bounds) == sorted(set(about.bounds))
        self.about: Measured = about
        self.bounds: tuple[float, ...] = about.bounds
        self.counts: list[int] = [0] * (len(about.bounds) + 1)
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one observation; a value equal to a bound belongs to it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """An upper bound of the q-quantile, infinite beyond the last bound; 0 when nothing was observed."""
        assert 0.0 <= q <= 1.0
        wanted = q * self.count
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return self.bounds[index] if index < len(self.bounds) else float("inf")
        return 0.0


class Metrics:
    """Everything one node counts."""

    puts_total: int
    gets_total: int
    scans_total: int
    admin_total: int
    put_shortfalls_total: int
    get_shortfalls_total: int
    outcomes_unknown_total: int
    deadlines_exceeded_total: int
    failures_total: int
    blind_writes_total: int
    writes_recognised_total: int
    forwards_total: int
    fallback_writes_total: int
    reads_anew_total: int
    hedges_total: int
    write_backs_total: int
    session_waits_total: int
    read_repairs_total: int
    hints_stored_total: int
    hints_delivered_total: int
    hints_expired_total: int
    hints_overflowed_total: int
    hints_handed_on_total: int
    hints_purged_total: int
    leftover_ranges_dropped_total: int
    leftover_records_dropped_total: int
    losses_proved_total: int
    records_forgotten_total: int
    siblings_left_out_total: int
    exchanges_total: int
    exchange_keys_differing_total: int
    exchange_keys_sent_total: int
    exchange_keys_received_total: int
    records_restored_total: int
    purge_proofs_begun_total: int
    purge_proofs_made_total: int
    purge_proofs_refused_total: int
    purge_horizons_raised_total: int
    hash_trees_rebuilt_total: int
    hash_trees_doubted_total: int
    lost_ranges_total: int
    transfer_bytes_received_total: int
    transfer_bytes_sent_total: int
    flushes_total: int
    flushed_bytes_total: int
    compactions_total: int
    compaction_bytes_read_total: int
    compaction_bytes_written_total: int
    tables_dropped_total: int
    tables_dropped_bytes_total: int
    storage_jobs_failed_total: int
    verified_bytes_total: int
    damages_found_total: int
    block_cache_hits_total: int
    block_cache_misses_total: int
    reads_refused_total: int
    writes_held_total: int
    sessions_opened_total: int
    sessions_refused_total: int
    handshakes_failed_total: int
    logins_accepted_total: int
    logins_rejected_total: int
    logins_turned_away_total: int
    protocol_errors_total: int
    callbacks_failed_total: int
    received_bytes_total: int
    sent_bytes_total: int
    metadata_installed_total: int
    log_lines_left_out_total: int
    slow_requests_total: int

    put_duration: Histogram
    get_duration: Histogram
    forward_duration: Histogram
    scan_duration: Histogram
    admin_duration: Histogram
    replica_put_duration: Histogram
    replica_get_duration: Histogram
    wal_sync_duration: Histogram
    loop_lag: Histogram
    gc_pause: Histogram
    siblings: Histogram
    value_bytes: Histogram

    def __init__(self) -> None:
        for counted in COUNTERS:
            setattr(self, counted.attribute, 0)
        for measured in HISTOGRAMS:
            setattr(self, measured.attribute, Histogram(measured))
        self.rejected: dict[str, int] = {str(reason): 0 for reason in Reason}
        """Refusals by reason. All reasons are there from the start, so that a rate over them has a beginning."""
        self._elsewhere: dict[str, tuple[object, str]] = {}
        self._readers: dict[str, Callable[[], float | Mapping[str, float]]] = {}
        self._labelled: dict[str, Labels] = {}

    @property
    def histograms(self) -> tuple[Histogram, ...]:
        """All of them; those of one metric are neighbours."""
        found: list[Histogram] = [getattr(self, measured.attribute) for measured in HISTOGRAMS]
        return tuple(found)

    def refused(self, error: LeafdbError, op: str = "") -> None:
        """A request was answered with `error`; `op`: "put" or "get", if it was one."""
        if op and isinstance(error, NotEnoughReplicas | OutcomeUnknown | DeadlineExceeded):
            if op == "put":
                self.put_shortfalls_total += 1
            else:
                self.get_shortfalls_total += 1
        if isinstance(error, NotApplied):
            self.rejected[str(error.reason)] += 1
        elif isinstance(error, OutcomeUnknown):
            self.outcomes_unknown_total += 1
        elif isinstance(error, DeadlineExceeded):
            self.deadlines_exceeded_total += 1
        else:
            self.failures_total += 1

    def watch(self, name: str, read: Callable[[], float | Mapping[str, float]]) -> None:
        """Name the reader of a gauge of GAUGES. It is called on the event loop whenever somebody asks: be quick."""
        assert name in GAUGES, f"no gauge is called {name}"
        self._readers[name] = read

    def info(self, metric: str, **labels: str) -> None:
        """A sample that is always 1 and tells by its labels: versions and names."""
        assert metric.startswith("leafdb_")
        assert metric.endswith("_info")
        self._labelled[metric] = tuple(labels.items())

    @property
    def infos(self) -> Mapping[str, Labels]:
        """What `info` was told."""
        return self._labelled

    def gauges(self) -> dict[str, float | Mapping[str, float]]:
        """Every gauge that has a reader, read now."""
        return {name: self._readers[name]() for name in GAUGES if name in self._readers}

    def follow(self, source: object, names: Mapping[str, str]) -> None:
        """Have counters read from where a layer beneath keeps them: attribute here -> attribute of `source`."""
        assert all(hasattr(self, name) and hasattr(source, theirs) for name, theirs in names.items())
        self._elsewhere.update({name: (source, theirs) for name, theirs in names.items()})

    def follow_transport(self, counters: object) -> None:
        """The same of what transport counts."""
        self.follow(counters, TRANSPORT_COUNTERS)

    def counter(self, attribute: str) -> int:
        """A counter as it stands."""
        source, name = self._elsewhere.get(attribute, (self, attribute))
        count: int = getattr(source, name)
        return count

    def counters(self) -> dict[str, int]:
        """Every counter by its attribute's name."""
        return {counted.attribute: self.counter(counted.attribute) for counted in COUNTERS}

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """Every sample of the tables as (metric, labels, value); of a histogram what was counted up to each bound."""
        for metric, labels in self.infos.items():
            yield metric, labels, 1.0
        for counted in COUNTERS:
            yield counted.metric, counted.labels, self.counter(counted.attribute)
        for reason, count in self.rejected.items():
            yield REJECTED, (("reason", reason),), count
        for name, value in self.gauges().items():
            gauge = GAUGES[name]
            if isinstance(value, Mapping):
                for label, one in value.items():
                    yield gauge.metric, ((gauge.label, label),), one
            else:
                yield gauge.metric, (), value
        for histogram in self.histograms:
            about, seen = histogram.about, 0
            for bound, count in zip((*about.bounds, inf), histogram.counts, strict=True):
                seen += count
                le = "+Inf" if bound == inf else repr(bound)
                yield f"{about.metric}_bucket", (*about.labels, ("le", le)), seen
            yield f"{about.metric}_sum", about.labels, histogram.total
            yield f"{about.metric}_count", about.labels, seen

    def snapshot(self) -> dict[str, int | float]:
        """Counters and refusals in one flat map, for the admin verb `stats`."""
        found: dict[str, int | float] = dict(self.counters())
        found.update({f"rejected_{reason}_total": count for reason, count in self.rejected.items() if count})
        for name, value in self.gauges().items():
            if isinstance(value, Mapping):
                found.update({f"{name}.{label}": one for label, one in value.items()})
            else:
                found[name] = value
        return found

    def check(self) -> None:
        """Counters never fall below zero, histograms add up, every described counter exists."""
        assert all(count >= 0 for count in self.counters().values())
        assert all(count >= 0 for count in self.rejected.values())
        assert all(histogram.count >= 0 for histogram in self.histograms)
