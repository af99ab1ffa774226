"""Promises: leafdb_faults does to a user's test what it says, seen through the real clients."""

from __future__ import annotations

import pytest
import trio

from leafdb import BLIND, Found, Missing, NotApplied, NotEnoughReplicas, OutcomeUnknown
from leafdb.limits import HINT_AGE_S_MAX
from leafdb.testing import CLIENTS, Cluster, Faults


async def test_a_node_cut_off_alone_refuses_a_strict_write_or_does_not_know(
    leafdb_cluster: Cluster, leafdb_faults: Faults
) -> None:
    n1, n2, n3 = leafdb_cluster.nodes
    db = await leafdb_cluster.client(via=n1, timeout=2.0)
    await db.create_bucket("b")
    bucket = db.bucket("b")
    await bucket.put("k", b"before", after=BLIND)
    leafdb_faults.partition([n1], [n2, n3])
    with pytest.raises(OutcomeUnknown) as unknown:  # nobody has noticed: the others may have it
        await bucket.put("k", b"unknown", after=BLIND, sloppy=False)
    assert (unknown.value.acks, unknown.value.required) == (1, 2)
    await trio.sleep(10)
    with pytest.raises(NotEnoughReplicas):  # now it is known that it cannot succeed
        await bucket.put("k", b"refused", after=BLIND, sloppy=False)
    majority = await leafdb_cluster.client(via=n2)
    await majority.bucket("b").put("k2", b"v", after=BLIND)


async def test_healing_brings_hints_home(leafdb_cluster: Cluster, leafdb_faults: Faults) -> None:
    *others, n3 = leafdb_cluster.nodes
    db = await leafdb_cluster.client(via=others[0])
    third = await leafdb_cluster.client(via=n3)
    await db.create_bucket("b")
    leafdb_faults.partition(others, [n3])
    await db.bucket("b").put("k", b"v", after=BLIND)
    await trio.sleep(10)
    assert (await db.status()).hints_pending == 1
    assert isinstance(await third.bucket("b").get("k", local=True), Missing)
    leafdb_faults.heal()
    await leafdb_cluster.settle()
    assert (await db.status()).hints_pending == 0
    assert isinstance(await third.bucket("b").get("k", local=True), Found)


async def test_three_hours_later_a_hint_is_past_its_window_and_its_node_is_repaired(
    leafdb_cluster: Cluster, leafdb_faults: Faults
) -> None:
    *_, n3 = leafdb_cluster.nodes
    db = await leafdb_cluster.client()
    await db.create_bucket("b")
    await leafdb_faults.kill(n3)
    await db.bucket("b").put("k", b"v", after=BLIND)
    assert (await db.status()).hints_pending == 1
    before = leafdb_cluster.time
    away_s = HINT_AGE_S_MAX + 1800
    await leafdb_cluster.sleep(away_s)
    assert leafdb_cluster.time - before == pytest.approx(away_s)
    assert (await db.status()).hints_pending == 0
    await leafdb_faults.start(n3)
    await leafdb_cluster.settle()
    third = await leafdb_cluster.client(via=n3)
    assert isinstance(await third.bucket("b").get("k", local=True), Found)  # by anti-entropy


async def test_two_of_three_down_is_said_and_after_their_start_all_is_well(
    leafdb_cluster: Cluster, leafdb_faults: Faults
) -> None:
    n1, n2, n3 = leafdb_cluster.nodes
    db = await leafdb_cluster.client()
    await db.create_bucket("b")
    bucket = db.bucket("b")
    await bucket.put("k", b"v", after=BLIND, w="all")
    await leafdb_faults.kill(n2)
    await leafdb_faults.power_cut(n3)
    assert leafdb_cluster.up == (n1,)
    await trio.sleep(10)
    with pytest.raises(NotEnoughReplicas) as few:
        await bucket.get("k")
    assert (few.value.alive, few.value.required) == (1, 2)
    await leafdb_faults.start(n2, n3)
    await leafdb_cluster.settle()
    found = await bucket.get("k", r="all")
    assert isinstance(found, Found)
    assert found.value == b"v"


async def test_delays_and_pauses_take_their_time_and_no_more(leafdb_cluster: Cluster, leafdb_faults: Faults) -> None:
    n1, n2, _ = leafdb_cluster.nodes
    db = await leafdb_cluster.client(via=n1)
    await db.create_bucket("b")
    bucket = db.bucket("b")
    await bucket.get("k")
    leafdb_faults.delay(CLIENTS, n1, 0.25)
    before = leafdb_cluster.time
    await bucket.put("k", b"v", after=BLIND)
    assert 0.25 <= leafdb_cluster.time - before < 0.5
    leafdb_faults.heal()
    with leafdb_faults.paused(n2):
        before = leafdb_cluster.time
        await bucket.put("k", b"v", after=BLIND)  # the other two are enough
        assert leafdb_cluster.time - before < 0.25
    await leafdb_cluster.settle()


async def test_full_disks_refuse_and_wrong_clocks_do_not_matter(leafdb_cluster: Cluster, leafdb_faults: Faults) -> None:
    db = await leafdb_cluster.client()
    await db.create_bucket("b")
    bucket = db.bucket("b")
    for node in leafdb_cluster.nodes:
        leafdb_faults.fill_disk(node)
        leafdb_faults.skew(node, 3600.0 * (node - 2))
    await trio.sleep(60)
    with pytest.raises(NotApplied):
        await bucket.put("k", b"v", after=BLIND)
    leafdb_faults.heal()
    await trio.sleep(60)
    await bucket.put("k", b"v", after=BLIND)


def test_a_synchronous_test_breaks_things_the_same_way(leafdb_cluster: Cluster, leafdb_faults: Faults) -> None:
    n1, n2, n3 = leafdb_cluster.nodes
    db = leafdb_cluster.connect(via=n1, timeout=2.0)
    db.create_bucket("b")
    bucket = db.bucket("b")
    bucket.put("k", b"v", after=BLIND)
    with leafdb_faults.paused(n2), leafdb_faults.paused(n3), pytest.raises(OutcomeUnknown):
        bucket.put("k", b"w", after=BLIND, sloppy=False)
    leafdb_cluster.run(leafdb_faults.kill, n3)
    assert leafdb_cluster.up == (n1, n2)
    leafdb_cluster.run(leafdb_cluster.sleep, 10)
    bucket.put("k", b"x", after=BLIND)
    leafdb_cluster.run(leafdb_faults.start, n3)
    leafdb_cluster.run(leafdb_cluster.settle)
    with pytest.raises(ValueError, match="there is no node 4"):
        leafdb_faults.pause(4)
