"""Promises: a store that runs from an old copy of its disk, or beside a copy of itself, is refused by its peers, is
told so, says why and ends; a restart that merely looks like one is let in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
import trio

from leafdb.codec import cbor
from leafdb.node.admission import Admission
from leafdb.node.boot import encode_starts, past_of, read_starts
from leafdb.node.contests import Contests
from leafdb.node.endings import Expelled
from leafdb.node.view import ClusterView
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import found
from leafdb.ring.proposal import propose
from leafdb.ring.staging import Join
from leafdb.ring.transitions import commit, stage
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, Epoch, NodeId, TreeId
from leafdb.wire.hello import STARTS_TOLD, PeerFacts, Refusal
from leafdb.wire.registry import Lane

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


async def assert_cast_out(cluster: MemoryCluster, node: NodeId, why: Refusal, limit_s: float = 20) -> None:
    """The node ends and says why; the others serve on without it."""
    with trio.fail_after(limit_s):
        await cluster.processes[node].ended.wait()
    failure = cluster.processes[node].failure
    assert isinstance(failure, Expelled)
    assert failure.why is why
    await assert_served_without(cluster)


async def assert_served_without(cluster: MemoryCluster) -> None:
    name = f"after-{int(trio.current_time() * 1000)}"
    node = next(iter(cluster.nodes))
    client = await cluster.client(node)
    bucket = await cluster.create_bucket(name, via=node)
    assert (await client.put(bucket, "k", b"v", w=2)).acks == 2
    client.close()


@virtual
async def test_a_disk_brought_back_from_a_copy_is_refused_and_the_newest_is_not() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        backup = cluster.clone_disk(N3)
        for _ in range(2):
            await cluster.start(N3)
            await cluster.meet()
            await cluster.stop(N3)
        newest, cluster.disks[N3] = cluster.disks[N3], backup
        await cluster.start(N3)
        await assert_cast_out(cluster, N3, Refusal.ROLLED_BACK)
        cluster.disks[N3] = newest
        await cluster.start(N3)
        await cluster.meet()


@virtual
async def test_a_copy_is_refused_although_it_started_as_often_as_the_original() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        clone = cluster.clone_disk(N3)
        await cluster.start(N3)
        await cluster.meet()
        await cluster.stop(N3)
        cluster.disks[N3] = clone
        await cluster.start(N3)
        await assert_cast_out(cluster, N3, Refusal.CLONE)


@virtual
async def test_an_old_copy_that_was_started_more_often_than_the_original_is_refused_all_the_same() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        clone = cluster.clone_disk(N3)
        await cluster.start(N3)
        await cluster.meet()
        await cluster.stop(N3)
        cluster.disks[N3] = clone
        cluster.cut(N3, (N1, N2))
        for _ in range(3):
            await cluster.start(N3)
            await trio.sleep(10)
            await cluster.stop(N3)
        cluster.heal()
        await cluster.start(N3)
        await assert_cast_out(cluster, N3, Refusal.CLONE)


@pytest.mark.parametrize("why", [Refusal.CLONE, Refusal.ROLLED_BACK])
@virtual
async def test_what_was_seen_of_a_peer_outlives_restarts_of_all_who_saw_it(why: Refusal) -> None:
    async with memory_cluster(3) as cluster:
        await cluster.stop(N3)
        copy = cluster.clone_disk(N3)
        for _ in range(1 if why is Refusal.CLONE else 2):
            await cluster.start(N3)
            await cluster.meet()
            await cluster.stop(N3)
        await cluster.power_cut(N1, N2)
        await cluster.restart(N1, N2)
        cluster.disks[N3] = copy
        await cluster.start(N3)
        await assert_cast_out(cluster, N3, why)


@pytest.mark.parametrize("node", [N1, N2, N3])
@virtual
async def test_a_copy_of_a_running_node_is_refused_and_ends_while_the_original_serves_on(node: NodeId) -> None:
    """Nobody dials the copy's host, and node 3 dials nobody: it has to find out by itself."""
    async with memory_cluster(3) as cluster:
        copy = cluster.clone_disk(node)
        with suppress(Expelled):
            await cluster.start_twin(node, copy)
        twin = cluster.twins[0]
        with trio.fail_after(30):
            await twin.ended.wait()
        assert isinstance(twin.failure, Expelled)
        assert twin.failure.why is Refusal.CLONE
        assert "copy" in str(twin.failure)
        assert node in cluster.nodes, "the original serves on"
        await cluster.meet()
        await assert_served_without(cluster)
        await cluster.stop(node)
        await cluster.start(node)
        await cluster.meet()


@virtual
async def test_of_two_copies_that_share_a_cluster_between_them_none_serves_on() -> None:
    """Each was met by somebody first: nobody can say which one is right."""
    async with memory_cluster(3) as cluster:
        await cluster.stop(N1)
        copy = cluster.clone_disk(N1)
        cluster.network.cut("twin-1", "host-3")
        cluster.network.cut("host-1", "host-2")
        await cluster.start_twin(N1, copy)
        await cluster.start(N1)
        await trio.sleep(3)
        assert cluster.nodes[N2].view.usable >= {N1}
        assert cluster.nodes[N3].view.usable >= {N1}
        cluster.network.heal("twin-1", "host-3")
        cluster.network.heal("host-1", "host-2")
        await assert_cast_out(cluster, N1, Refusal.CLONE)
        with trio.fail_after(20):
            await cluster.twins[0].ended.wait()
        assert isinstance(cluster.twins[0].failure, Expelled)


@pytest.mark.parametrize("node", [N1, N2, N3])
@virtual
async def test_a_node_that_is_back_before_anybody_missed_it_is_let_in(node: NodeId) -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(node, vanish=True)
        for other in cluster.nodes:
            assert node in cluster.nodes[other].view.usable, "its old connections are half open"
        await cluster.start(node)
        await cluster.meet(limit_s=10)
        await trio.sleep(30)
        assert node in cluster.nodes


# -- the rules alone


class Kept:
    """A store that remembers what admission writes."""

    value: bytes | None = None

    def write(self, writes: tuple[tuple[TreeId, bytes, bytes], ...], durability: Durability, done: object) -> None:
        assert durability is Durability.ALWAYS
        ((_, _, self.value),) = writes


def admission(stored: bytes | None = None, *, view: ClusterView | None = None, kept: Kept | None = None) -> Admission:
    if view is None:
        view = ClusterView()
        members = [
            ProposedMember(name=f"n{i}", host=f"h{i}", client_address=f"h{i}:1", peer_address=f"h{i}:2")
            for i in (1, 2, 3)
        ]
        view.install(N1, found("c", b"c" * 16, members, partitions=8))
    contests = Contests(lambda _: None, lambda *_: False)
    return Admission(kept or Kept(), view, contests, stored)  # type: ignore[arg-type]


def facts(
    boot: int, nonce: bytes = b"", *, store: bytes = b"s" * 16, node: NodeId = N2, past: bytes = b""
) -> PeerFacts:
    nonce = nonce or bytes([boot]) * 16
    return PeerFacts(b"c" * 16, node, 0, boot, nonce, Epoch(1), Lane.CONTROL, store=store, past=past)


def test_a_number_keeps_its_store() -> None:
    kept = Kept()
    guard = admission(kept=kept)
    assert guard.admit(facts(3)) is None
    assert guard.admit(facts(4, store=b"t" * 16)) is Refusal.OTHER_STORE
    assert guard.admit(facts(4)) is None
    again = admission(kept.value)
    assert again.admit(facts(5, store=b"t" * 16)) is Refusal.OTHER_STORE
    assert "other store" in again.refusals[N2]
    assert again.admit(facts(5)) is None
    assert not again.refusals


def test_a_peer_that_does_not_say_its_store_is_judged_by_its_starts_and_bound_once_it_does() -> None:
    kept = Kept()
    guard = admission(cbor.dumps({"2": [3, b"\3" * 16]}), kept=kept)
    assert guard.admit(facts(2, store=b"")) is Refusal.ROLLED_BACK
    assert guard.admit(facts(3, store=b"")) is None
    assert guard.admit(facts(3)) is None
    assert guard.admit(facts(4, store=b"")) is None
    assert guard.admit(facts(5, store=b"t" * 16)) is Refusal.OTHER_STORE


def test_a_newcomer_is_taken_only_with_the_store_that_was_staged() -> None:
    view = ClusterView()
    members = [ProposedMember(name="n1", host="h1", client_address="h1:1", peer_address="h1:2")]
    newcomer = ProposedMember(name="n2", host="h2", client_address="h2:1", peer_address="h2:2")
    metadata = stage(found("c", b"c" * 16, members, partitions=8), Join(newcomer, b"s" * 16))
    view.install(N1, commit(metadata, propose(metadata).id))
    guard = admission(view=view)
    assert guard.admit(facts(1, store=b"t" * 16)) is Refusal.OTHER_STORE
    assert guard.admit(facts(1)) is None


def test_a_store_gives_account_of_its_last_starts_and_one_that_went_another_way_is_a_copy() -> None:
    starts = {boot: bytes([boot]) * 16 for boot in range(1, 40)}
    kept = read_starts(encode_starts(starts))
    assert len(kept) == STARTS_TOLD + 1
    for seen in (39, 38, 30, 23):
        guard = admission()
        assert guard.admit(facts(seen)) is None
        assert guard.admit(facts(40, past=past_of(kept, 40))) is None
        guard = admission()
        assert guard.admit(facts(seen, b"other start, 16b")) is None
        expected = None if seen < 40 - STARTS_TOLD else Refusal.CLONE
        assert guard.admit(facts(40, past=past_of(kept, 40))) is expected, seen
    assert len(past_of(kept, 40)) == STARTS_TOLD * 16
    assert past_of(starts, 1) == b""
    assert past_of({1: b"a" * 16, 3: b"c" * 16}, 4) == b"c" * 16 + bytes(16) + b"a" * 16


def test_a_start_that_was_never_recorded_proves_nothing() -> None:
    guard = admission()
    assert guard.admit(facts(3)) is None
    assert guard.admit(facts(4, past=bytes(16))) is None


def test_judging_remembers_nothing() -> None:
    guard = admission()
    assert guard.judge(facts(9)) is None
    assert guard.met() == frozenset()
    assert guard.admit(facts(3)) is None


# -- contests


class Elder:
    """The earlier start, and whether it answers."""

    def __init__(self, boot: int) -> None:
        self.facts: PeerFacts | None = facts(boot)
        self.told: list[Callable[[bool], None]] = []
        self.can_ask = True

    def ask(self, _: NodeId, told: Callable[[bool], None]) -> bool:
        if self.can_ask:
            self.told.append(told)
        return self.can_ask

    def contests(self) -> Contests:
        return Contests(lambda _: self.facts, self.ask)


def test_a_later_start_waits_until_the_earlier_one_was_asked() -> None:
    elder = Elder(3)
    contests = elder.contests()
    assert contests.verdict(facts(4)) is Refusal.CONTESTED
    assert contests.verdict(facts(4)) is Refusal.CONTESTED
    assert len(elder.told) == 1, "asked once"
    elder.told[0](True)
    assert contests.verdict(facts(4)) is Refusal.CLONE
    elder.facts = None
    assert contests.verdict(facts(4)) is None, "the earlier one is gone"


def test_silence_lets_the_later_one_in() -> None:
    elder = Elder(3)
    contests = elder.contests()
    assert contests.verdict(facts(4)) is Refusal.CONTESTED
    elder.told[0](False)
    assert contests.verdict(facts(4)) is None


def test_who_cannot_be_asked_is_no_obstacle_and_nobody_contests_itself() -> None:
    elder = Elder(3)
    elder.can_ask = False
    assert elder.contests().verdict(facts(4)) is None
    elder.can_ask = True
    assert elder.contests().verdict(facts(3)) is None
    assert not elder.told


def test_another_start_is_another_contest() -> None:
    elder = Elder(3)
    contests = elder.contests()
    assert contests.verdict(facts(4)) is Refusal.CONTESTED
    elder.told[0](False)
    assert contests.verdict(facts(5)) is Refusal.CONTESTED, "what was heard was about start 4"
    elder.facts = replace(facts(3), boot_nonce=b"x" * 16)
    assert contests.verdict(facts(5)) is Refusal.CONTESTED
    assert len(elder.told) == 3
