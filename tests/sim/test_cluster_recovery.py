"""The majority of the control set is gone for good: the cluster is recovered, and who comes back follows."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.node.admin_recovery import adopt
from leafdb.ring.recovery import recovered
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.ring_operators import Copies, committed, copying, metadata_of, operator, until_phase

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


async def agreed(cluster: MemoryCluster, generation: int, limit_s: float = 60.0) -> None:
    """Wait until all running nodes believe the same of this generation, byte for byte."""
    with trio.fail_after(limit_s):
        while len({node.view.epoch for node in cluster.nodes.values()}) > 1 or any(  # noqa: ASYNC110
            metadata_of(cluster, node).generation != generation for node in cluster.nodes
        ):
            await trio.sleep(0.1)
    assert len({metadata_of(cluster, node).encode() for node in cluster.nodes}) == 1


async def lose_the_majority(cluster: MemoryCluster) -> None:
    """Two of three acceptors go, with a bucket that nobody else has heard of."""
    cluster.cut(N2, [N1, N4, N5])
    cluster.cut(N3, [N1, N4, N5])
    client = await cluster.client(N2)
    await client.admin("bucket.create", properties={**(await kept(cluster)), "name": "unheard"})
    heard = {node for node in cluster.nodes if metadata_of(cluster, node).bucket_named("unheard")}
    assert heard == {N2, N3}
    await cluster.kill(N2, N3)
    cluster.heal()
    await trio.sleep(20)


async def kept(cluster: MemoryCluster) -> dict[str, object]:
    """The properties of the bucket there is."""
    return next(iter(metadata_of(cluster, N1).buckets.values())).to_wire()


@virtual
async def test_a_lost_majority_is_replaced_and_its_members_follow_when_they_return() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster)
        bucket = await cluster.create_bucket("kept", n=3, r=1, w=1)
        await lose_the_majority(cluster)
        client = await cluster.client(N5)
        shown = await client.admin("cluster.recover", lost=[])
        assert not shown["done"]
        assert shown["without"] == ["n2", "n3"]
        assert "only n2, n3 can have known of them" in shown["lost"][0]
        assert metadata_of(cluster, N4).generation == 1, "that was a dry run"

        made = await client.admin("cluster.recover", dry_run=False, cluster="test", lost=["n2", "n3"])
        assert made["control"] == ["n1", "n4", "n5"]
        generation = int(made["generation"])
        await agreed(cluster, generation)
        after = await cluster.create_bucket("after", via=N4, n=3)
        assert after.id > bucket.id + 1, "a number that the lost ones may have given is not given again"
        await client.put(bucket, "k", b"v")

        await cluster.start(N2)
        await cluster.start(N3)
        await agreed(cluster, generation)
        assert {each.name for each in metadata_of(cluster, N2).buckets.values()} == {"kept", "after"}
        await cluster.meet()
        await cluster.create_bucket("through-one-of-them", via=N3)
        with pytest.raises(NotApplied, match="nothing to recover") as refused:
            await client.admin("cluster.recover")
        assert refused.value.reason is Reason.CONTROL_SET


@virtual
async def test_ring_changes_work_again_and_the_lost_ones_go_by_a_plan() -> None:
    async with memory_cluster(5) as cluster:
        await cluster.create_bucket("kept", n=3)
        await lose_the_majority(cluster)
        await operator(cluster, N4, "cluster.recover", dry_run=False, cluster="test", lost=[2, 3])
        copying(cluster)
        away = ({"change": "force-remove", "node": 2}, {"change": "force-remove", "node": "n3"})
        await committed(cluster, N1, *away, force=True)
        await until_phase(cluster, None)
        assert metadata_of(cluster, N5).bans == (N2, N3)
        assert set(metadata_of(cluster, N5).owners) == {N1, N4, N5}


@virtual
async def test_the_old_majority_cannot_go_on_beside_the_new_one_once_it_has_heard() -> None:
    """It was not lost after all: apart it goes on for itself, and all of that ends when the cut is mended."""
    async with memory_cluster(5) as cluster:
        await cluster.create_bucket("kept", n=3)
        await lose_the_majority(cluster)
        made = await operator(cluster, N4, "cluster.recover", dry_run=False, cluster="test", lost=[2, 3])
        for node in (N2, N3):
            cluster.cut(node, [N1, N4, N5], silently=True)
        await cluster.start(N2)
        await cluster.start(N3)
        await trio.sleep(5)
        client = await cluster.client(N2)
        await client.admin("bucket.create", properties={**(await kept(cluster)), "name": "split"})
        assert metadata_of(cluster, N3).bucket_named("split")
        await cluster.create_bucket("new", via=N5)
        cluster.heal()
        await agreed(cluster, int(made["generation"]), 120)
        assert not metadata_of(cluster, N3).bucket_named("split")
        for node in (N2, N3):
            with pytest.raises(LeafdbError):
                await cluster.create_bucket("new", via=node)


@virtual
async def test_an_old_acceptor_that_comes_into_the_new_control_set_brings_nothing_of_the_old_one() -> None:
    async with memory_cluster(5) as cluster:
        await cluster.create_bucket("kept", n=3)
        for number in range(5):  # its ballots are high
            await cluster.create_bucket(f"b{number}", via=N2)
        await lose_the_majority(cluster)
        made = await operator(cluster, N4, "cluster.recover", dry_run=False, cluster="test", lost=[2, 3])
        await cluster.start(N2)
        await cluster.start(N3)
        await agreed(cluster, int(made["generation"]))
        copying(cluster)
        await cluster.meet()
        await committed(cluster, N1, {"change": "leave", "node": 4}, {"change": "leave", "node": 5})
        await until_phase(cluster, None, N1, N2, N3)
        await cluster.kill(N4, N5)
        assert metadata_of(cluster, N2).control == (N1, N2, N3)
        await cluster.kill(N1)
        await cluster.create_bucket("by-two-and-three", via=N3)
        assert metadata_of(cluster, N2).generation == made["generation"]
        await cluster.start(N1)
        cluster.nodes[N1].transfers = Copies().transfers
        await agreed(cluster, int(made["generation"]))


@virtual
async def test_nobody_is_left_behind_unnamed_and_the_name_of_the_cluster_is_typed() -> None:
    async with memory_cluster(5) as cluster:
        with pytest.raises(NotApplied, match="nothing to recover"):
            await operator(cluster, N1, "cluster.recover")
        await cluster.kill(N2, N3, N5)
        await trio.sleep(20)
        for args, why in (
            ({"lost": [2, 3], "cluster": "test"}, "n5 cannot be reached"),
            ({"lost": [2, 3, 4, 5], "cluster": "test"}, "n4 can be reached"),
            ({"lost": [2, 3, 5], "cluster": "tset"}, "type the cluster's name"),
            ({"lost": [2, 3, 5, 9], "cluster": "test"}, "no member"),
        ):
            with pytest.raises(NotApplied, match=why):
                await operator(cluster, N1, "cluster.recover", dry_run=False, **args)
        assert metadata_of(cluster, N1).generation == 1


@virtual
async def test_of_two_recoveries_at_once_one_generation_comes() -> None:
    async with memory_cluster(5, disk_latency_s=lambda: 0.003) as cluster:
        await cluster.create_bucket("kept", n=3)
        await lose_the_majority(cluster)
        outcomes: list[str] = []

        async def recover(node: NodeId) -> None:
            try:
                await operator(cluster, node, "cluster.recover", dry_run=False, cluster="test", lost=[2, 3])
                outcomes.append("done")
            except LeafdbError as error:
                outcomes.append(str(error))

        async with trio.open_nursery() as nursery:
            for node in (N1, N4, N5):
                nursery.start_soon(recover, node)
        assert "done" in outcomes
        await agreed(cluster, 4)
        await cluster.create_bucket("after", via=N5)


@virtual
async def test_one_who_knows_more_than_a_recovery_was_made_from_does_not_begin_it() -> None:
    async with memory_cluster(3) as cluster:
        old = metadata_of(cluster, N1)
        await cluster.create_bucket()
        args = {"metadata": recovered(old, (N1,), 2).encode(), "base": list(old.version)}
        with pytest.raises(NotApplied, match="knows more"):
            await adopt(cluster.nodes[N1], args)
        assert metadata_of(cluster, N1).generation == 1
        newest = metadata_of(cluster, N1)
        made = recovered(newest, (N1,), 2)
        for _ in range(2):
            await adopt(cluster.nodes[N1], {"metadata": made.encode(), "base": list(newest.version)})
        assert metadata_of(cluster, N1) == made
        other = recovered(newest, (N2,), 2)
        with pytest.raises(NotApplied, match="at the same time"):
            await adopt(cluster.nodes[N1], {"metadata": other.encode(), "base": list(newest.version)})


@virtual
async def test_a_recovery_whose_maker_dies_after_its_first_step_is_finished_by_gossip() -> None:
    async with memory_cluster(5, disk_latency_s=lambda: 0.01) as cluster:
        await cluster.create_bucket("kept", n=3)
        await lose_the_majority(cluster)

        async def recover() -> None:
            with pytest.raises(Exception, match=r"."):
                await operator(cluster, N5, "cluster.recover", dry_run=False, cluster="test", lost=[2, 3])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(recover)
            with trio.fail_after(20):
                while metadata_of(cluster, N1).generation == 1:  # noqa: ASYNC110
                    await trio.sleep(0.0005)
            await cluster.kill(N5)
        await agreed(cluster, 4)
        await cluster.create_bucket("by-two-of-three", via=N4)
        await cluster.start(N5)
        await agreed(cluster, 4)
