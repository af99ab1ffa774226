"""The metadata of whole clusters in one loop: buckets made and dropped, races, lost majorities, impostors."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.node.endings import Expelled
from leafdb.node.register_change import Change
from leafdb.ring.metadata import ClusterMetadata
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import Severed
from leafdb.testing.virtual_time import virtual
from leafdb.types import BucketId, NodeId

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


def wanted(name: str, **properties: object) -> dict[str, object]:
    """What a client asks for."""
    return BucketProperties(id=BucketId(256), name=name, generation=0, **properties).to_wire()  # type: ignore[arg-type]


async def agree(cluster: MemoryCluster, limit_s: float = 60.0) -> None:
    """Wait until all nodes have the same metadata, byte for byte."""
    with trio.fail_after(limit_s):
        while len({node.view.epoch for node in cluster.nodes.values()}) > 1:  # noqa: ASYNC110
            await trio.sleep(0.1)
    encoded = {node.view.metadata.encode() for node in cluster.nodes.values() if node.view.metadata}
    assert len(encoded) == 1


@virtual
async def test_a_bucket_is_known_everywhere_when_its_maker_hears_of_it_and_gone_everywhere_when_dropped() -> None:
    async with memory_cluster(3) as cluster:
        client = await cluster.client(N2)
        bucket = BucketProperties.from_wire(await client.admin("bucket.create", properties=wanted("b", n=2)))
        for node in cluster.nodes.values():
            view = node.view.bucket_named("b")
            assert view is not None
            assert view.properties == bucket
        await client.put(bucket, "k", b"v")
        await client.admin("bucket.drop", name="b")
        for number in cluster.nodes:
            there = await cluster.client(number)
            with pytest.raises(NotApplied) as refused:
                await there.put(bucket, "k", b"v")
            assert refused.value.reason is Reason.NO_SUCH_BUCKET
        again = await cluster.create_bucket("b")
        assert again.id != bucket.id
        assert await client.values(again, "k") == []
        await agree(cluster)


@virtual
async def test_properties_that_may_change_are_in_force_everywhere_when_their_setter_hears_of_it() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket("b")
        client = await cluster.client(N2)
        answer = await client.admin("bucket.set", name="b", properties={"w": 1, "r": 3, "ttl_ms": 60_000})
        changed = BucketProperties.from_wire(answer["bucket"])
        assert changed == replace(bucket, w=1, r=3, ttl_ms=60_000), "number and generation stay: requests go on"
        for node in cluster.nodes.values():
            view = node.view.bucket_named("b")
            assert view is not None
            assert view.properties == changed
        await cluster.kill(N2, N3)
        client = await cluster.client(N1)
        assert await client.put(bucket, "k", b"v"), "W is 1 now, for who still knows the old properties too"
        with pytest.raises(NotApplied):
            await client.values(bucket, "k")
        await cluster.restart(N2, N3)
        await cluster.meet()
        await agree(cluster)


@virtual
async def test_what_decides_where_values_lie_and_what_they_mean_cannot_be_set() -> None:
    async with memory_cluster(3) as cluster:
        before = await cluster.create_bucket("b")
        client = await cluster.client(N1)
        for name, value in (("n", 5), ("conflict", 2), ("durability", 2), ("name", "c"), ("nonsense", 1)):
            with pytest.raises(NotApplied, match=f"{name}: ") as refused:
                await client.admin("bucket.set", name="b", properties={name: value})
            assert refused.value.reason is Reason.BAD_REQUEST
        with pytest.raises(NotApplied, match="w=4 is above n=3"):
            await client.admin("bucket.set", name="b", properties={"w": 4})
        with pytest.raises(NotApplied) as missing:
            await client.admin("bucket.set", name="c", properties={"w": 1})
        assert missing.value.reason is Reason.NO_SUCH_BUCKET
        for properties in (None, [1], "w=1"):
            with pytest.raises(NotApplied):
                await client.admin("bucket.set", name="b", properties=properties)
        view = cluster.nodes[N1].view
        epoch = view.epoch
        await client.admin("bucket.set", name="b", properties={"w": before.w})
        assert view.epoch == epoch, "no change is no epoch"


@virtual
async def test_a_bucket_that_was_made_and_dropped_at_once_was_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(3) as cluster:
        node, client = cluster.nodes[N1], await cluster.client(N1)
        change = node.register.change

        async def change_and_lose(change_of: Change, timeout_s: float) -> ClusterMetadata:
            chosen = await change(change_of, timeout_s)
            made = chosen.bucket_named("b")
            return chosen if made is None else chosen.drop_bucket(made.id)

        monkeypatch.setattr(node.register, "change", change_and_lose)
        with pytest.raises(OutcomeUnknown, match="dropped again at once"):
            await client.admin("bucket.create", properties=wanted("b"))


@virtual
async def test_two_nodes_racing_for_one_name_make_one_bucket() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.002) as cluster:
        for exist_ok in (False, True):
            made: list[BucketProperties] = []
            refused: list[LeafdbError] = []

            async def create(node: NodeId, exist_ok: bool = exist_ok) -> None:
                client = await cluster.client(node)
                try:
                    answer = await client.admin("bucket.create", properties=wanted(f"b{exist_ok}"), exist_ok=exist_ok)
                    made.append(BucketProperties.from_wire(answer))  # noqa: B023
                except LeafdbError as error:
                    refused.append(error)  # noqa: B023

            async with trio.open_nursery() as nursery:
                for node in (N1, N2, N3, N1):
                    nursery.start_soon(create, node)
            assert len({bucket.id for bucket in made}) == 1
            if exist_ok:
                assert len(made) == 4
            else:
                assert len(made) == 1
                assert [error.reason for error in refused if isinstance(error, NotApplied)] == [
                    Reason.BUCKET_EXISTS
                ] * 3
        await agree(cluster)


@virtual
async def test_racing_for_many_names_gives_each_its_own_number() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.002) as cluster:
        made: list[BucketProperties] = []

        async def create(node: NodeId, name: str) -> None:
            client = await cluster.client(node)
            answer = await client.admin("bucket.create", properties=wanted(name))
            made.append(BucketProperties.from_wire(answer))

        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(create, NodeId(number % 3 + 1), f"b{number}")
        assert len({bucket.id for bucket in made}) == 9
        assert len({bucket.generation for bucket in made}) == 9
        await agree(cluster)


@virtual
async def test_without_a_majority_of_the_control_set_buckets_stand_still_and_puts_go_on() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(w=1, r=1)
        client = await cluster.client(N1)
        await cluster.kill(N2, N3)
        await trio.sleep(0.1)
        with pytest.raises(NotApplied) as refused:
            await client.admin("bucket.create", properties=wanted("later"))
        assert refused.value.reason is Reason.NO_QUORUM
        assert await client.put(bucket, "k", b"v")
        assert await client.values(bucket, "k") == [b"v"]
        await cluster.restart(N2, N3)
        await cluster.meet()
        later = BucketProperties.from_wire(await client.admin("bucket.create", properties=wanted("later")))
        assert await client.put(later, "k", b"v")
        await agree(cluster)


@virtual
async def test_members_outside_the_control_set_change_and_learn_all_the_same() -> None:
    async with memory_cluster(5) as cluster:
        metadata = cluster.nodes[N1].view.metadata
        assert metadata is not None
        assert set(metadata.control) == {N1, N2, N3}
        bucket = await cluster.create_bucket("by-five", via=N5)
        await cluster.kill(N4)
        other = await cluster.create_bucket("without-four", via=N5)
        await cluster.start(N4)
        await cluster.meet()
        client = await cluster.client(N4)
        for each in (bucket, other):
            await client.put(each, "k", b"v")
        await agree(cluster)


@virtual
async def test_metadata_and_promises_survive_restarts_and_power_cuts() -> None:
    async with memory_cluster(3) as cluster:
        made = [await cluster.create_bucket("one")]
        for number, way in enumerate((cluster.kill, cluster.power_cut, cluster.stop)):
            await way(N1, N2, N3)
            await cluster.restart(N1, N2, N3)
            await cluster.meet()
            made.append(await cluster.create_bucket(f"after-{number}", via=NodeId(number + 1)))
        assert [int(bucket.id) for bucket in made] == [256, 257, 258, 259]
        listed = await (await cluster.client(N3)).admin("bucket.list")
        assert {bucket["name"] for bucket in listed["buckets"]} == {bucket.name for bucket in made}
        await agree(cluster)


@virtual
async def test_a_node_that_missed_a_change_behind_a_silent_link_learns_it_by_gossip() -> None:
    async with memory_cluster(3) as cluster:
        cluster.cut(N3, (N1, N2), silently=True)
        made = trio.Event()

        async def create() -> None:
            await cluster.create_bucket("b")
            made.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            with trio.fail_after(10):
                await made.wait()
        assert cluster.nodes[N3].view.bucket_named("b") is None
        cluster.heal()
        await agree(cluster)
        assert cluster.nodes[N3].view.bucket_named("b") is not None


@pytest.mark.parametrize("seed", range(3))
@virtual
async def test_changes_through_nodes_that_die_under_way_leave_one_history(seed: int) -> None:
    rng = Random(seed)
    async with memory_cluster(3, seed, disk_latency_s=lambda: rng.expovariate(1 / 0.004)) as cluster:
        outcomes: dict[str, str] = {}

        async def create(name: str, node: NodeId) -> None:
            try:
                client = await cluster.client(node)
                await client.admin("bucket.create", properties=wanted(name))
                outcomes[name] = "made"
            except (Severed, OutcomeUnknown):
                outcomes[name] = "unknown"
            except LeafdbError as error:
                outcomes[name] = error.outcome

        async with trio.open_nursery() as nursery:
            for number in range(24):
                nursery.start_soon(create, f"b{number}", NodeId(rng.randint(1, 3)))
                await trio.sleep(rng.expovariate(1 / 0.05))
                if number % 4 == 3:
                    victim = rng.choice(sorted(cluster.nodes))
                    await cluster.kill(victim)
                    nursery.start_soon(create, f"c{number}", rng.choice(sorted(cluster.nodes)))
                    await trio.sleep(rng.expovariate(1 / 0.05))
                    await cluster.start(victim)
        await cluster.meet()
        await agree(cluster)
        metadata = cluster.nodes[N1].view.metadata
        assert metadata is not None
        there = {bucket.name for bucket in metadata.buckets.values()}
        assert {name for name, outcome in outcomes.items() if outcome == "made"} <= there
        assert not {name for name, outcome in outcomes.items() if outcome == "not_applied"} & there
        assert len(there) >= 8
        # The history goes on.
        await cluster.create_bucket("last", via=N3)


@virtual
async def test_a_disk_rolled_back_to_an_older_state_is_refused_by_those_who_saw_the_newer() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v", w=3)
        old = cluster.disks[N3].power_cut(Random(0), keep=1.0)
        for _ in range(2):
            await cluster.kill(N3)
            await cluster.start(N3)
            await cluster.meet()
        await cluster.kill(N3)
        cluster.disks[N3] = old
        await cluster.start(N3)
        await trio.sleep(8)
        assert N3 not in cluster.nodes[N1].view.usable
        assert N3 not in cluster.nodes[N2].view.usable
        assert (await client.put(bucket, "k", b"w", (await client.get(bucket, "k")).context)).acks == 2
        status = await client.admin("status")
        assert not status["healthy"]
        assert any("rolled back" in problem for problem in status["problems"]), status["problems"]


@virtual
async def test_a_copy_of_a_disk_that_runs_beside_the_original_is_refused() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.kill(N3)
        clone = cluster.disks[N3].power_cut(Random(0), keep=1.0)
        await cluster.start(N3)
        await cluster.meet()
        # The original goes; the copy comes up with the same count of starts and another nonce.
        await cluster.kill(N3)
        cluster.disks[N3] = clone
        await cluster.start(N3)
        await trio.sleep(8)
        failure = cluster.processes[N3].failure
        assert isinstance(failure, Expelled)
        assert "from a copy" in str(failure), "it says why, and has stopped"
        assert any(cluster.nodes[node].admission.refusals.get(N3) for node in (N1, N2))
        for node in (N1, N2):
            assert N3 not in cluster.nodes[node].view.usable


@virtual
async def test_a_draining_node_refuses_new_work_and_ends_with_its_hints_handed_over() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"v")
        cluster.processes[N1].drain.set()
        with pytest.raises((NotApplied, Severed)) as refused:
            await client.put(bucket, "k2", b"v")
        if isinstance(refused.value, NotApplied):
            assert refused.value.reason is Reason.DRAINING
        with trio.fail_after(60):
            await cluster.processes[N1].ended.wait()
        other = await cluster.client(N2)
        assert await other.values(bucket, "k") == [b"v"]
        node = await cluster.start(N1)
        assert node.engine.recovery.clean
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)
