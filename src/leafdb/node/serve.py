"""A node as a process runs it: the real world around it, and pages for machines that watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

import trio

from leafdb.config import Config
from leafdb.model.hlc import LOGICAL_BITS, stamp_ms
from leafdb.node.admin_cluster import state_of
from leafdb.node.endings import STOPPED
from leafdb.node.http import Check, HttpPages
from leafdb.node.interpreter import calm_interpreter
from leafdb.node.metrics_page import MetricsPage
from leafdb.node.node import Node
from leafdb.node.real_world import real_world
from leafdb.node.secret import read_secret
from leafdb.node.tenure import empty_store

LIVE_WITHIN_S: Final = 5.0
LAG_INTERVAL_S: Final = 0.1


class Health:
    """What a node says of itself on its pages. Liveness is the loop's own turning, never a peer or a quorum."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._turned_at = node.world.now()

    async def run(self) -> None:
        """Turn, and note how late the loop woke us."""
        now = self._node.world.now
        while True:
            due = now() + LAG_INTERVAL_S
            await trio.sleep(LAG_INTERVAL_S)
            self._turned_at = now()
            self._node.metrics.loop_lag.observe(self._turned_at - due)

    def live(self) -> bool:
        """The event loop turns."""
        return self._node.world.now() - self._turned_at < LIVE_WITHIN_S

    def ready(self) -> tuple[bool, str]:
        """Serving, part of a cluster, not draining."""
        node = self._node
        if node.draining:
            return False, "draining"
        if not node.ready:
            return False, "starting"
        if node.view.ring is None:
            return False, "not part of a cluster yet"
        return True, "serving"

    def checks(self) -> Sequence[Check]:
        """Everything that can be wrong here."""
        node = self._node
        checks = [Check("loop", self.live()), Check("ready", *self.ready())]
        if not node.ready:
            return checks
        stats = node.engine.stats()
        schedule, lost = node.anti_entropy.schedule, node.anti_entropy.possible_losses
        returned = node.anti_entropy.losses.returned
        incomplete = len(set(chain(*node.anti_entropy.unsure.values())))
        hints = sum(summary.records for summary in node.hints.ledger.summaries())
        checks += [
            Check("disk", not stats.disk_full, f"{stats.disk_free_bytes} bytes free"),
            Check("memory", not node.memory.full, f"{node.memory.held_bytes} of {node.memory.bytes_max} bytes"),
            Check("complete", not incomplete, f"{incomplete} partitions are being resynchronised"),
            Check("hints", not hints, f"{hints} hints wait for delivery"),
            Check("repair", not node.anti_entropy.pending, f"{node.anti_entropy.pending} exchanges are owed"),
            Check("age", not schedule.too_old(), "; ".join(schedule.problems())),
            Check("losses", not lost, f"writes may be lost in {lost} partitions"),
            Check("deletions", not returned, f"deleted values may be back in {returned} partitions"),
            Check("secure", not node.config.auth.insecure, "no encryption, no accounts: [auth] insecure is set"),
        ]
        return checks


def watch(node: Node) -> None:
    """Name the reader of every gauge."""
    metrics, stats, now_ms = node.metrics, node.engine.stats, node.world.now_ms

    def members() -> Mapping[str, float]:
        states = {"alive": 0.0, "suspect": 0.0, "dead": 0.0}
        for member in node.view.metadata.members if node.view.metadata else ():
            states[state_of(node, member).value] += 1
        return states

    def owned() -> float:
        metadata = node.view.metadata
        return metadata.owners.count(node.view.self_id) / metadata.partitions if metadata else 0.0

    def hints() -> Mapping[str, float]:
        return {node.view.name_of(line.target): line.records for line in node.hints.ledger.summaries()}

    def oldest() -> float:
        born = [line.oldest_ms for line in node.hints.ledger.summaries()]
        return max(0.0, (now_ms() - min(born)) / 1000) if born else 0.0

    def dead() -> list[int]:
        return node.sweeper.dead_since(now_ms() << LOGICAL_BITS)

    metrics.watch("inflight_requests", lambda: len(node.coordinator.operations))
    metrics.watch("pending_keys", lambda: node.replica.pending_keys)
    metrics.watch("sessions", lambda: {"client": len(node.clients.sessions), "all": len(node.pump.sessions)})
    metrics.watch("outbox_bytes", lambda: sum(session.outbox_bytes for session in node.pump.sessions))
    metrics.watch("memory_bytes", lambda: {line.holder: line.held_bytes for line in node.memory.read()})
    metrics.watch("memory_limit_bytes", lambda: node.memory.bytes_max)
    metrics.watch("members", members)
    metrics.watch("ring_epoch", lambda: node.view.epoch)
    metrics.watch("ring_owned_ratio", owned)
    metrics.watch("hints_pending", hints)
    metrics.watch("hint_bytes", lambda: node.hints.ledger.bytes)
    metrics.watch("hint_oldest_age", oldest)
    metrics.watch("repairs_pending", lambda: node.anti_entropy.pending)
    schedule, losses = node.anti_entropy.schedule, node.anti_entropy.losses
    metrics.watch("repair_oldest_age", schedule.oldest_s)
    metrics.watch("repair_ranges_over_age", lambda: sum(line.ranges for line in schedule.too_old()))
    metrics.watch("purge_lag", node.purge.driver.lag_s)
    metrics.watch("purge_waiting", lambda: len(node.purge.driver.waiting()))
    metrics.watch("purge_held_up", node.purge.driver.held_up)
    metrics.watch("possible_losses", lambda: losses.partitions)
    metrics.watch("hash_trees_unknown", lambda: len(node.trees.kept.unknown))
    metrics.watch("deaths_due", lambda: len(dead()))
    metrics.watch("oldest_death", lambda: max((now_ms() - stamp_ms(since) for since in dead()), default=0) / 1000)
    metrics.watch("leftover_ranges", lambda: node.estate.leftovers.ranges)
    metrics.watch("transfers_left", lambda: node.transfers.progress.copies.pending)
    metrics.watch("storage_bytes", lambda: {"tables": stats().table_bytes, "values": stats().value_bytes})
    metrics.watch("value_dead_bytes", lambda: stats().value_dead_bytes)
    metrics.watch("memtable_bytes", lambda: stats().memtable_bytes + stats().frozen_bytes)
    metrics.watch("scrub_age", node.scrubber.age_s)
    metrics.watch("damaged_tables", lambda: stats().damaged_tables)
    metrics.watch("quarantined_bytes", lambda: stats().quarantined_bytes)
    metrics.watch("compaction_share", lambda: stats().compaction_share)
    metrics.watch("compaction_pending_bytes", lambda: node.engine.survey().debt_bytes)
    metrics.watch("tables", lambda: {"0": stats().level0_tables, "all": stats().tables})
    metrics.info("leafdb_build_info", version=node.version)


async def serve(config: Config, *, on_ready: Callable[[], None], drain: trio.Event, stop: trio.Event) -> int:
    """Run a node on this machine until it has stopped; the exit code. Raises what kept it from running."""
    secret = read_secret(config.cluster.secret_file)
    calm_interpreter()
    while True:
        node = await _live(config, secret, on_ready, drain, stop)
        if not node.tenure.begins_anew:
            return STOPPED
        # Nothing of the node runs any more, its worker has ended: the directory is nobody's but ours.
        await trio.to_thread.run_sync(empty_store, node)


async def _live(
    config: Config, secret: bytes, on_ready: Callable[[], None], drain: trio.Event, stop: trio.Event
) -> Node:
    """One life of the node, on the store as it is; the node, when that is over."""
    async with real_world(config.node.data_dir) as world:
        node = Node(config, world, secret)
        health = Health(node)
        pages = HttpPages(health, MetricsPage(node.metrics).render)
        http = config.listen.http
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(http.port, host=http.host)
            nursery.start_soon(trio.serve_listeners, pages.handle, listeners)
            nursery.start_soon(health.run)

            async def watched() -> None:
                await ready.wait()
                watch(node)
                on_ready()

            ready = trio.Event()
            nursery.start_soon(watched)
            await node.run(drain=drain, stop=stop, on_ready=ready.set)
            nursery.cancel_scope.cancel()
    return node
