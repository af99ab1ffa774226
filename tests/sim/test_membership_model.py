"""The failure detectors of a whole cluster in one event heap: loss, delay, stalls, crashes, returns, partitions.

Guards invariant I23 (a crash is known to all within bounds, nobody is declared dead wrongly) and that beliefs converge.
The first test draws its episodes anew each time; the others are stories with figures.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random, SystemRandom

import pytest

from leafdb.membership.config import LARGE, SMALL, MembershipConfig, profile_for
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.suspicion import LocalHealth, Suspicion
from leafdb.sim.heap import Heap, Weather
from leafdb.sim.membership_measure import Setting, crashes, watch
from leafdb.sim.membership_run import crash_known_s, run
from leafdb.sim.membership_world import Cluster, Node, groups
from leafdb.types import Epoch, Liveness, NodeId

WEATHER = Weather(delay_s=(0.0002, 0.02))


def cluster_of(count: int, seed: int, *, config: MembershipConfig | None = None, loss: float = 0.0) -> Cluster:
    weather = replace(WEATHER, loss=loss)
    return Cluster(Heap(), f"{seed}", count, profile_for(count) if config is None else config, weather)


def seconds_until_dead(cluster: Cluster, node: Node, *, within: float) -> float:
    """From the kill of the node until everybody knows."""
    node.host.crash()
    return cluster.until_agreed(within, f"{node.host.name} was killed")


def test_fresh_episodes_keep_the_promises() -> None:
    first = SystemRandom().randrange(1 << 32)
    print(f"seeds from {first}")
    for seed in range(first, first + 3):
        outcome = run(seed, operations=5_000)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        assert outcome.operations == 5_000


def test_the_same_seed_goes_the_same_way_and_fewer_steps_are_a_prefix() -> None:
    long = run(7, operations=3_000, keep=True)
    assert run(7, operations=3_000).trace == long.trace
    short = run(7, operations=500, keep=True)
    mended = next(at for at, line in enumerate(short.lines) if line.text == "everything is mended")
    assert short.lines[:mended] == long.lines[:mended]
    assert run(8, operations=3_000).trace != long.trace


def test_a_timer_that_never_runs_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Suspicion, "expires", property(lambda self: self.started + 1e6))
    outcomes = [run(seed, operations=1_000) for seed in range(3)]
    assert {outcome.broken.invariant for outcome in outcomes if outcome.broken} == {"I23"}


def test_ears_that_never_recover_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalHealth, "better", lambda self: None)
    outcomes = [run(seed, operations=2_000) for seed in range(5)]
    assert any(outcome.broken for outcome in outcomes)


@pytest.mark.parametrize("seed", range(8))
def test_killed_node_of_three_is_convicted_by_both_within_four_seconds(seed: int) -> None:
    cluster = cluster_of(3, seed)
    cluster.run(3 + seed / 7)
    assert 2.0 <= seconds_until_dead(cluster, cluster.nodes[NodeId(3)], within=4.0) <= crash_known_s(SMALL, 3, 0)
    assert {about for _, _, about in cluster.deaths()} == {NodeId(3)}


@pytest.mark.parametrize("seed", range(4))
def test_lost_session_gives_a_head_start_and_its_return_revives_within_one_probe(seed: int) -> None:
    cluster = cluster_of(3, seed)
    cluster.run(2.0)
    victim = cluster.nodes[NodeId(2)]
    for node in (NodeId(1), NodeId(3)):
        cluster.session(cluster.nodes[node], victim.id, up=False)
    assert seconds_until_dead(cluster, victim, within=3.0) >= 2.0
    cluster.run(10.0)
    cluster.start(victim)
    for node in (NodeId(1), NodeId(3)):
        cluster.session(cluster.nodes[node], victim.id, up=True)
    assert cluster.until_agreed(SMALL.probe_interval_s, "its return") <= 0.1


@pytest.mark.parametrize(("count", "seed"), [(5, 1), (7, 2), (10, 3), (14, 4), (20, 5), (20, 6)])
def test_with_loss_and_stalls_the_crash_is_known_to_all_and_nobody_else_dies(count: int, seed: int) -> None:
    cluster = cluster_of(count, seed, config=SMALL, loss=0.1)
    cluster.run(5.0)
    rng, victim = Random(seed), cluster.nodes[NodeId(count)]
    killed = 0.0
    for moment in range(10):
        cluster.run(1.0)
        cluster.nodes[rng.choice(cluster.ids[:-1])].host.stall(rng.uniform(0.1, 1.2))
        if moment == 4:
            victim.host.crash()
            killed = cluster.heap.now
    while cluster.believed(victim.id) != [Liveness.DEAD] and cluster.heap.now < killed + 10.0:
        cluster.run(0.05)
    assert cluster.believed(victim.id) == [Liveness.DEAD]
    assert {about for _, _, about in cluster.deaths()} == {victim.id}


@pytest.mark.parametrize("seed", range(3))
def test_one_slow_node_under_loss_is_not_declared_dead_and_declares_nobody_dead(seed: int) -> None:
    cluster, rng = cluster_of(8, seed, config=LARGE, loss=0.1), Random(seed)
    for _ in range(30):
        cluster.run(1.0)
        cluster.nodes[NodeId(4)].host.stall(rng.uniform(0.3, 0.95))
    assert cluster.deaths() == []


@pytest.mark.parametrize("seed", range(3))
def test_long_pause_convicts_the_paused_node_alone_and_it_convicts_nobody_on_waking(seed: int) -> None:
    cluster = cluster_of(5, seed)
    cluster.run(5.0)
    cluster.nodes[NodeId(1)].host.stall(20.0)
    cluster.run(19.9)
    assert cluster.believed(NodeId(1)) == [Liveness.DEAD]
    cluster.run(5.0)
    assert cluster.believed(NodeId(1)) == [Liveness.ALIVE]
    assert {about for _, _, about in cluster.deaths()} == {NodeId(1)}


@pytest.mark.parametrize("seed", range(3))
def test_healed_partition_is_seen_by_both_sides_without_any_restart(seed: int) -> None:
    cluster = cluster_of(6, seed, config=SMALL, loss=0.05)
    cluster.run(5.0)
    cluster.network.split(*groups(cluster, cluster.ids[:3]))
    cluster.run(20.0)
    for node in cluster.running():
        dead = set(node.detector.view.with_liveness(Liveness.DEAD))
        assert dead == {other for other in cluster.ids if (other <= 3) != (node.id <= 3)}
    cluster.network.heal()
    cluster.run(15.0)
    assert cluster.agreed()


def test_an_unreachable_pair_is_not_a_death_when_others_reach_both() -> None:
    cluster = cluster_of(5, 11)
    a, b = cluster.nodes[NodeId(1)].host, cluster.nodes[NodeId(2)].host
    cluster.network.split([a], [b])
    cluster.run(60.0)
    assert cluster.deaths() == []


def test_new_metadata_epoch_is_known_to_all_within_a_few_probes() -> None:
    cluster = cluster_of(5, 12)
    cluster.run(2.0)
    cluster.nodes[NodeId(3)].detector.announce(Epoch(7), b"12345678")
    cluster.run(2.0 * SMALL.probe_interval_s * len(cluster.ids))
    assert [node.epochs[NodeId(3)] for node in cluster.running() if node.id != 3] == [7, 7, 7, 7]


def test_quiet_cluster_sends_one_probe_per_interval_and_no_gossip(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_of(5, 13, config=replace(SMALL, sync_interval_s=1e6))
    cluster.run(10.0)
    sent: list[bytes] = []
    monkeypatch.setattr(cluster.heap.trace, "feed", lambda label, mail=b"": sent.append(mail.split()[0]))
    cluster.run(10.0)
    assert set(sent) == {b"ping", b"ack"}
    assert 190 <= len(sent) <= 210


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_was_cut_off_does_not_bury_the_cluster_when_it_comes_back(seed: int) -> None:
    cluster = cluster_of(8, seed, config=SMALL)
    cluster.run(5.0)
    cluster.network.split(*groups(cluster, [NodeId(1)]))
    cluster.run(40.0)
    assert cluster.nodes[NodeId(1)].detector.view.dead() == tuple(cluster.ids[1:])
    healed_at = cluster.heap.now
    cluster.network.heal()
    cluster.run(15.0)
    assert cluster.agreed()
    assert [death for death in cluster.deaths() if death[0] > healed_at] == []


@pytest.mark.parametrize("seed", range(3))
def test_a_removed_node_that_runs_on_is_a_stranger_until_it_learns_that_it_was_expelled(seed: int) -> None:
    cluster = cluster_of(6, seed, config=SMALL, loss=0.05)
    cluster.run(5.0)
    zombie = cluster.nodes[NodeId(6)]
    cluster.change_members(removed=zombie.id)
    for node in cluster.running():
        cluster.tell_members(node)
    cluster.run(60.0)
    assert cluster.agreed()
    assert cluster.believed(zombie.id) == [None]
    assert zombie.detector.states() != ()
    cluster.tell_members(zombie)
    assert zombie.expelled == 1
    assert zombie.detector.deadline() == float("inf")


def test_a_crash_of_one_of_fifty_is_known_to_all_within_fifteen_seconds() -> None:
    for setting, count in ((Setting(seed=11), 12), (Setting(loss=0.1, stalled=5, seed=11), 3)):
        print(setting)
        found = crashes(setting, count)
        assert max(each.known_s for each in found) <= 15.0, found
        assert min(each.known_s for each in found) >= LARGE.suspicion_s(50)[0]


def test_loss_and_stalled_nodes_bury_nobody_who_lives() -> None:
    setting = Setting(loss=0.1, stalled=5, seed=12)
    print(setting)
    watched = watch(setting, 1.5)
    assert watched.false == []
    assert watched.suspicions > 100, "the weather is bad enough to be wrong in"
    assert watched.deserved > 0


def test_the_measure_notices_a_detector_that_is_too_slow_or_too_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as mute:
        mute.setattr(FailureDetector, "_hear_of_ourselves", lambda self, claim: None)
        mute.setattr(FailureDetector, "_answer_accuser", lambda self, accuser: None)
        assert watch(Setting(loss=0.1, stalled=5, seed=13), 0.5).false, "nobody refutes"
    monkeypatch.setattr(Suspicion, "confirm", lambda self, accuser: False)
    [found] = crashes(Setting(nodes=20, seed=13), 1)
    assert found.known_s > 15.0
