"""One benchmark from beginning to end: bucket, preload, warm-up, measured run, figures, and nothing left behind."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal

from leafdb.errors import ConfigError, ConnectFailed
from leafdb_cli.workloads.connections import Connections, Manner
from leafdb_cli.workloads.generator import Generator
from leafdb_cli.workloads.keyspace import Keyspace
from leafdb_cli.workloads.machine import CpuMeter, server_pids, sync_ms
from leafdb_cli.workloads.mixes import Mix, mix_named

if TYPE_CHECKING:
    from leafdb.client import bare
    from leafdb.client.sync_client import Client

WARM_UP_SHARE: Final = 0.15
WARM_UP_S_MAX: Final = 3.0
PRELOAD_LANES: Final = 8
REQUEST_DEADLINE_MS: Final = 5_000
DROP_TIMEOUT_S: Final = 10.0
TICK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for."""

    workload: str
    connections: int = 48
    value_size: int = 100
    duration_s: float = 20.0
    keys: int = 100_000
    n: int = 3
    r: int = 2
    w: int = 2
    durability: Literal["always", "periodic"] = "periodic"
    seed: int = 0
    sync_directory: str | None = None

    def check(self) -> None:
        """Raise ConfigError for what makes no sense."""
        problems = []
        if not 1 <= self.connections <= 10_000:
            problems.append("connections are 1 to 10000")
        if not 1 <= self.value_size <= 1 << 20:
            problems.append("a value has 1 byte to 1 MiB")
        if not 1 <= self.keys <= 10_000_000:
            problems.append("keys are 1 to 10000000")
        if not 0 < self.duration_s <= 86_400:
            problems.append("a run takes more than nothing and at most a day")
        if self.connections > self.keys:
            problems.append("there are fewer keys than connections")
        if problems:
            raise ConfigError("; ".join(problems), problems=problems)


Tell = Callable[[str, float, float], None]
"""(phase, done, total) of what takes a while."""


def run(client: Client, plan: Plan, tell: Tell, manner: Manner | None = None) -> dict[str, Any]:
    """Run it; the figures. `manner`: how the generator connects, as `client` does. Raises LeafdbError."""
    mix = mix_named(plan.workload)
    plan.check()
    nodes = [node for node in client.admin("node.list")["nodes"] if node["state"] == "alive"]
    if not nodes:
        raise ConnectFailed("no node is alive")
    synced_ms = sync_ms(plan.sync_directory) if plan.durability == "always" else None
    with _bucket(client, plan) as bucket_reply:
        figures = _measure(client, plan, mix, nodes, bucket_reply, tell, manner)
    figures["fdatasync_p50_ms"] = None if synced_ms is None else round(synced_ms, 3)
    return figures


@contextmanager
def _bucket(client: Client, plan: Plan) -> Iterator[Mapping[str, Any]]:
    name = f"bench-{time.time_ns():x}"
    client.create_bucket(name, n=plan.n, r=plan.r, w=plan.w, durability=plan.durability)
    try:
        yield client.admin("bucket.get", {"name": name})
    finally:
        client.drop_bucket(name, timeout=DROP_TIMEOUT_S)


def _measure(
    client: Client,
    plan: Plan,
    mix: Mix,
    nodes: list[Mapping[str, Any]],
    bucket_reply: Mapping[str, Any],
    tell: Tell,
    manner: Manner | None,
) -> dict[str, Any]:
    from leafdb.client import bare

    placement = bare.Placement(client.admin("ring"))
    bucket = bare.Bucket(bucket_reply, epoch=placement.epoch, r=plan.r, w=plan.w, deadline_ms=REQUEST_DEADLINE_MS)
    addresses = [str(node["client"]) for node in nodes]
    keys = Keyspace(bucket, placement, addresses, plan.keys)
    rng = Random(plan.seed or None)
    if mix.preloads:
        with _generator(plan, addresses, bucket, keys, rng, PRELOAD_LANES, manner) as generator:
            generator.preload(_ticker("preload", plan.keys, tell))
    with _generator(plan, addresses, bucket, keys, rng, 1, manner) as generator:
        warm_up_s = min(WARM_UP_S_MAX, plan.duration_s * WARM_UP_SHARE)
        generator.run(mix, warm_up_s, _clock("warm-up", warm_up_s, tell))
        # The generator makes no cycles; a collection over its tables would show as a pause of the servers.
        gc.collect()
        gc.freeze()
        servers = CpuMeter(server_pids(nodes))
        own = time.process_time()
        seconds = generator.run(mix, plan.duration_s, _clock(plan.workload, plan.duration_s, tell))
        client_s = time.process_time() - own
        server_s = servers.spent_s()
        gc.unfreeze()
        figures = _figures(plan, generator, seconds, client_s, server_s)
        generator.drain()
    return figures


def _figures(
    plan: Plan, generator: Generator, seconds: float, client_s: float, server_s: float | None
) -> dict[str, Any]:
    histogram = generator.histogram
    done = histogram.count
    return {
        "workload": plan.workload,
        "connections": plan.connections,
        "ops_per_s": round(done / seconds, 1),
        "p50_ms": histogram.percentile_ms(50),
        "p99_ms": histogram.percentile_ms(99),
        "p999_ms": histogram.percentile_ms(99.9),
        "errors": sum(generator.errors.values()),
        "client_cpu_us_per_op": round(client_s / done * 1e6, 1) if done else None,
        "server_cpu_us_per_op": round(server_s / done * 1e6, 1) if done and server_s is not None else None,
        "durability": plan.durability,
        "value_size": plan.value_size,
        "keys": plan.keys,
        "n": plan.n,
        "r": plan.r,
        "w": plan.w,
        "seconds": round(seconds, 2),
        "ops": done,
        "errors_by_reason": dict(generator.errors),
    }


@contextmanager
def _generator(
    plan: Plan,
    addresses: list[str],
    bucket: bare.Bucket,
    keys: Keyspace,
    rng: Random,
    lanes: int,
    manner: Manner | None,
) -> Iterator[Generator]:
    connections = Connections([_endpoint(address) for address in addresses], plan.connections, lanes, manner)
    try:
        yield Generator(connections, bucket, keys, plan.value_size, rng)
    finally:
        connections.close()


def _endpoint(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _ticker(phase: str, total: int, tell: Tell) -> Callable[[int], None]:
    """Tell about operations done, now and then."""
    next_at = 0.0

    def tick(done: int) -> None:
        nonlocal next_at
        now = time.perf_counter()
        if now >= next_at or done >= total:
            next_at = now + TICK_S
            tell(phase, done, total)

    return tick


def _clock(phase: str, total_s: float, tell: Tell) -> Callable[[int], None]:
    """Tell about seconds passed, now and then."""
    started = time.perf_counter()
    next_at = 0.0

    def tick(_: int) -> None:
        nonlocal next_at
        now = time.perf_counter()
        if now >= next_at:
            next_at = now + TICK_S
            tell(phase, min(total_s, now - started), total_s)

    return tick
