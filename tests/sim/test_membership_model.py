"""The failure detectors of a whole cluster in one event heap: loss, delay, stalls, crashes, returns, partitions.

Guards invariant I23 (a crash is known to all within bounds, nobody is declared dead wrongly) and that beliefs converge.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from leafdb.membership.config import LARGE, SMALL, MembershipConfig, profile_for
from leafdb.membership.effects import Effect, MemberChanged, PeerEpoch, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.messages import AnyMessage, from_wire
from leafdb.types import Epoch, Liveness, NodeId


class Node:
    """One node: its detector, its stall, and what its detector said."""

    def __init__(self, detector: FailureDetector) -> None:
        self.detector = detector
        self.running = True
        self.stalled_until = 0.0
        self.inbox: list[tuple[NodeId, AnyMessage]] = []
        self.changes: list[tuple[float, NodeId, Liveness]] = []
        self.epochs: dict[NodeId, Epoch] = {}


class Cluster:
    """Steps every detector in one heap of (time, action). A stalled node reads nothing and runs no timer."""

    def __init__(self, count: int, seed: int, *, config: MembershipConfig | None = None, loss: float = 0.0) -> None:
        self.rng = Random(seed)
        self.config = profile_for(count) if config is None else config
        self.loss = loss
        self.now = 0.0
        self.cut: Callable[[NodeId, NodeId], bool] = lambda a, b: False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.ids = [NodeId(number) for number in range(1, count + 1)]
        self.nodes: dict[NodeId, Node] = {}
        self.boots = dict.fromkeys(self.ids, 0)
        for node in self.ids:
            self.start(node)

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, action))

    def start(self, node: NodeId) -> None:
        self.boots[node] += 1
        seed = self.rng.randrange(1 << 30)
        detector = FailureDetector(self.config, node, boot=self.boots[node], now=self.now, rng=Random(seed))
        self.nodes[node] = Node(detector)
        self.perform(node, detector.set_members(self.ids, self.now))

    def kill(self, node: NodeId) -> None:
        self.nodes[node].running = False

    def stall(self, node: NodeId, seconds: float) -> None:
        self.nodes[node].stalled_until = self.now + seconds
        self.at(self.now + seconds, lambda: self.wake(node))

    def wake(self, node: NodeId) -> None:
        state = self.nodes[node]
        if not state.running or self.now < state.stalled_until:
            return
        if state.detector.deadline() <= self.now:
            self.perform(node, state.detector.on_time(self.now))  # timers before mail: the order that convicts wrongly
        inbox, state.inbox = state.inbox, []
        for sender, message in inbox:
            self.perform(node, state.detector.on_message(sender, message, self.now))

    def deliver(self, sender: NodeId, to: NodeId, message: AnyMessage) -> None:
        self.nodes[to].inbox.append((sender, message))
        self.wake(to)

    def perform(self, node: NodeId, effects: Iterable[Effect]) -> None:
        state = self.nodes[node]
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    assert from_wire(message.to_wire()) == message
                    if not self.cut(node, to) and self.rng.random() >= self.loss:
                        delay = self.rng.uniform(0.0002, 0.02)
                        self.at(self.now + delay, partial(self.deliver, node, to, message))
                case MemberChanged(node=about, liveness=liveness):
                    state.changes.append((self.now, about, liveness))
                case PeerEpoch(node=about, epoch=epoch):
                    state.epochs[about] = epoch
        state.detector.check()
        deadline = state.detector.deadline()
        assert deadline >= self.now
        self.at(deadline, lambda: self.wake(node))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._heap and self._heap[0][0] <= until:
            self.now, _, action = heapq.heappop(self._heap)
            action()
        self.now = until

    def believed(self, about: NodeId) -> set[Liveness | None]:
        return {state.detector.liveness(about) for node, state in self.nodes.items() if state.running and node != about}

    def seconds_until(self, about: NodeId, liveness: Liveness, *, within: float) -> float:
        start = self.now
        while self.now < start + within:
            self.run(0.05)
            if self.believed(about) == {liveness}:
                return self.now - start
        raise AssertionError(f"node {about} is {self.believed(about)}, not all {liveness}, after {within} s")

    def deaths(self) -> list[tuple[float, NodeId, NodeId]]:
        return [
            (when, node, about)
            for node, state in self.nodes.items()
            for when, about, liveness in state.changes
            if liveness is Liveness.DEAD
        ]


@pytest.mark.parametrize("seed", range(8))
def test_killed_node_of_three_is_convicted_by_both_within_four_seconds(seed: int) -> None:
    cluster = Cluster(3, seed)
    cluster.run(3 + seed / 7)
    cluster.kill(NodeId(3))
    assert cluster.seconds_until(NodeId(3), Liveness.DEAD, within=4.0) >= 2.0
    assert {about for _, _, about in cluster.deaths()} == {NodeId(3)}


@pytest.mark.parametrize("seed", range(4))
def test_lost_session_gives_a_head_start_and_its_return_revives_within_one_probe(seed: int) -> None:
    cluster = Cluster(3, seed)
    cluster.run(2.0)
    victim = NodeId(2)
    cluster.kill(victim)
    for node in (NodeId(1), NodeId(3)):
        cluster.perform(node, cluster.nodes[node].detector.on_session_lost(victim, cluster.now))
    assert cluster.seconds_until(victim, Liveness.DEAD, within=3.0) >= 2.0
    cluster.run(10.0)
    cluster.start(victim)
    for node in (NodeId(1), NodeId(3)):
        cluster.perform(node, cluster.nodes[node].detector.on_session_established(victim, cluster.now))
    assert cluster.seconds_until(victim, Liveness.ALIVE, within=SMALL.probe_interval_s) <= 0.1


@pytest.mark.parametrize(("count", "seed"), [(5, 1), (7, 2), (10, 3), (14, 4), (20, 5), (20, 6)])
def test_with_loss_and_stalls_the_crash_is_known_to_all_and_nobody_else_dies(count: int, seed: int) -> None:
    cluster = Cluster(count, seed, config=SMALL, loss=0.1)
    cluster.run(5.0)
    victim = NodeId(count)
    for moment in range(10):
        cluster.run(1.0)
        cluster.stall(cluster.rng.choice(cluster.ids[:-1]), cluster.rng.uniform(0.1, 1.2))
        if moment == 4:
            cluster.kill(victim)
            killed = cluster.now
    seconds = cluster.now - killed
    if cluster.believed(victim) != {Liveness.DEAD}:
        seconds += cluster.seconds_until(victim, Liveness.DEAD, within=8.0)
    assert {about for _, _, about in cluster.deaths()} == {victim}
    assert seconds <= 10.0


@pytest.mark.parametrize("seed", range(3))
def test_one_slow_node_under_loss_is_not_declared_dead_and_declares_nobody_dead(seed: int) -> None:
    cluster = Cluster(8, seed, config=LARGE, loss=0.1)
    for _ in range(30):
        cluster.run(1.0)
        cluster.stall(NodeId(4), cluster.rng.uniform(0.3, 0.95))
    assert cluster.deaths() == []


@pytest.mark.parametrize("seed", range(3))
def test_long_pause_convicts_the_paused_node_alone_and_it_convicts_nobody_on_waking(seed: int) -> None:
    cluster = Cluster(5, seed)
    cluster.run(5.0)
    cluster.stall(NodeId(1), 20.0)
    cluster.run(19.9)
    assert cluster.believed(NodeId(1)) == {Liveness.DEAD}
    cluster.run(5.0)
    assert cluster.believed(NodeId(1)) == {Liveness.ALIVE}
    assert {about for _, _, about in cluster.deaths()} == {NodeId(1)}


@pytest.mark.parametrize("seed", range(3))
def test_healed_partition_is_seen_by_both_sides_without_any_restart(seed: int) -> None:
    cluster = Cluster(6, seed, config=SMALL, loss=0.05)
    cluster.run(5.0)
    cluster.cut = lambda a, b: (a <= 3) != (b <= 3)
    cluster.run(20.0)
    for node, state in cluster.nodes.items():
        dead = set(state.detector.view.with_liveness(Liveness.DEAD))
        assert dead == {other for other in cluster.ids if (other <= 3) != (node <= 3)}
    cluster.cut = lambda a, b: False
    cluster.run(15.0)
    assert all(cluster.believed(node) == {Liveness.ALIVE} for node in cluster.ids)


def test_an_unreachable_pair_is_not_a_death_when_others_reach_both() -> None:
    cluster = Cluster(5, 11)
    cluster.cut = lambda a, b: {a, b} == {1, 2}
    cluster.run(60.0)
    assert cluster.deaths() == []


def test_new_metadata_epoch_is_known_to_all_within_a_few_probes() -> None:
    cluster = Cluster(5, 12)
    cluster.run(2.0)
    cluster.nodes[NodeId(3)].detector.announce(Epoch(7), b"12345678")
    cluster.run(2.0 * SMALL.probe_interval_s * len(cluster.ids))
    assert [cluster.nodes[node].epochs[NodeId(3)] for node in cluster.ids if node != 3] == [7, 7, 7, 7]


def test_quiet_cluster_sends_one_probe_per_interval_and_no_gossip() -> None:
    cluster = Cluster(5, 13, config=replace(SMALL, sync_interval_s=1e6))
    cluster.run(10.0)
    sent: list[str] = []
    perform = cluster.perform

    def counting(node: NodeId, effects: Iterable[Effect]) -> None:
        effects = tuple(effects)
        sent.extend(type(effect.message).__name__ for effect in effects if isinstance(effect, Send))
        perform(node, effects)

    cluster.perform = counting  # type: ignore[method-assign]  # counts what the one cluster of this test sends
    cluster.run(10.0)
    assert set(sent) == {"Ping", "Ack"}
    assert 190 <= len(sent) <= 210
