"""What goes wrong between hosts. A trouble is a task that begins, lasts, and takes back what it did however it ends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from typing import Final

import trio

from leafdb.sim.stage import Stage
from leafdb.testing.cluster import CLIENT_HOST, host_of
from leafdb.testing.network import Link
from leafdb.types import NodeId

Way = tuple[str, str]
"""From one host to another."""

SLOW_S: Final = ((0.005, 0.02), (0.02, 0.2), (0.2, 1.5))
TRICKLES: Final = (Link((0.0005, 0.002), 2_000.0, 64), Link((0.0, 0.001), 20_000.0, 256))


async def slow_link(stage: Stage, lasting_s: float) -> None:
    """Some ways take much longer, so that others overtake them."""
    link = Link(stage.rng.choice(SLOW_S))
    await _linked(stage, _some_ways(stage), link, "slow_link", lasting_s)


async def trickle(stage: Stage, lasting_s: float) -> None:
    """Bytes come in drops."""
    link = stage.rng.choice(TRICKLES)
    await _linked(stage, _some_ways(stage), link, "trickle", lasting_s)


async def _linked(stage: Stage, ways: list[Way], link: Link, name: str, lasting_s: float) -> None:
    network = stage.cluster.network
    stage.trace.fault(name, _told(ways))
    for source, target in ways:
        network.set_link(source, target, link)
    try:
        await trio.sleep(lasting_s)
    finally:
        for source, target in ways:
            network.set_link(source, target, stage.link)


async def clog(stage: Stage, lasting_s: float) -> None:
    """A few ways deliver nothing for a while and lose nothing."""
    with _clogged(stage, _some_ways(stage), "clog"):
        await trio.sleep(lasting_s)


async def one_way(stage: Stage, lasting_s: float) -> None:
    """Half of the nodes hear the other half and are not heard."""
    speakers, hearers = _halves(stage)
    with _clogged(stage, list(product(speakers, hearers)), "one_way_partition"):
        await trio.sleep(lasting_s)


async def swizzle(stage: Stage, lasting_s: float) -> None:
    """Some hosts fall silent one by one, and come back in another order."""
    rng, network = stage.rng, stage.cluster.network
    everybody = _hosts(stage)  # as of now: machines come and go
    hosts = rng.sample(everybody, rng.randint(1, len(everybody)))
    stage.trace.fault("swizzle_clog", " ".join(hosts))
    clogged: list[str] = []

    def unclog(host: str) -> None:
        clogged.remove(host)
        for source, target in _ways_of(host, everybody):
            if source not in clogged and target not in clogged:
                network.unclog(source, target)

    try:
        for host in hosts:
            clogged.append(host)
            for source, target in _ways_of(host, everybody):
                network.clog(source, target)
            await trio.sleep(rng.uniform(0, lasting_s / len(hosts)))
        for host in rng.sample(hosts, len(hosts)):
            unclog(host)
            await trio.sleep(rng.uniform(0, lasting_s / len(hosts)))
    finally:
        for host in list(clogged):
            unclog(host)


async def reset(stage: Stage, lasting_s: float) -> None:
    """Connections break, and may be made again at once."""
    rng = stage.rng
    hosts = [CLIENT_HOST, *_hosts(stage)]
    for _ in range(rng.randint(1, 6)):
        one, other = rng.sample(hosts, 2)
        stage.trace.fault("reset", f"{one} {other}")
        stage.cluster.network.reset(one, other)
        await trio.sleep(rng.uniform(0, lasting_s / 6))


async def partition(stage: Stage, lasting_s: float) -> None:
    """Two groups that do not reach each other."""
    one, other = _halves(stage)
    with _cut(stage, product(one, other), "partition"):
        await trio.sleep(lasting_s)


async def bridge(stage: Stage, lasting_s: float) -> None:
    """Two groups that reach each other only through one node that reaches both."""
    one, other = _halves(stage)
    middle = stage.rng.choice(one)
    with _cut(stage, product([host for host in one if host != middle], other), "bridge"):
        await trio.sleep(lasting_s)


async def flap(stage: Stage, lasting_s: float) -> None:
    """One host is cut off and joined again, several times."""
    rng = stage.rng
    victim = rng.choice(_hosts(stage))
    others = [host for host in _hosts(stage) if host != victim]
    times = rng.randint(2, 8)
    for _ in range(times):
        with _cut(stage, product([victim], others), "flapping_link"):
            await trio.sleep(rng.uniform(0, lasting_s / times))
        await trio.sleep(rng.uniform(0, lasting_s / times))


async def cut_off(stage: Stage, machine: NodeId, lasting_s: float, name: str) -> None:
    """One machine and the others do not reach each other."""
    others = [host for host in _hosts(stage) if host != host_of(machine)]
    with _cut(stage, product([host_of(machine)], others), name):
        await trio.sleep(lasting_s)


async def client_cut(stage: Stage, lasting_s: float) -> None:
    """Clients do not reach some nodes, though these reach each other."""
    hosts = _hosts(stage)
    victims = stage.rng.sample(hosts, stage.rng.randint(1, len(hosts)))
    with _cut(stage, product([CLIENT_HOST], victims), "client_cut_off"):
        await trio.sleep(lasting_s)


# -- ways


def _hosts(stage: Stage) -> list[str]:
    return [host_of(node) for node in stage.all]


def _some_ways(stage: Stage) -> list[Way]:
    """A few ways between nodes; now and then one to or from the clients."""
    hosts = _hosts(stage)
    if stage.rng.random() < 0.2:
        hosts.append(CLIENT_HOST)
    ways = [(source, target) for source, target in product(hosts, hosts) if source != target]
    return sorted(stage.rng.sample(ways, stage.rng.randint(1, max(1, len(ways) // 3))))


def _ways_of(host: str, hosts: list[str]) -> list[Way]:
    others = [other for other in hosts if other != host]
    return [*((host, other) for other in others), *((other, host) for other in others)]


def _halves(stage: Stage) -> tuple[list[str], list[str]]:
    """Everybody, in two groups of any sizes but none."""
    hosts = stage.rng.sample(_hosts(stage), len(stage.all))
    size = stage.rng.randint(1, max(1, len(hosts) - 1))
    return sorted(hosts[:size]), sorted(hosts[size:])


@contextmanager
def _clogged(stage: Stage, ways: list[Way], name: str) -> Iterator[None]:
    network = stage.cluster.network
    stage.trace.fault(name, _told(ways))
    for source, target in ways:
        network.clog(source, target)
    try:
        yield
    finally:
        for source, target in ways:
            network.unclog(source, target)


@contextmanager
def _cut(stage: Stage, pairs: Iterable[Way], name: str) -> Iterator[None]:
    """Separated loudly or silently. Cuts of two troubles may overlap; the first that ends joins what both have cut."""
    network = stage.cluster.network
    silently = stage.rng.random() < 0.5
    ways = list(pairs)
    stage.trace.fault(name, f"{'silently ' if silently else ''}{_told(ways)}")
    for one, other in ways:
        network.cut(one, other, silently=silently)
    try:
        yield
    finally:
        for one, other in ways:
            network.heal(one, other)


def _told(ways: Iterable[Way]) -> str:
    return ", ".join(f"{source}>{target}" for source, target in ways)
