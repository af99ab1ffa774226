"""What happens to whole nodes: to their processes, their power, their clocks, and to disks that can be replaced."""

from __future__ import annotations

from typing import Final

import trio

from leafdb.node.node import Node
from leafdb.sim.stage import Stage
from leafdb.testing.cluster import CLIENT_HOST, host_of
from leafdb.testing.violation import Invariant, require
from leafdb.types import NodeId
from leafdb.wire.hello import PeerFacts
from leafdb.wire.registry import Lane

ABSENCE_S: Final = 130.0
"""Hints are looked over once a minute."""
MEETING_S: Final = 20.0
"""How long the older copy of a disk waits for everybody to have met the newer one."""


async def kill(stage: Stage, lasting_s: float) -> None:
    """SIGKILL of one node, a few, now and then the restart is cut off as well."""
    await _killed(stage, _some(stage), lasting_s, "kill")


async def kill_all(stage: Stage, lasting_s: float) -> None:
    """SIGKILL of every node in the same instant."""
    await _killed(stage, stage.free(), lasting_s, "kill_all")


async def absence(stage: Stage, lasting_s: float) -> None:
    """Once in a run: a node is away for so long that hints for it are given up, whatever else ends before."""
    free = stage.free()
    if stage.had_absence or len(free) < len(stage.all):
        return
    stage.had_absence = True
    victim = stage.rng.choice(free)
    until_s = trio.current_time() + ABSENCE_S
    with stage.claimed(victim):
        stage.trace.fault("long_absence", _told([victim]))
        await stage.kill(victim, vanish=stage.rng.random() < 0.5)
        try:
            await trio.sleep(lasting_s)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep_until(until_s)
                await stage.start_all([victim])


async def vanish(stage: Stage, lasting_s: float) -> None:
    """A node is gone without a word to anybody: its connections stay half open."""
    await _killed(stage, stage.rng.sample(stage.free(), min(1, len(stage.free()))), lasting_s, "vanish", vanishes=True)


async def _killed(stage: Stage, victims: list[NodeId], lasting_s: float, name: str, *, vanishes: bool = False) -> None:
    if not victims:
        return
    with stage.claimed(*victims):
        stage.trace.fault(name, _told(victims))
        await stage.kill(*victims, vanish=vanishes)
        try:
            await trio.sleep(stage.rng.uniform(0, lasting_s))
        finally:
            await stage.start_all(victims)


async def restart(stage: Stage, lasting_s: float) -> None:
    """A clean stop, and a start a while later."""
    victims = stage.rng.sample(stage.free(), min(1, len(stage.free())))
    with stage.claimed(*victims):
        stage.trace.fault("clean_restart", _told(victims))
        try:
            stage.tell("stopped", victims)
            with trio.CancelScope(shield=True):
                await stage.cluster.stop(*victims)
            await trio.sleep(stage.rng.uniform(0, lasting_s))
        finally:
            await stage.start_all(victims)


async def pause(stage: Stage, lasting_s: float) -> None:
    """SIGSTOP: the world goes on without a node that is there."""
    victims = _some(stage)
    with stage.claimed(*victims):
        stage.trace.fault("pause", _told(victims))
        for node in victims:
            stage.cluster.pause(node)
        try:
            await trio.sleep(lasting_s)
        finally:
            for node in victims:
                stage.cluster.resume(node)
            stage.tell("resumed", victims)


async def power_cut(stage: Stage, lasting_s: float) -> None:
    """The power of one node goes; where buckets sync later, so does the end of what it was told."""
    candidates = stage.may_destroy() if stage.plan.destroys_by_power_cut else stage.free()
    if candidates and not stage.alone:
        victim = stage.rng.choice(candidates)
        if stage.plan.destroys_by_power_cut:
            stage.destroyed(victim)
        await _power_cut(stage, [victim], lasting_s, "power_cut")


async def power_cut_all(stage: Stage, lasting_s: float) -> None:
    """The power of every node goes in the same instant."""
    assert not stage.plan.destroys_by_power_cut
    if not stage.alone:
        await _power_cut(stage, stage.free(), lasting_s, "power_cut_of_all")


async def _power_cut(stage: Stage, victims: list[NodeId], lasting_s: float, name: str) -> None:
    with stage.claimed(*victims):
        stage.trace.fault(name, _told(victims))
        await stage.power_cut(*victims)
        try:
            await trio.sleep(stage.rng.uniform(0, lasting_s))
        finally:
            await stage.start_all(victims)


async def wipe(stage: Stage, lasting_s: float) -> None:
    """A disk is gone with everything on it; the node gets a new one."""
    with stage.claimed_to_destroy() as victim:
        if victim is None:
            return
        stage.trace.fault("wiped_store", _told([victim]))
        await stage.kill(victim)
        try:
            await trio.sleep(stage.rng.uniform(0, lasting_s))
        finally:
            with trio.CancelScope(shield=True):
                await stage.replace(victim)
                await stage.start(victim)


async def rollback(stage: Stage, lasting_s: float) -> None:
    """A node comes back on a copy of its disk from before its last start: its peers must not have it.

    They know it by its boot number, so each of them has met the newer run before. Clients are kept away from the old
    copy, which may serve them until it has heard that it is refused. In the end the operator gives the node a new disk.
    """
    with stage.claimed_to_destroy(alone=True) as victim:
        if victim is None:
            return
        cluster, network = stage.cluster, stage.cluster.network
        stage.trace.fault("rolled_back_disk", _told([victim]))
        try:
            await stage.kill(victim)
            copy = cluster.disks[victim].copy()
            for _ in range(stage.rng.choice((1, 2))):  # as often as the copy will be started, or once more
                await stage.start_all([victim])
                if not await _met(stage, victim):
                    stage.trace.probe("rollback_given_up")
                    return
                await trio.sleep(stage.rng.uniform(0, lasting_s))
                await stage.kill(victim)
            newest = stage.identities[victim]
            cluster.disks[victim] = copy
            stage.damaged[victim] = None
            network.cut(CLIENT_HOST, host_of(victim))
            await stage.start_all([victim])
            stage.identities[victim] = newest  # the new disk goes on where that one stood
            await trio.sleep(lasting_s)
            if victim in cluster.nodes:
                _check_alone(stage, cluster.nodes[victim], victim, f"n{victim} on an old copy of its disk")
        finally:
            with trio.CancelScope(shield=True):
                if victim in stage.damaged:
                    await stage.kill(victim)
                    await stage.replace(victim)
                    network.heal(CLIENT_HOST, host_of(victim))
                if victim not in cluster.nodes:
                    await stage.start(victim)


async def clone(stage: Stage, lasting_s: float) -> None:
    """A second process runs from a copy of a node's disk, beside the node: nobody who has met the node may have it.

    The claim is the one for stores that may lose something, so that no peer forgets meanwhile whom it has met.
    """
    with stage.claimed_to_destroy(alone=True) as victim:
        if victim is None:
            return
        cluster = stage.cluster
        stage.trace.fault("cloned_disk", _told([victim]))
        try:
            await stage.kill(victim)
            copy = cluster.disks[victim].copy()
            copy.quota_bytes = None  # the machine is another one
            await stage.start_all([victim])
            if not await _met(stage, victim):
                stage.trace.probe("rollback_given_up")
                return
            twin = await cluster.start_twin(victim, copy)
            await trio.sleep(lasting_s)
            _check_alone(stage, twin, victim, f"a second process of n{victim}")
        finally:
            with trio.CancelScope(shield=True):
                await cluster.stop_twins()
                if victim not in cluster.nodes:
                    await stage.start(victim)


def _check_alone(stage: Stage, copy: Node, number: NodeId, what: str) -> None:
    """No other node has a session with a process that runs from a copy of a disk. What that one itself takes for a
    session does not count: who dialled it refuses it a moment later, and where the way is cut it never hears it."""
    nonce = copy.belonging.boot_nonce
    for peer, node in stage.cluster.nodes.items():
        if peer == number or not hasattr(node, "peers"):
            continue  # itself; or one that is still opening its store
        for lane in Lane:
            session = node.peers.session(number, lane)
            facts = None if session is None else session.facts
            let_in = isinstance(facts, PeerFacts) and facts.boot_nonce == nonce
            require(not let_in, Invariant.BANS_FINAL, f"{what} was let in by n{peer}: {lane.name}")


async def _met(stage: Stage, victim: NodeId) -> bool:
    """Whether every other node has come to know this run of the victim."""
    with trio.move_on_after(MEETING_S):
        while victim in stage.cluster.nodes:
            others = [node for node in stage.all if node != victim]
            up = all(node in stage.cluster.nodes for node in others)
            if up and all(stage.knows(node, victim) for node in others):
                return True
            await trio.sleep(0.1)
    return False


async def clock_jump(stage: Stage, lasting_s: float) -> None:
    """A wall clock is set forward or back, and put right later."""
    rng, skew_ms = stage.rng, stage.cluster.skew_ms
    node = rng.choice(stage.all)
    jump_ms = rng.choice((-1, 1)) * rng.choice((10, 500, 6_000, 120_000))
    stage.trace.fault("clock_jump", f"n{node} {jump_ms:+} ms")
    skew_ms[node] += jump_ms
    try:
        await trio.sleep(lasting_s)
    finally:
        skew_ms[node] -= jump_ms


async def clock_drift(stage: Stage, lasting_s: float) -> None:
    """A wall clock runs fast or slow for a while."""
    rng, skew_ms = stage.rng, stage.cluster.skew_ms
    node = rng.choice(stage.all)
    per_tick_ms = rng.choice((-40, -5, 5, 40))
    stage.trace.fault("clock_drift", f"n{node} {per_tick_ms:+} ms every 50 ms")
    drifted_ms = 0
    try:
        for _ in range(int(lasting_s / 0.05)):
            await trio.sleep(0.05)
            skew_ms[node] += per_tick_ms
            drifted_ms += per_tick_ms
    finally:
        skew_ms[node] -= drifted_ms


def _some(stage: Stage) -> list[NodeId]:
    """Mostly one node, now and then several."""
    free = stage.free()
    most = stage.rng.randint(1, max(1, len(free))) if stage.rng.random() < 0.2 else 1
    return sorted(stage.rng.sample(free, min(most, len(free))))


def _told(nodes: list[NodeId]) -> str:
    return " ".join(f"n{node}" for node in nodes)
