"""Proofs of horizons under load and against members that have better things to do: what rises is true, and what does
not is tried again."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

from leafdb.config import RepairConfig
from leafdb.errors import LeafdbError
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.record import first, header
from leafdb.node import admin
from leafdb.node.purge_proof import Outcome
from leafdb.node.purge_rules import Hold
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.stores import tree_of
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, TreeId
from support.purging import die, holds, horizons, key_in, proof_at, write_and_delete
from support.repair_settings import repairing_cluster
from support.repairs import WRITER, plant, record_of
from support.transports import until

N1, N2, N3, N4 = NodeId(1), NodeId(2), NodeId(3), NodeId(4)
NODES = (N1, N2, N3)
INTERVAL_S = 20.0
SOON = RepairConfig(purge_interval_s=INTERVAL_S)
SELDOM = RepairConfig(purge_interval_s=86_400.0)
ALL = range(64)
EVERYTHING = (1 << 64) - 1


async def not_everywhere(cluster: MemoryCluster, stamp: int, tree: TreeId) -> list[str]:
    """What some owner shows from below a stamp and another one has never seen."""
    trees = {node: await tree_of(cluster.nodes[node], tree) for node in NODES}
    missing = []
    for node, records in trees.items():
        for key, record in records.items():
            old = [dot for dot, head in header(record).heads.items() if head.stamp < stamp]
            for other, theirs in trees.items():
                seen = header(theirs[key]).clock if key in theirs else None
                missing += [f"{dot} of n{node} at n{other}" for dot in old if seen is None or not seen.covers(dot)]
    return missing


@virtual
async def test_below_a_horizon_every_owner_has_everything_though_clients_write_all_the_time() -> None:
    async with repairing_cluster(RepairConfig(purge_interval_s=86_400.0, hints_bytes_max=0)) as cluster:
        bucket = await cluster.create_bucket()
        raised = 0
        async with trio.open_nursery() as nursery:

            async def write(via: NodeId) -> None:
                client, number = await cluster.client(via), 0
                while True:
                    number += 1
                    with suppress(LeafdbError):
                        value = None if number % 5 == 0 else b"v"
                        await client.put(bucket, f"key{number % 31}", value, w=1, timeout_s=0.5)
                    await trio.sleep(0.02)

            for node in NODES:
                nursery.start_soon(write, node)
            for number in range(5):
                one, other = sample(NODES, number)
                cluster.cut(one, (other,), silently=number % 2 == 0)
                await trio.sleep(0.4)
                cluster.heal()
                await cluster.meet()
                stamp = (cluster.now_ms() - 100) << LOGICAL_BITS
                for at in range(8):
                    mine = first(WRITER.actor(8 * number + at + 1), stamp, 0, bytes(16), b"nobody else has it")
                    await plant(cluster.nodes[NODES[at % 3]], "b", f"planted{number}-{at}", mine)
                outcome = await proof_at(cluster.nodes[N1 if number % 3 else N2], EVERYTHING).run()
                if outcome.raised == EVERYTHING:
                    raised += 1
                    assert not await not_everywhere(cluster, outcome.stamp, TreeId(bucket.id))
            nursery.cancel_scope.cancel()
        assert raised >= 3
        await cluster.settle()


def sample(nodes: tuple[NodeId, ...], number: int) -> tuple[NodeId, NodeId]:
    """Two of them, other ones each time."""
    return nodes[number % len(nodes)], nodes[(number + 1) % len(nodes)]


@virtual
async def test_records_that_are_others_hold_up_their_partition_and_a_look_for_them_all() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        leftovers = cluster.nodes[N2].estate.leftovers
        bucket = cluster.nodes[N2].view.bucket_named("b")
        assert bucket is not None
        leftovers._left[bucket.id] = 1 << 7  # what a look would find
        outcome = await proof_at(cluster.nodes[N1], EVERYTHING).run()
        leftovers._left.pop(bucket.id, None)
        assert outcome.raised == EVERYTHING & ~(1 << 7)
        assert holds(outcome) == {(N2, Hold.LEFTOVER)}
        leftovers._late = True
        outcome = await proof_at(cluster.nodes[N1], EVERYTHING).run()
        assert (outcome.raised, holds(outcome)) == (0, {(N2, Hold.LEFTOVER)})
        leftovers._late = False


@virtual
async def test_a_member_with_all_places_taken_for_a_moment_does_not_stop_a_proof(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        outcomes: list[Outcome] = []

        async def lead() -> None:
            outcomes.append(await proof_at(cluster.nodes[N1], EVERYTHING).run())

        async with trio.open_nursery() as nursery:
            monkeypatch.setattr(admin, "VERBS_MAX", 0)
            nursery.start_soon(lead)
            await trio.sleep(0.5)
            monkeypatch.setattr(admin, "VERBS_MAX", 64)
        assert outcomes[0].raised == EVERYTHING


@virtual
async def test_a_proof_that_raises_nothing_is_tried_again_later_each_time_until_somebody_asks() -> None:
    async with repairing_cluster(SOON) as cluster:
        await write_and_delete(cluster)
        three = cluster.nodes[N3]
        bucket = three.view.bucket_named("b")
        assert bucket is not None
        three.hint_pauses.set(N2, paused=True)
        three.handoff.on_pauses()
        for partition in ALL:
            kept = trio.Event()
            three.hints.keep(N2, bucket, key_in(bucket, partition), record_of(1), lambda _, kept=kept: kept.set())  # type: ignore[misc]
            await kept.wait()
        die(cluster, ALL)
        begun = {node: cluster.nodes[node].metrics.purge_proofs_begun_total for node in NODES}
        await trio.sleep(18 * INTERVAL_S)
        tries = [cluster.nodes[node].metrics.purge_proofs_begun_total - begun[node] for node in NODES]
        assert all(3 <= count <= 5 for count in tries), f"after 1, 2, 4, 8 intervals, not after each: {tries}"
        assert cluster.nodes[N1].purge.driver.held_up()["hint"] > 0
        three.hint_pauses.set(N2, paused=False)
        three.handoff.on_pauses()
        await cluster.settle()
        assert all(horizons(node, ALL) == {0} for node in cluster.nodes.values())
        client = await cluster.client(N2)
        await client.admin("repair.purge", node="n1")
        await until(lambda: 0 not in horizons(cluster.nodes[N1], cluster.nodes[N1].purge.driver.waiting()), 20.0)
        assert cluster.nodes[N1].metrics.purge_proofs_made_total == 1
