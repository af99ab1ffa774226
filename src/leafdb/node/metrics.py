"""What a node counts. Plain attributes and small lists, read when somebody asks.

The request path pays one attribute increment for a counter and one bisection for a histogram. Nothing here knows
Prometheus: an embedded node counts as well, and `metrics_page` turns a `Metrics` into text where the server extra is
installed. One object per node, never one per process, so that a whole cluster can live in one process.

Every counter has a line in COUNTERS and every gauge one in GAUGES: what is not described there cannot be shown, and a
test holds the tables and the attributes together. Labels are small closed sets; never a key, never an address.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, OutcomeUnknown, Reason

Labels = tuple[tuple[str, str], ...]


class Counted(NamedTuple):
    """One counter attribute and the sample it becomes."""

    attribute: str
    metric: str
    help: str
    labels: Labels = ()


REQUESTS: Final = "Requests of clients answered without error, by operation."
HINTS: Final = "Hints, by what became of them."
SENT: Final = "Records that anti-entropy gave to peers or took from them."
PROOFS: Final = "Proofs that deleted data may be forgotten: begun here; made, of a partition at least; come to nothing."
COPIED: Final = "Bytes of records copied for changes of the ring: taken by receivers, and shown to those who pull."
COMPACTED: Final = "Bytes of tables that compactions took in, and that they made."

COUNTERS: Final = (
    Counted("puts_total", "leafdb_requests_total", REQUESTS, (("op", "put"),)),
    Counted("gets_total", "leafdb_requests_total", REQUESTS, (("op", "get"),)),
    Counted("scans_total", "leafdb_requests_total", REQUESTS, (("op", "scan"),)),
    Counted("admin_total", "leafdb_requests_total", REQUESTS, (("op", "admin"),)),
    Counted("outcomes_unknown_total", "leafdb_outcomes_unknown_total", "Writes answered with an unknown outcome."),
    Counted("deadlines_exceeded_total", "leafdb_deadlines_exceeded_total", "Requests whose deadline passed."),
    Counted("failures_total", "leafdb_failures_total", "Requests answered with an error of leafdb itself."),
    Counted("blind_writes_total", "leafdb_blind_writes_total", "Puts without a context."),
    Counted("writes_recognised_total", "leafdb_writes_recognised_total", "Puts that were here already, by their ids."),
    Counted("forwards_total", "leafdb_forwards_total", "Requests passed on to a node that may coordinate them."),
    Counted("fallback_writes_total", "leafdb_fallback_writes_total", "Puts this node coordinated as a fallback."),
    Counted("reads_anew_total", "leafdb_reads_anew_total", "Reads begun anew by a purge horizon new to this node."),
    Counted("hedges_total", "leafdb_hedges_total", "Reads that asked one more replica because one was slow."),
    Counted("write_backs_total", "leafdb_write_backs_total", "Reads that wrote their merge back before answering."),
    Counted("session_waits_total", "leafdb_session_waits_total", "Requests for which r replicas had less than seen."),
    Counted("read_repairs_total", "leafdb_read_repairs_total", "Replicas sent a newer record after a read."),
    Counted("hints_stored_total", "leafdb_hints_total", HINTS, (("event", "stored"),)),
    Counted("hints_delivered_total", "leafdb_hints_total", HINTS, (("event", "delivered"),)),
    Counted("hints_expired_total", "leafdb_hints_total", HINTS, (("event", "expired"),)),
    Counted("hints_overflowed_total", "leafdb_hints_total", HINTS, (("event", "overflowed"),)),
    Counted("hints_handed_on_total", "leafdb_hints_total", HINTS, (("event", "handed_on"),)),
    Counted("hints_purged_total", "leafdb_hints_total", HINTS, (("event", "purged"),)),
    Counted("leftover_ranges_dropped_total", "leafdb_leftover_ranges_dropped_total", "Leftover partitions dropped."),
    Counted("leftover_records_dropped_total", "leafdb_leftover_records_dropped_total", "Leftover records dropped."),
    Counted(
        "losses_proved_total",
        "leafdb_losses_proved_total",
        "Exchanges that proved that this store had lost something it once confirmed.",
    ),
    Counted("records_forgotten_total", "leafdb_records_forgotten_total", "Dead records removed below the horizon."),
    Counted("siblings_left_out_total", "leafdb_siblings_left_out_total", "Siblings not taken in: forgotten by right."),
    Counted("exchanges_total", "leafdb_anti_entropy_exchanges_total", "Partitions compared with a peer to the end."),
    Counted("exchange_keys_differing_total", "leafdb_anti_entropy_keys_differing_total", "Keys found to differ."),
    Counted("exchange_keys_sent_total", "leafdb_anti_entropy_keys_total", SENT, (("direction", "sent"),)),
    Counted("exchange_keys_received_total", "leafdb_anti_entropy_keys_total", SENT, (("direction", "received"),)),
    Counted("records_restored_total", "leafdb_records_restored_total", "Records of backups taken in."),
    Counted("purge_proofs_begun_total", "leafdb_purge_proofs_total", PROOFS, (("event", "begun"),)),
    Counted("purge_proofs_made_total", "leafdb_purge_proofs_total", PROOFS, (("event", "made"),)),
    Counted("purge_proofs_refused_total", "leafdb_purge_proofs_total", PROOFS, (("event", "refused"),)),
    Counted("purge_horizons_raised_total", "leafdb_purge_horizons_raised_total", "Purge horizons this node raised."),
    Counted("hash_trees_rebuilt_total", "leafdb_hash_trees_rebuilt_total", "Hash trees built by a scan, and kept."),
    Counted("hash_trees_doubted_total", "leafdb_hash_trees_doubted_total", "Hash trees that disagreed with the store."),
    Counted("lost_ranges_total", "leafdb_lost_ranges_total", "Ranges of keys that damaged tables left to repair."),
    Counted("transfer_bytes_received_total", "leafdb_transfer_bytes_total", COPIED, (("direction", "received"),)),
    Counted("transfer_bytes_sent_total", "leafdb_transfer_bytes_total", COPIED, (("direction", "sent"),)),
    Counted("flushes_total", "leafdb_flushes_total", "Memtables brought into tables."),
    Counted("flushed_bytes_total", "leafdb_flushed_bytes_total", "Bytes of tables that flushes wrote."),
    Counted("compactions_total", "leafdb_compactions_total", "Compactions done."),
    Counted("compaction_bytes_read_total", "leafdb_compaction_bytes_total", COMPACTED, (("direction", "read"),)),
    Counted("compaction_bytes_written_total", "leafdb_compaction_bytes_total", COMPACTED, (("direction", "written"),)),
    Counted("tables_dropped_total", "leafdb_tables_dropped_total", "Tables dropped whole: all of it had expired."),
    Counted("tables_dropped_bytes_total", "leafdb_tables_dropped_bytes_total", "Bytes of tables dropped whole."),
    Counted("storage_jobs_failed_total", "leafdb_storage_jobs_failed_total", "Flushes and compactions that failed."),
    Counted(
        "verified_bytes_total",
        "leafdb_verified_bytes_total",
        "Bytes of the store read again to see that they are sound.",
    ),
    Counted(
        "damages_found_total", "leafdb_storage_damages_found_total", "Damaged places that reading again has found."
    ),
    Counted("sessions_opened_total", "leafdb_sessions_opened_total", "Sessions accepted or dialled."),
    Counted("sessions_refused_total", "leafdb_sessions_refused_total", "Connections refused for want of room."),
    Counted("handshakes_failed_total", "leafdb_handshakes_failed_total", "Sessions that ended before a welcome."),
    Counted("protocol_errors_total", "leafdb_protocol_errors_total", "Sessions closed for breaking the protocol."),
    Counted("callbacks_failed_total", "leafdb_callbacks_failed_total", "Callbacks that raised; each is logged."),
    Counted("received_bytes_total", "leafdb_received_bytes_total", "Bytes read from sessions."),
    Counted("sent_bytes_total", "leafdb_sent_bytes_total", "Bytes written to sessions."),
    Counted("metadata_installed_total", "leafdb_metadata_installed_total", "Versions of the metadata taken over."),
)


class Gauge(NamedTuple):
    """Something read at the moment of asking. With a label, the reader gives a value for each of its values."""

    metric: str
    help: str
    label: str = ""


GAUGES: Final = {
    "inflight_requests": Gauge("leafdb_inflight_requests", "Operations this node coordinates at the moment."),
    "pending_keys": Gauge("leafdb_pending_keys", "Keys whose record is being fetched from the disk."),
    "sessions": Gauge("leafdb_sessions", "Open sessions, by kind.", "kind"),
    "outbox_bytes": Gauge("leafdb_outbox_bytes", "Bytes queued to be sent, over all sessions."),
    "memory_bytes": Gauge("leafdb_memory_bytes", "Bytes the memory ledger has given out, by use.", "use"),
    "memory_limit_bytes": Gauge("leafdb_memory_limit_bytes", "What the ledger may give out."),
    "members": Gauge("leafdb_members", "Members as this node sees them, by state.", "state"),
    "ring_epoch": Gauge("leafdb_ring_epoch", "Epoch of the metadata in use; 0 before a cluster is joined."),
    "ring_owned_ratio": Gauge("leafdb_ring_owned_ratio", "Share of the partitions this node owns."),
    "hints_pending": Gauge("leafdb_hints_pending", "Hints held, by the name of the node they are for.", "target"),
    "hint_bytes": Gauge("leafdb_hint_bytes", "Bytes of hints held."),
    "hint_oldest_age": Gauge("leafdb_hint_oldest_age_seconds", "Age of the oldest hint held."),
    "repairs_pending": Gauge("leafdb_repairs_pending", "Partitions that wait for an exchange."),
    "repair_oldest_age": Gauge("leafdb_repair_oldest_age_seconds", "Age of the oldest proof that a range is equal."),
    "repair_ranges_over_age": Gauge("leafdb_repair_ranges_over_age", "Ranges not compared for longer than promised."),
    "purge_lag": Gauge("leafdb_purge_lag_seconds", "For how long the oldest tombstone led here waits to be forgotten."),
    "purge_waiting": Gauge("leafdb_purge_waiting_partitions", "Partitions led here where tombstones wait for a proof."),
    "purge_held_up": Gauge(
        "leafdb_purge_held_up_partitions", "Partitions led here that were held up, by reason.", "reason"
    ),
    "possible_losses": Gauge(
        "leafdb_possible_loss_partitions", "Partitions where writes may be lost, until it is read."
    ),
    "scrub_age": Gauge(
        "leafdb_scrub_age_seconds", "Since when the scrub under way reads the files of this node again."
    ),
    "damaged_tables": Gauge("leafdb_damaged_tables", "Tables found damaged that wait for their salvage."),
    "quarantined_bytes": Gauge("leafdb_quarantined_bytes", "Bytes of damaged tables kept for people."),
    "hash_trees_unknown": Gauge("leafdb_hash_trees_unknown", "Partitions of a bucket whose hash tree is to be built."),
    "deaths_due": Gauge("leafdb_deaths_due_partitions", "Partitions in which something is dead and still stored."),
    "oldest_death": Gauge("leafdb_oldest_death_age_seconds", "Age of the oldest death of what is still stored."),
    "leftover_ranges": Gauge("leafdb_leftover_ranges", "Partitions of a bucket held here that are others' to hold."),
    "transfers_left": Gauge("leafdb_transfer_exchanges_left", "Copies that the plan in progress waits for here."),
    "storage_bytes": Gauge("leafdb_storage_bytes", "Bytes on disk, by kind of file.", "kind"),
    "value_dead_bytes": Gauge("leafdb_value_dead_bytes", "Bytes in value files that nothing refers to any more."),
    "memtable_bytes": Gauge("leafdb_memtable_bytes", "Bytes in memtables, frozen ones included."),
    "tables": Gauge("leafdb_tables", "Tables in the store, by level.", "level"),
    "compaction_share": Gauge("leafdb_compaction_share", "Of the time, that a compaction may take beside requests."),
    "compaction_pending_bytes": Gauge("leafdb_compaction_pending_bytes", "Bytes compaction still has to rewrite."),
    "clock_drift": Gauge("leafdb_clock_drift_seconds", "Greatest drift seen from a peer's clock."),
}

DURATION_BOUNDS_S: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
TRANSPORT_COUNTERS: Final = {
    "sessions_opened_total": "sessions_opened_total",
    "sessions_refused_total": "sessions_refused_total",
    "handshakes_failed_total": "handshakes_failed_total",
    "protocol_errors_total": "protocol_errors_total",
    "callbacks_failed_total": "handler_errors_total",
    "received_bytes_total": "received_bytes_total",
    "sent_bytes_total": "sent_bytes_total",
}
"""What transport counts for itself: see `Metrics.follow`."""
STORAGE_COUNTERS: Final = {
    "flushes_total": "flushes",
    "flushed_bytes_total": "flushed_bytes",
    "compactions_total": "compactions",
    "compaction_bytes_read_total": "compaction_bytes_read",
    "compaction_bytes_written_total": "compaction_bytes_written",
    "tables_dropped_total": "dropped_tables",
    "tables_dropped_bytes_total": "dropped_bytes",
    "storage_jobs_failed_total": "failed_jobs",
    "verified_bytes_total": "verified_bytes",
    "damages_found_total": "damages_found",
}
"""What the engine counts for itself, in its `work`."""

SIBLING_BOUNDS: Final = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 64.0)


class Histogram:
    """Counts of observations by upper bound, the last for those beyond every bound."""

    __slots__ = ("bounds", "counts", "help", "labels", "metric", "total")

    def __init__(self, metric: str, help: str, bounds: tuple[float, ...], labels: Labels = ()) -> None:
        assert list(bounds) == sorted(set(bounds))
        self.metric: str = metric
        self.help: str = help
        self.labels: Labels = labels
        self.bounds: tuple[float, ...] = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
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

    def __init__(self) -> None:
        self.puts_total = 0
        self.gets_total = 0
        self.scans_total = 0
        self.admin_total = 0
        self.outcomes_unknown_total: int = 0
        self.deadlines_exceeded_total: int = 0
        self.failures_total: int = 0
        self.blind_writes_total = 0
        self.writes_recognised_total = 0
        self.forwards_total = 0
        self.fallback_writes_total = 0
        self.reads_anew_total = 0
        self.hedges_total = 0
        self.write_backs_total = 0
        self.session_waits_total = 0
        self.read_repairs_total = 0
        self.hints_stored_total = 0
        self.hints_delivered_total = 0
        self.hints_expired_total = 0
        self.hints_overflowed_total = 0
        self.hints_handed_on_total = 0
        self.hints_purged_total = 0
        self.leftover_ranges_dropped_total = 0
        self.leftover_records_dropped_total = 0
        self.losses_proved_total = 0
        self.records_forgotten_total = 0
        self.siblings_left_out_total = 0
        self.exchanges_total = 0
        self.exchange_keys_differing_total = 0
        self.exchange_keys_sent_total = 0
        self.exchange_keys_received_total = 0
        self.records_restored_total = 0
        self.purge_proofs_begun_total = 0
        self.purge_proofs_made_total = 0
        self.purge_proofs_refused_total = 0
        self.purge_horizons_raised_total = 0
        self.hash_trees_rebuilt_total = 0
        self.hash_trees_doubted_total = 0
        self.lost_ranges_total = 0
        self.transfer_bytes_received_total = 0
        self.transfer_bytes_sent_total = 0
        self.flushes_total = 0
        self.flushed_bytes_total = 0
        self.compactions_total = 0
        self.compaction_bytes_read_total = 0
        self.compaction_bytes_written_total = 0
        self.tables_dropped_total = 0
        self.tables_dropped_bytes_total = 0
        self.storage_jobs_failed_total = 0
        self.verified_bytes_total = 0
        self.damages_found_total = 0
        self.sessions_opened_total = 0
        self.sessions_refused_total = 0
        self.handshakes_failed_total = 0
        self.protocol_errors_total = 0
        self.callbacks_failed_total = 0
        self.received_bytes_total = 0
        self.sent_bytes_total = 0
        self.metadata_installed_total = 0
        self.rejected: dict[str, int] = {str(reason): 0 for reason in Reason}
        """Refusals by reason. All reasons are there from the start, so that a rate over them has a beginning."""
        self.put_duration: Histogram = _duration("leafdb_request_duration_seconds", "Coordinating one request.", "put")
        self.get_duration: Histogram = _duration("leafdb_request_duration_seconds", "Coordinating one request.", "get")
        self.wal_sync_duration: Histogram = _duration("leafdb_wal_sync_duration_seconds", "One fdatasync of the WAL.")
        self.loop_lag: Histogram = _duration(
            "leafdb_event_loop_lag_seconds", "How late the event loop wakes a sleeper."
        )
        self.siblings: Histogram = Histogram("leafdb_siblings_per_key", "Live siblings a read found.", SIBLING_BOUNDS)
        self._elsewhere: dict[str, tuple[object, str]] = {}
        self._readers: dict[str, Callable[[], float | Mapping[str, float]]] = {}
        self._labelled: dict[str, Labels] = {}

    @property
    def histograms(self) -> tuple[Histogram, ...]:
        """All of them; those of one metric are neighbours."""
        return (self.put_duration, self.get_duration, self.wal_sync_duration, self.loop_lag, self.siblings)

    def refused(self, error: LeafdbError) -> None:
        """A request was answered with `error`."""
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

    def counter(self, attribute: str) -> int:
        """A counter as it stands."""
        source, name = self._elsewhere.get(attribute, (self, attribute))
        count: int = getattr(source, name)
        return count

    def counters(self) -> dict[str, int]:
        """Every counter by its attribute's name."""
        return {counted.attribute: self.counter(counted.attribute) for counted in COUNTERS}

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


def _duration(metric: str, help: str, op: str = "") -> Histogram:
    return Histogram(metric, help, DURATION_BOUNDS_S, (("op", op),) if op else ())
