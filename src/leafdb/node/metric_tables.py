"""What a node counts, said once: every counter, gauge and histogram with its name, its labels and a line of help.

The registry behind `/metrics`, the admin verb `stats`, docs/operations/metrics.md, the dashboards and the alert rules
are all made from these tables, and tests hold them and the attributes of `Metrics` together. Labels are small closed
sets; never a key, never an address.

Beside these stand what the process counts of itself (`leafdb_process_...`), the refusals by reason and the version.
"""

from __future__ import annotations

from typing import Final, NamedTuple

Labels = tuple[tuple[str, str], ...]


class Counted(NamedTuple):
    """One counter attribute and the sample it becomes."""

    attribute: str
    metric: str
    help: str
    labels: Labels = ()


REQUESTS: Final = "Requests of clients answered without error, by operation."
SHORT: Final = (
    "Puts and gets that too few replicas answered or could have: refused, out of time, or of unknown outcome."
)
HINTS: Final = "Hints, by what became of them."
SENT: Final = "Records that anti-entropy gave to peers or took from them."
PROOFS: Final = "Proofs that deleted data may be forgotten: begun here; made, of a partition at least; come to nothing."
COPIED: Final = "Bytes of records copied for changes of the ring: taken by receivers, and shown to those who pull."
LOGINS: Final = "Logins of clients: let in; rejected, by user, password or token; turned away before they were judged."
CACHED: Final = "Blocks of tables that reads wanted: found in memory, or not."
COMPACTED: Final = "Bytes of tables that compactions took in, and that they made."

COUNTERS: Final = (
    Counted("puts_total", "leafdb_requests_total", REQUESTS, (("op", "put"),)),
    Counted("gets_total", "leafdb_requests_total", REQUESTS, (("op", "get"),)),
    Counted("scans_total", "leafdb_requests_total", REQUESTS, (("op", "scan"),)),
    Counted("admin_total", "leafdb_requests_total", REQUESTS, (("op", "admin"),)),
    Counted("put_shortfalls_total", "leafdb_quorum_shortfalls_total", SHORT, (("op", "put"),)),
    Counted("get_shortfalls_total", "leafdb_quorum_shortfalls_total", SHORT, (("op", "get"),)),
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
    Counted("block_cache_hits_total", "leafdb_block_cache_total", CACHED, (("result", "hit"),)),
    Counted("block_cache_misses_total", "leafdb_block_cache_total", CACHED, (("result", "miss"),)),
    Counted(
        "reads_refused_total", "leafdb_storage_reads_refused_total", "Reads refused: too many waited for the disk."
    ),
    Counted("writes_held_total", "leafdb_storage_writes_refused_total", "Writes put off until flushes have caught up."),
    Counted("sessions_opened_total", "leafdb_sessions_opened_total", "Sessions accepted or dialled."),
    Counted("sessions_refused_total", "leafdb_sessions_refused_total", "Connections refused for want of room."),
    Counted("handshakes_failed_total", "leafdb_handshakes_failed_total", "Sessions that ended before a welcome."),
    Counted("logins_accepted_total", "leafdb_logins_total", LOGINS, (("result", "accepted"),)),
    Counted("logins_rejected_total", "leafdb_logins_total", LOGINS, (("result", "rejected"),)),
    Counted("logins_turned_away_total", "leafdb_logins_total", LOGINS, (("result", "turned_away"),)),
    Counted("protocol_errors_total", "leafdb_protocol_errors_total", "Sessions closed for breaking the protocol."),
    Counted("callbacks_failed_total", "leafdb_callbacks_failed_total", "Callbacks that raised; each is logged."),
    Counted("received_bytes_total", "leafdb_received_bytes_total", "Bytes read from sessions."),
    Counted("sent_bytes_total", "leafdb_sent_bytes_total", "Bytes written to sessions."),
    Counted("metadata_installed_total", "leafdb_metadata_installed_total", "Versions of the metadata taken over."),
    Counted("log_lines_left_out_total", "leafdb_log_lines_left_out_total", "Log lines not written: repeats of others."),
    Counted("slow_requests_total", "leafdb_slow_requests_total", "Requests that took longer than log.slow_request."),
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
    "disk_bytes": Gauge("leafdb_disk_bytes", "Size of the file system that holds the data."),
    "disk_free_bytes": Gauge("leafdb_disk_free_bytes", "Of these, what is free for this node."),
    "members": Gauge("leafdb_members", "Members as this node sees them, by state.", "state"),
    "ring_epoch": Gauge("leafdb_ring_epoch", "Epoch of the metadata in use; 0 before a cluster is joined."),
    "ring_owned_ratio": Gauge("leafdb_ring_owned_ratio", "Share of the partitions this node owns."),
    "ranges_short": Gauge(
        "leafdb_ranges_short",
        "Ranges held here with too few replicas there for their bucket's r or w, by operation.",
        "op",
    ),
    "hints_pending": Gauge("leafdb_hints_pending", "Hints held, by the name of the node they are for.", "target"),
    "hint_bytes": Gauge("leafdb_hint_bytes", "Bytes of hints held."),
    "hint_oldest_age": Gauge("leafdb_hint_oldest_age_seconds", "Age of the oldest hint held."),
    "hint_age_limit": Gauge("leafdb_hint_age_limit_seconds", "Age at which a hint is given up: repair.hint_age_max."),
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
    "memtable_bytes": Gauge("leafdb_memtable_bytes", "Bytes in memtables, frozen and flushed ones included."),
    "tables": Gauge("leafdb_tables", "Tables in the store, by level.", "level"),
    "write_debt": Gauge(
        "leafdb_write_debt_ratio", "How far flushes are behind: above 0 writes slow down, 1 stops them."
    ),
    "reads_pending": Gauge("leafdb_storage_reads_pending", "Reads that wait for the disk."),
    "snapshots": Gauge("leafdb_snapshots", "Snapshots of the store."),
    "snapshot_bytes": Gauge("leafdb_snapshot_bytes", "Bytes on disk that are there for snapshots alone."),
    "compaction_share": Gauge("leafdb_compaction_share", "Of the time, that a compaction may take beside requests."),
    "compaction_pending_bytes": Gauge("leafdb_compaction_pending_bytes", "Bytes compaction still has to rewrite."),
    "certificate_expiry": Gauge(
        "leafdb_tls_certificate_not_after_seconds", "When a TLS certificate runs out, in unix time.", "certificate"
    ),
    "clock_skew": Gauge(
        "leafdb_clock_skew_seconds", "By how much a peer's clock is ahead of this node's; negative: behind.", "peer"
    ),
}

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
    "block_cache_hits_total": "block_cache_hits",
    "block_cache_misses_total": "block_cache_misses",
    "reads_refused_total": "reads_refused",
    "writes_held_total": "writes_held",
}
"""What the engine counts for itself, in its `work`."""

DURATION_BOUNDS_S: Final = (
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
SIBLING_BOUNDS: Final = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 40.0, 64.0)
VALUE_BOUNDS_BYTES: Final = tuple(float(64 << power) for power in range(0, 15, 2))


class Measured(NamedTuple):
    """One histogram attribute and what it measures."""

    attribute: str
    metric: str
    help: str
    bounds: tuple[float, ...] = DURATION_BOUNDS_S
    labels: Labels = ()


ANSWERED: Final = "How long it took this node to answer a request of a client, those without error, by operation."
ASKED: Final = "How long another node took to answer as a replica, network included, by operation."

HISTOGRAMS: Final = (
    Measured("put_duration", "leafdb_request_duration_seconds", ANSWERED, labels=(("op", "put"),)),
    Measured("get_duration", "leafdb_request_duration_seconds", ANSWERED, labels=(("op", "get"),)),
    Measured("forward_duration", "leafdb_request_duration_seconds", ANSWERED, labels=(("op", "forward"),)),
    Measured("scan_duration", "leafdb_request_duration_seconds", ANSWERED, labels=(("op", "scan"),)),
    Measured("admin_duration", "leafdb_request_duration_seconds", ANSWERED, labels=(("op", "admin"),)),
    Measured("replica_put_duration", "leafdb_replica_request_duration_seconds", ASKED, labels=(("op", "put"),)),
    Measured("replica_get_duration", "leafdb_replica_request_duration_seconds", ASKED, labels=(("op", "get"),)),
    Measured("wal_sync_duration", "leafdb_wal_sync_duration_seconds", "One fdatasync of the WAL."),
    Measured("loop_lag", "leafdb_event_loop_lag_seconds", "How late the event loop wakes a sleeper."),
    Measured("gc_pause", "leafdb_gc_pause_seconds", "One run of Python's cyclic garbage collector: nothing else runs."),
    Measured("siblings", "leafdb_siblings_per_key", "Live siblings a read found.", SIBLING_BOUNDS),
    Measured("value_bytes", "leafdb_put_value_bytes", "Size of the values that puts brought.", VALUE_BOUNDS_BYTES),
)
"""Those of one metric are neighbours."""

REJECTED: Final = "leafdb_rejected_total"
REJECTED_HELP: Final = "Requests refused before anything was applied, by reason."
BUILD_INFO: Final = "leafdb_build_info"


def labels_of() -> dict[str, frozenset[str]]:
    """The labels each metric of the tables has, for whoever asks for metrics by name: queries of dashboards, rules."""
    found = {counted.metric: frozenset(name for name, _ in counted.labels) for counted in COUNTERS}
    found |= {gauge.metric: frozenset({gauge.label} - {""}) for gauge in GAUGES.values()}
    found |= {measured.metric: frozenset(name for name, _ in measured.labels) for measured in HISTOGRAMS}
    return found | {REJECTED: frozenset({"reason"}), BUILD_INFO: frozenset({"version"})}
