"""The reader of every gauge of a running node. They are called when somebody asks, on the event loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from leafdb.model.hlc import LOGICAL_BITS, stamp_ms
from leafdb.node.admin_cluster import state_of
from leafdb.node.logs import lines_left_out
from leafdb.node.short_ranges import ShortRanges

if TYPE_CHECKING:
    from leafdb.node.node import Node


def watch(node: Node) -> None:
    """Name the reader of every gauge."""
    _watch_requests(node)
    _watch_cluster(node)
    _watch_hints(node)
    _watch_repair(node)
    _watch_purge(node)
    _watch_storage(node)
    node.metrics.info("leafdb_build_info", version=node.version)


def _watch_requests(node: Node) -> None:
    watch = node.metrics.watch
    watch("inflight_requests", lambda: len(node.coordinator.operations))
    watch("pending_keys", lambda: node.replica.pending_keys)
    watch("sessions", lambda: {"client": len(node.clients.sessions), "all": len(node.pump.sessions)})
    watch("outbox_bytes", lambda: sum(session.outbox_bytes for session in node.pump.sessions))
    watch("memory_bytes", lambda: {line.holder: line.held_bytes for line in node.memory.read()})
    watch("memory_limit_bytes", lambda: node.memory.bytes_max)
    node.metrics.follow(lines_left_out(), {"log_lines_left_out_total": "left_out_total"})


def _watch_cluster(node: Node) -> None:
    def members() -> Mapping[str, float]:
        states = {"alive": 0.0, "suspect": 0.0, "dead": 0.0}
        for member in node.view.metadata.members if node.view.metadata else ():
            states[state_of(node, member).value] += 1
        return states

    def owned() -> float:
        metadata = node.view.metadata
        return metadata.owners.count(node.view.self_id) / metadata.partitions if metadata else 0.0

    watch, short = node.metrics.watch, ShortRanges()
    watch("members", members)
    watch("ring_epoch", lambda: node.view.epoch)
    watch("ring_owned_ratio", owned)
    watch("ranges_short", lambda: short.read(node.view))
    watch("transfers_left", lambda: node.transfers.progress.copies.pending)
    watch("leftover_ranges", lambda: node.estate.leftovers.ranges)


def _watch_hints(node: Node) -> None:
    ledger, now_ms = node.hints.ledger, node.world.now_ms

    def oldest() -> float:
        born = [line.oldest_ms for line in ledger.summaries()]
        return max(0.0, (now_ms() - min(born)) / 1000) if born else 0.0

    watch = node.metrics.watch
    watch("hints_pending", lambda: {node.view.name_of(line.target): line.records for line in ledger.summaries()})
    watch("hint_bytes", lambda: ledger.bytes)
    watch("hint_oldest_age", oldest)
    watch("hint_age_limit", lambda: node.config.repair.hint_age_max_s)


def _watch_repair(node: Node) -> None:
    watch, schedule, losses = node.metrics.watch, node.anti_entropy.schedule, node.anti_entropy.losses
    watch("repairs_pending", lambda: node.anti_entropy.pending)
    watch("repair_oldest_age", schedule.oldest_s)
    watch("repair_ranges_over_age", lambda: sum(line.ranges for line in schedule.too_old()))
    watch("possible_losses", lambda: losses.partitions)
    watch("hash_trees_unknown", lambda: len(node.trees.kept.unknown))


def _watch_purge(node: Node) -> None:
    now_ms = node.world.now_ms

    def dead() -> list[int]:
        return node.sweeper.dead_since(now_ms() << LOGICAL_BITS)

    watch, driver = node.metrics.watch, node.purge.driver
    watch("purge_lag", driver.lag_s)
    watch("purge_waiting", lambda: len(driver.waiting()))
    watch("purge_held_up", driver.held_up)
    watch("deaths_due", lambda: len(dead()))
    watch("oldest_death", lambda: max((now_ms() - stamp_ms(since) for since in dead()), default=0) / 1000)


def _watch_storage(node: Node) -> None:
    watch, stats = node.metrics.watch, node.engine.stats
    watch("storage_bytes", lambda: {"tables": stats().table_bytes, "values": stats().value_bytes})
    watch("value_dead_bytes", lambda: stats().value_dead_bytes)
    watch("memtable_bytes", lambda: stats().memtable_bytes + stats().frozen_bytes + stats().flushed_bytes)
    watch("scrub_age", node.scrubber.age_s)
    watch("damaged_tables", lambda: stats().damaged_tables)
    watch("quarantined_bytes", lambda: stats().quarantined_bytes)
    watch("write_debt", lambda: stats().debt)
    watch("reads_pending", lambda: stats().reads_pending)
    watch("snapshots", lambda: stats().snapshots)
    watch("snapshot_bytes", lambda: stats().snapshot_bytes_held)
    watch("compaction_share", lambda: stats().compaction_share)
    watch("compaction_pending_bytes", lambda: node.engine.survey().debt_bytes)
    watch("certificate_expiry", node.tls.expiry)
    watch("tables", lambda: {"0": stats().level0_tables, "all": stats().tables})
    watch("disk_bytes", node.world.disk_bytes)
    watch("disk_free_bytes", lambda: stats().disk_free_bytes)
    node.engine.follow_syncs(node.metrics.wal_sync_duration.observe)
