"""When a node may let go of what is not its own: by the word of all who hold it, for as long as that stands."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from leafdb.errors import ProtocolError
from leafdb.hints.effects import MarkRange
from leafdb.model.key import encode_key
from leafdb.node.leftover_rules import Proof, foreign_runs, stands, wanted
from leafdb.node.node import Node
from leafdb.node.peer_backoff import BACKOFF_S_MAX, PeerBackoff
from leafdb.node.record_messages import Fetch, Hold, Offer, decode_request, digest_of
from leafdb.node.record_mover import ExchangeFault
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join, Leave, Replace
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import BucketId, Epoch, NodeId, PartitionId
from leafdb.wire.body import encode_map
from support.clusters import cluster, proposed
from support.plans import Steps
from support.repairs import contents, make_bucket, plant, record_of, view_of
from support.ring_changes import advanced, committed, finished

ONE, TWO, THREE, FOUR, FIVE = map(NodeId, range(1, 6))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_foreign_runs_are_exactly_the_partitions_a_node_does_not_hold(n: int) -> None:
    for metadata in (cluster(5), cluster(2), committed(cluster(4), Join(proposed(7)))):
        ring = Ring(metadata)
        for node in (*metadata.members, NodeId(99)):
            runs = list(foreign_runs(ring, node, n))
            foreign = {partition for first, last in runs for partition in range(first, last + 1)}
            assert foreign == set(range(ring.partitions)) - set(ring.partitions_held(node, n))
            assert all(last + 1 < first for (_, last), (first, _) in pairwise(runs))


def test_in_a_plan_everybody_of_both_tables_must_have_it_also_who_is_given_up() -> None:
    ring = Ring(committed(cluster(4), Replace(FOUR, proposed(7))))
    changing = [PartitionId(p) for p in range(ring.partitions) if ring.is_changing(PartitionId(p), 2)]
    assert changing
    assert all({FOUR, FIVE} <= set(wanted(ring, partition, 2).holders) for partition in changing)


def test_a_proof_stands_until_the_range_changes_and_not_longer() -> None:
    made = cluster(20)
    before = Ring(made)
    steps = [Ring(step(made, Replace(FIVE, proposed(70)))) for step in (committed, advanced, finished)]
    fell = stood = 0
    for partition in map(PartitionId, range(before.partitions)):
        proof = wanted(before, partition, 3)
        for after in steps:
            same = after.range_epoch(partition) == before.range_epoch(partition)
            assert stands(proof, after, partition, 3) is same
            fell += not same
            stood += same
        assert stands(proof, before, partition, 2)
        assert stands(wanted(before, partition, 2), before, partition, 3) is False, "n has grown"
    assert fell
    assert stood
    other = replace(made, epoch=Epoch(9), range_epochs=(Epoch(9),) * 64)
    assert not stands(Proof(Epoch(1), wanted(before, PartitionId(0), 3).holders), Ring(other), PartitionId(0), 3)


def test_requests_come_back_from_their_bytes() -> None:
    hold = Hold(256, 7, (b"a\x00\x01", b"b\x00\x01"), (digest_of(b"x"), digest_of(b"y")))
    exchanged = Offer(256, (b"a",), (b"r",), exchange=3)
    for request in (hold, Offer(256, (b"a",), (b"r",), 7), exchanged, Fetch(256, (b"a",), 3)):
        assert decode_request(request.encode()) == request
    assert b"epoch" not in exchanged.encode()
    for broken in (
        {"bucket": 256, "epoch": 7, "keys": [b"a"], "digests": []},
        {"bucket": 256, "epoch": 7, "keys": [b"a"], "digests": [b"short"]},
        {"bucket": 256, "epoch": 0, "keys": [b"a"], "digests": [digest_of(b"x")]},
        {"bucket": 256, "keys": [b"a"], "digests": [digest_of(b"x")]},
        {"bucket": 256, "keys": [b"a"], "records": [b"r"], "epoch": -1},
    ):
        with pytest.raises(ProtocolError):
            decode_request(encode_map(broken))


def test_who_fails_is_left_alone_for_longer_each_time_and_who_is_away_is_not_waited_for_by_the_clock() -> None:
    now, there = 100.0, {ONE, TWO}
    peers = PeerBackoff(there.__contains__, lambda: now)
    assert peers.ready(ONE)
    waits = []
    for _ in range(9):
        peers.failed(ONE, "no")
        waits.append(peers.retry_in())
        assert not peers.ready(ONE)
        now += waits[-1]
        assert peers.ready(ONE)
    assert waits[0] == pytest.approx(0.2)
    assert waits[-1] == pytest.approx(BACKOFF_S_MAX)
    peers.failed(ONE, "no")
    assert peers.waits_for((ONE, TWO, THREE)) == {ONE: "no", THREE: "cannot be reached"}
    there.discard(ONE)
    assert peers.retry_in() == float("inf")
    there.add(ONE)
    peers.worked(ONE)
    assert peers.ready(ONE)
    peers.failed(TWO, "no")
    peers.keep((ONE,))
    assert peers.waits_for((ONE, TWO)) == {}


# -- the word of a holder


def place_of(node: Node, holders: set[NodeId]) -> str:
    """A key that these nodes hold, and nobody else."""
    view, ring = view_of(node, "b"), node.view.ring
    assert ring is not None
    for number in range(10_000):
        token, _ = split_storage_key(storage_key(view.id, encode_key(f"k{number}")))
        if set(ring.holders(ring.partition_of(token), 3)) == holders:
            return f"k{number}"
    raise AssertionError(f"no key is on {holders}")


async def entrusted(node: Node, peer: NodeId, key: str, record: bytes, epoch: int = 0) -> int:
    """Entrust a peer with one record; answers how many records travelled. By default under the right epoch."""
    view, ring = view_of(node, "b"), node.view.ring
    assert ring is not None
    place = storage_key(view.id, encode_key(key))
    epoch = epoch or int(ring.range_epoch(ring.partition_of(split_storage_key(place)[0])))
    before = node.metrics.exchange_keys_sent_total
    await node.anti_entropy.mover.entrust(peer, view.id, [(place, record)], epoch)
    return node.metrics.exchange_keys_sent_total - before


@virtual
async def test_what_a_holder_has_already_does_not_travel_and_what_it_has_more_of_stays() -> None:
    async with memory_cluster(4) as nodes:
        one, four = nodes.nodes[ONE], nodes.nodes[FOUR]
        await make_bucket(nodes.nodes.values(), "b")
        key = place_of(one, {ONE, TWO, THREE})
        assert await entrusted(four, ONE, key, record_of(1)) == 1
        assert await entrusted(four, ONE, key, record_of(1)) == 0
        await plant(one, "b", key, record_of(2))
        (before,) = (await contents(one, "b")).values()
        assert await entrusted(four, ONE, key, record_of(1)) == 1
        assert list((await contents(one, "b")).values()) == [before]


@virtual
async def test_nobody_takes_what_is_not_its_own_or_of_another_epoch() -> None:
    async with memory_cluster(4) as nodes:
        four = nodes.nodes[FOUR]
        await make_bucket(nodes.nodes.values(), "b")
        key = place_of(four, {ONE, TWO, THREE})
        with pytest.raises(ExchangeFault, match="status 6"):
            await entrusted(four, ONE, key, record_of(1), epoch=2)
        with pytest.raises(ExchangeFault, match="status 9"):
            await entrusted(nodes.nodes[ONE], FOUR, key, record_of(1))
        assert not await contents(nodes.nodes[ONE], "b")
        assert not await contents(four, "b")


@virtual
async def test_a_holder_whose_ring_changes_while_it_merges_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(4) as nodes:
        one, four = nodes.nodes[ONE], nodes.nodes[FOUR]
        await make_bucket(nodes.nodes.values(), "b")
        key = place_of(four, {ONE, TWO, THREE})
        store = one.anti_entropy.store
        merge = store.merge

        async def merge_late(*args: object) -> object:
            monkeypatch.setattr(store, "merge", merge)
            errors = await merge(*args)  # type: ignore[arg-type]
            await Steps(nodes, TWO).begin(Leave(THREE))
            return errors

        monkeypatch.setattr(store, "merge", merge_late)
        with pytest.raises(ExchangeFault, match="status 6"):
            await entrusted(four, ONE, key, record_of(1))
        assert len(await contents(one, "b")) == 1


@virtual
async def test_a_range_marked_for_a_target_that_holds_it_no_more_owes_those_who_do() -> None:
    async with memory_cluster(4) as nodes:
        four = nodes.nodes[FOUR]
        number = await make_bucket(nodes.nodes.values(), "b")
        ring = four.view.ring
        assert ring is not None
        partition = next(p for p in map(PartitionId, range(64)) if FOUR not in ring.holders(p, 3))
        debts = four.anti_entropy.debts
        four.anti_entropy.mark(MarkRange(FIVE, number, partition))
        assert {peer for peer in debts.peers() if debts.mask(peer, BucketId(number)) >> partition & 1} == {
            ONE,
            TWO,
            THREE,
        }
        await nodes.settle()
        four.anti_entropy.mark(MarkRange(ONE, number, partition))
        assert debts.peers() == [ONE]
        await nodes.settle()
