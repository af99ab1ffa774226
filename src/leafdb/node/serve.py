"""A node as a process runs it: the real world around it, and pages for machines that watch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Final

import trio

from leafdb.config import Config
from leafdb.errors import ConfigError
from leafdb.node.bell import Bell
from leafdb.node.clock_watch import ClockWatch
from leafdb.node.collector import pauses_measured
from leafdb.node.coordinator import Requester
from leafdb.node.endings import STOPPED
from leafdb.node.gauges import watch
from leafdb.node.http import Check, HttpPages
from leafdb.node.interpreter import calm_interpreter
from leafdb.node.metrics_page import MetricsPage
from leafdb.node.node import Node
from leafdb.node.real_world import real_world
from leafdb.node.request_times import NEVER_S
from leafdb.node.secret import read_secret
from leafdb.node.settings_in_force import SettingsInForce
from leafdb.node.tenure import empty_store
from leafdb.wire.traced import TraceContext

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
        tls_told = node.tls.problems() + node.tls.notices()
        checks += [
            Check("disk", not stats.disk_full, f"{stats.disk_free_bytes} bytes free"),
            Check("memory", not node.memory.full, f"{node.memory.held_bytes} of {node.memory.bytes_max} bytes"),
            Check("complete", not incomplete, f"{incomplete} partitions are being resynchronised"),
            Check("hints", not hints, f"{hints} hints wait for delivery"),
            Check("repair", not node.anti_entropy.pending, f"{node.anti_entropy.pending} exchanges are owed"),
            Check("age", not schedule.too_old(), "; ".join(schedule.problems())),
            Check("losses", not lost, f"writes may be lost in {lost} partitions"),
            Check("deletions", not returned, f"deleted values may be back in {returned} partitions"),
            Check("secure", not node.config.auth.insecure, "no accounts, or no encryption: [auth] insecure is set"),
            Check("tls", not tls_told, "; ".join(tls_told)),
        ]
        return checks


async def serve(
    config: Config,
    *,
    bell: Bell,
    on_ready: Callable[[], None],
    drain: trio.Event,
    stop: trio.Event,
    settings: SettingsInForce | None = None,
) -> int:
    """Run a node on this machine until it has stopped; the exit code. Raises what kept it from running.

    `settings`: where the configuration came from, and who reads it again. `bell` is rung when files are to be read
    again.
    """
    secret = read_secret(config.cluster.secret_file)
    calm_interpreter()
    while True:
        node = await _live(config, secret, bell, on_ready, drain, stop, settings)
        if not node.tenure.begins_anew:
            return STOPPED
        # Nothing of the node runs any more, its worker has ended: the directory is nobody's but ours.
        await trio.to_thread.run_sync(empty_store, node)


async def _live(
    config: Config,
    secret: bytes,
    bell: Bell,
    on_ready: Callable[[], None],
    drain: trio.Event,
    stop: trio.Event,
    settings: SettingsInForce | None,
) -> Node:
    """One life of the node, on the store as it is; the node, when that is over."""
    async with real_world(config.node.data_dir) as world:
        node = Node(config, replace(world, settings=settings), secret)
        health, clocks = Health(node), ClockWatch(node)
        pages = HttpPages(health, MetricsPage(node.metrics).render)
        http = config.listen.http
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(http.port, host=http.host)
            nursery.start_soon(trio.serve_listeners, pages.handle, listeners)
            nursery.start_soon(health.run)
            nursery.start_soon(node.tls.watch, bell)

            async def watched() -> None:
                await ready.wait()
                watch(node)
                node.coordinator.follow_trace = trace_follower(node)
                node.metrics.watch("clock_skew", clocks.skews)
                nursery.start_soon(clocks.run, name="clock watch")
                if settings is not None:
                    settings.follow(partial(take_settings, node))
                on_ready()

            ready = trio.Event()
            nursery.start_soon(watched)
            with pauses_measured(node.metrics.gc_pause, world.now):
                await node.run(drain=drain, stop=stop, on_ready=ready.set)
            nursery.cancel_scope.cancel()
    return node


def trace_follower(node: Node) -> Callable[[Requester, TraceContext, int, bytes], Requester] | None:
    """Who makes spans of traced requests, if that is wanted. Raises ConfigError when it cannot be."""
    if not node.config.log.traces:
        return None
    try:
        from leafdb.node import tracing
    except ModuleNotFoundError as error:
        raise ConfigError(f"log.traces: {error.name} is missing: install leafdb[otel]") from None
    return tracing.follower(node)


def take_settings(node: Node, config: Config) -> None:
    """Have a running node go by what may change while it runs."""
    times = node.coordinator.times
    times.slow_s = config.log.slow_request_s or NEVER_S
    times.show_keys = config.log.show_keys
    node.clients.allow(config.limits.client_sessions_max)
