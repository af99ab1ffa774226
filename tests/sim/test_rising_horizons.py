"""Purge horizons in clusters of real nodes: they rise when every member has agreed, and not otherwise."""

from __future__ import annotations

import trio

from leafdb.config import RepairConfig
from leafdb.model.hlc import stamp_ms
from leafdb.node.purge_proof import Outcome
from leafdb.node.purge_rules import Hold
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId
from support import plans
from support.purging import die, holds, horizons, key_in, proof_at, purge_report, write_and_delete
from support.repair_settings import configure, repairing_cluster
from support.repairs import record_of
from support.transports import until

N1, N2, N3, N4 = NodeId(1), NodeId(2), NodeId(3), NodeId(4)
NODES = (N1, N2, N3)
INTERVAL_S = 20.0
SOON = RepairConfig(purge_interval_s=INTERVAL_S)
SELDOM = RepairConfig(purge_interval_s=86_400.0)
ALL = range(64)
EVERYTHING = (1 << 64) - 1


@virtual
async def test_horizons_rise_within_the_interval_where_something_died_and_nowhere_else() -> None:
    async with repairing_cluster(SOON) as cluster:
        await write_and_delete(cluster)
        died_at = cluster.now_ms() - 5_000
        die(cluster, range(40))
        await trio.sleep(1.5 * INTERVAL_S)
        for node in cluster.nodes.values():
            assert all(stamp_ms(stamp) > died_at for stamp in horizons(node, range(40)))
            assert horizons(node, range(40, 64)) == {0}
            assert all(node.horizons.vouches(partition) for partition in ALL)
            assert not node.anti_entropy.report(), "no task that anybody would want to know of"
            assert not node.anti_entropy.pending
        made = sum(node.metrics.purge_proofs_made_total for node in cluster.nodes.values())
        assert made == 3, "each leader proves all it leads in one go"
        history = await (await cluster.client(N1)).admin("ring.history")
        assert not any("horizon" in line["what"] for line in history["items"])


@virtual
async def test_where_nothing_dies_nobody_is_asked_anything() -> None:
    async with repairing_cluster(SOON) as cluster:
        await write_and_delete(cluster)
        epochs = {node.view.epoch for node in cluster.nodes.values()}
        asked = sum(node.metrics.admin_total for node in cluster.nodes.values())
        await trio.sleep(20 * INTERVAL_S)
        assert sum(node.metrics.admin_total for node in cluster.nodes.values()) == asked
        assert {node.view.epoch for node in cluster.nodes.values()} == epochs
        assert all(node.purge.driver.tries > 10 for node in cluster.nodes.values()), "they did look"


@virtual
async def test_a_member_that_is_down_holds_all_up_is_named_and_forgotten_when_it_is_back() -> None:
    async with memory_cluster(4, owners=NODES) as cluster:
        await configure(cluster, SOON)
        await write_and_delete(cluster)
        await cluster.kill(N4)
        await trio.sleep(30)
        die(cluster, ALL)
        dead_at = cluster.now_ms()
        await trio.sleep(4 * INTERVAL_S)
        assert all(horizons(node, ALL) == {0} for node in cluster.nodes.values()), "n4 owns nothing, and counts"
        line = await purge_report(cluster, N1)
        assert line["waiting"] > 0
        assert line["oldest_s"] >= 4 * INTERVAL_S + 5.0
        (held,) = line["held_up"]
        assert (held["member"], held["hold"], held["partitions"]) == ("n4", "unreachable", line["waiting"])
        assert held["why"].startswith("it cannot be asked")
        assert dead_at <= held["since_ms"] <= dead_at + 1.5 * INTERVAL_S * 1_000
        assert held["since_s"] > 2 * INTERVAL_S, "since it was first noticed, not since the last try"
        assert line["last"] == {}, "it was known beforehand: nobody was asked"
        await cluster.start(N4)
        await cluster.settle()
        client = await cluster.client(N1)
        tried = (await client.admin("repair.purge"))["nodes"]
        assert sorted(tried) == ["n1", "n2", "n3", "n4"]
        await until(lambda: cluster.nodes[N1].purge.driver.tries >= tried["n1"]["try"], 10.0)
        assert (await purge_report(cluster, N1))["held_up"] == []
        assert (await purge_report(cluster, N1))["waiting"] == 0


@virtual
async def test_two_leaders_of_the_same_partitions_do_each_other_no_harm() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        outcomes: list[Outcome] = []

        async def lead(leader: NodeId, after_s: float) -> None:
            await trio.sleep(after_s)
            outcomes.append(await proof_at(cluster.nodes[leader], EVERYTHING).run())

        for apart_s in (0.0, 0.05, 0.6):
            before = len(outcomes)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lead, N1, 0.0)
                nursery.start_soon(lead, N2, apart_s)
            assert not any(outcome.held_up for outcome in outcomes[before:])
            await until(lambda: len({node.view.epoch for node in cluster.nodes.values()}) == 1, 10.0)
            newest = max(outcome.stamp for outcome in outcomes)
            for node in cluster.nodes.values():
                assert horizons(node, ALL) == {newest}
                assert all(node.horizons.mark(partition) == newest for partition in ALL)


@virtual
async def test_a_member_that_was_started_anew_has_forgotten_its_promise() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        run = proof_at(cluster.nodes[N1], EVERYTHING)

        async def again() -> None:
            await cluster.stop(N3)
            await cluster.start(N3)
            await cluster.meet()

        run.before_end = again
        outcome = await run.run()
        assert outcome.raised == 0
        assert holds(outcome) == {(N3, Hold.FORGOTTEN)}
        assert all(horizons(node, ALL) == {0} for node in cluster.nodes.values())


@virtual
async def test_a_hint_that_was_taken_in_since_holds_up_its_partition_and_no_other() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        bucket = cluster.nodes[N3].view.bucket_named("b")
        assert bucket is not None
        run = proof_at(cluster.nodes[N1], EVERYTHING)
        kept = trio.Event()

        async def keep() -> None:
            three = cluster.nodes[N3]
            three.hints.keep(N2, bucket, key_in(bucket, 9), record_of(1), lambda _: kept.set())
            await kept.wait()
            await until(lambda: not three.hints.ledger.kept(), 10.0)

        run.before_end = keep
        outcome = await run.run()
        assert outcome.raised == EVERYTHING & ~(1 << 9)
        assert holds(outcome) == {(N3, Hold.HINT)}
        assert cluster.nodes[N2].horizons.of(9) == 0


@virtual
async def test_a_hint_that_is_kept_stops_the_proof_of_its_partition_from_the_beginning() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        three = cluster.nodes[N3]
        bucket = three.view.bucket_named("b")
        assert bucket is not None
        three.hint_pauses.set(N2, paused=True)
        three.handoff.on_pauses()
        kept = trio.Event()
        three.hints.keep(N2, bucket, key_in(bucket, 9), record_of(1), lambda _: kept.set())
        await kept.wait()
        outcome = await proof_at(cluster.nodes[N1], EVERYTHING).run()
        assert outcome.raised == EVERYTHING & ~(1 << 9)
        (held,) = outcome.held_up
        assert (held.member, held.refusal) == (N3, (Hold.HINT, "it keeps hints for n2", 1 << 9))
        three.hint_pauses.set(N2, paused=False)
        three.handoff.on_pauses()
        await cluster.settle()
        assert (await proof_at(cluster.nodes[N1], 1 << 9).run()).raised == 1 << 9


@virtual
async def test_a_member_that_is_cut_off_before_the_end_stops_the_proof() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        run = proof_at(cluster.nodes[N1], EVERYTHING)

        async def cut() -> None:
            cluster.cut(N3, (N1, N2), silently=True)

        run.before_end = cut
        outcome = await run.run()
        assert outcome.raised == 0
        assert holds(outcome) == {(N3, Hold.UNREACHABLE)}
        cluster.heal()
        await cluster.settle()
        assert all(horizons(node, ALL) == {0} for node in cluster.nodes.values())
        assert (await proof_at(cluster.nodes[N1], EVERYTHING).run()).raised == EVERYTHING


@virtual
async def test_a_session_lost_while_owners_compare_ends_the_proof_at_once() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        run = proof_at(cluster.nodes[N1], EVERYTHING)

        async def kill() -> None:
            await cluster.kill(N2)

        run.after_first_look = kill
        began = trio.current_time()
        outcome = await run.run()
        assert outcome.raised == 0
        assert holds(outcome) == {(N2, Hold.UNREACHABLE)}
        assert trio.current_time() - began < 10.0
        assert cluster.nodes[N3].horizons.mark(0) == 0, "nobody was asked to agree"


@virtual
async def test_what_a_member_agreed_to_binds_it_after_a_power_cut() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster, durability=Durability.PERIODIC)
        cluster.skew_ms[N1] = 4_900
        run = proof_at(cluster.nodes[N1], EVERYTHING)

        async def cut() -> None:
            await cluster.power_cut(N2, N3, keep=0.0)

        run.after_end = cut
        outcome = await run.run()
        cluster.skew_ms[N1] = 0
        await cluster.restart(N2, N3)
        for node in (cluster.nodes[N2], cluster.nodes[N3]):
            assert node.leases.clock.last >= outcome.stamp
            assert all(node.horizons.mark(partition) >= outcome.stamp for partition in ALL)
        await cluster.settle()
        bucket = cluster.nodes[N2].view.bucket_named("b")
        assert bucket is not None
        client = await cluster.client(N2)
        await client.put(bucket.properties, "new", b"v")
        assert cluster.nodes[N2].leases.clock.last > outcome.stamp


@virtual
async def test_clocks_that_are_far_apart_hold_nothing_up_and_nobody_is_dragged() -> None:
    """The slowest decides. It was refused, again and again, for as long as one clock was slow."""
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        cluster.skew_ms[N1] = 60_000
        cluster.skew_ms[N2] = -60_000
        outcome = await proof_at(cluster.nodes[N1], EVERYTHING).run()
        assert not outcome.held_up
        assert outcome.raised == EVERYTHING
        assert abs(stamp_ms(outcome.stamp) - (cluster.now_ms() - 60_000)) < 5_000, "that of n2"
        assert stamp_ms(cluster.nodes[N3].leases.clock.last) < cluster.now_ms() + 20_000, "its own lease, not n1"


@virtual
async def test_a_single_node_and_a_bucket_with_one_copy_have_horizons_as_well() -> None:
    async with memory_cluster(1) as cluster:
        await configure(cluster, SOON)
        await cluster.create_bucket(n=1)
        die(cluster, ALL)
        await until(lambda: 0 not in horizons(cluster.nodes[N1], ALL), 2 * INTERVAL_S)
    async with memory_cluster(3) as cluster:
        await configure(cluster, SOON)
        await write_and_delete(cluster, n=1)
        die(cluster, ALL)
        await until(lambda: all(0 not in horizons(node, ALL) for node in cluster.nodes.values()), 2 * INTERVAL_S)
        assert not any(node.metrics.exchanges_total for node in cluster.nodes.values())


@virtual
async def test_an_incomplete_owner_holds_up_what_it_may_lack_and_no_more() -> None:
    async with repairing_cluster(SELDOM) as cluster:
        await write_and_delete(cluster)
        run = proof_at(cluster.nodes[N1], EVERYTHING)

        async def doubt() -> None:
            cluster.nodes[N2].completeness.doubt([3])
            cluster.nodes[N3].horizons.retract([5], "for the test")

        run.before_end = doubt
        outcome = await run.run()
        assert outcome.raised == EVERYTHING & ~(1 << 3)
        assert holds(outcome) == {(N2, Hold.INCOMPLETE)}
        cluster.nodes[N2].completeness.proved(3)
        run = proof_at(cluster.nodes[N1], EVERYTHING)
        run.before_end = doubt
        outcome = await run.run()
        assert outcome.raised == EVERYTHING & ~(1 << 3 | 1 << 5), "there is a horizon now, to be vouched for"
        assert holds(outcome) == {(N2, Hold.INCOMPLETE), (N3, Hold.UNVOUCHED)}
        cluster.nodes[N2].completeness.proved(3)


@virtual
async def test_whoever_joins_meanwhile_was_not_asked_so_nothing_rises() -> None:
    with plans.by_hand():
        async with repairing_cluster(SELDOM) as cluster:
            await write_and_delete(cluster)
            machine = await cluster.add_node()
            run = proof_at(cluster.nodes[N1], EVERYTHING)

            async def join() -> None:
                await plans.join(cluster, N2, machine)

            run.after_end = join
            outcome = await run.run()
            assert outcome.raised == 0
            assert holds(outcome) == {(N1, Hold.RING)}
            outcome = await proof_at(cluster.nodes[N1], EVERYTHING).run()
            assert {(node, Hold.RING) for node in NODES} <= holds(outcome), "as long as the plan lasts"
            assert not any(node.view.metadata and node.view.metadata.horizons for node in cluster.nodes.values())
            await plans.give_up(cluster.nodes[N1])
