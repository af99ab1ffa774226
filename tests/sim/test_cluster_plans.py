"""Plans in whole clusters: who drives them, what stops them, and that of two operators exactly one wins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.node.plan_driver import STEPS
from leafdb.node.plan_rules import Action
from leafdb.ring.plan import Phase
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.vfs.memory import MemoryFileSystem
from support.repairs import record_of
from support.ring_operators import (
    Copies,
    blank,
    committed,
    copying,
    metadata_of,
    operator,
    phases,
    until_phase,
)
from support.transports import until

N1, N2, N3, N4, N5, N6 = map(NodeId, range(1, 7))
OLD, NEW, BACK = Phase.WRITE_BOTH_READ_OLD, Phase.WRITE_BOTH_READ_NEW, Phase.RETREAT


@virtual
async def test_a_newcomer_is_called_in_and_owns_its_share_when_the_plan_is_done() -> None:
    async with memory_cluster(3) as cluster:
        copying(cluster)
        await blank(cluster, done=False)
        staged = await operator(cluster, N2, "cluster.stage", change="join", address="host-4:2")
        assert staged["staged"] == ["n4 joins from host-4:2"]
        await committed(cluster, N3)
        with trio.fail_after(10):
            while cluster.nodes[N4].view.metadata is None:  # noqa: ASYNC110
                await trio.sleep(0.1)
        await cluster.meet()
        await trio.sleep(5)
        assert set(phases(cluster).values()) == {OLD}, "its copies are not made"
        waiting = (await operator(cluster, N2, "transfer.list"))["waiting"]
        assert waiting == ["n4 has 0 of 0 exchanges to do"]
        status = await operator(cluster, N3, "status")
        assert status["notices"] == [
            "the ring is changing: write both, read old", "the change waits: n4 has 0 of 0 exchanges to do",
        ]  # fmt: skip
        assert status["healthy"], "what goes on by itself is no problem"

        cluster.nodes[N4].transfers = Copies().transfers
        await until_phase(cluster, None)
        metadata = metadata_of(cluster, N4)
        assert metadata.owners.count(N4) == 16
        assert (await operator(cluster, N4, "status"))["healthy"]
        told = [item["what"] for item in (await operator(cluster, N1, "ring.history"))["items"]]
        assert [line.split(":")[0].split(" ")[0] for line in told] == ["plan", "plan", "plan", "staged", "founded"]
        assert told[0].endswith("done: n4 joins")
        assert metadata.control == (N1, N2, N3)


@virtual
async def test_who_leaves_is_taken_out_of_the_control_set_first_and_banned_last() -> None:
    async with memory_cluster(4) as cluster:
        copying(cluster)
        await committed(cluster, N4, {"change": "leave", "node": "n1"})
        await until_phase(cluster, None, N2, N3, N4)
        metadata = metadata_of(cluster, N2)
        assert metadata.control == (N2, N3, N4)
        assert metadata.bans == (N1,)
        assert N1 not in metadata.members
        await cluster.kill(N1)


@virtual
async def test_of_two_operators_at_once_exactly_one_wins_and_the_other_is_told_its_plan_is_stale() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster, done=False)
        await operator(cluster, N1, "cluster.stage", change="leave", node="n4")
        first = bytes((await operator(cluster, N1, "cluster.plan"))["plan_id"])
        await operator(cluster, N5, "cluster.stage", change="leave", node=5)
        second = bytes((await operator(cluster, N5, "cluster.plan"))["plan_id"])
        assert first != second
        outcomes: dict[bytes, LeafdbError | None] = {}

        async def commit(node: NodeId, plan_id: bytes) -> None:
            try:
                await operator(cluster, node, "cluster.commit", plan_id=plan_id, force=False)
                outcomes[plan_id] = None
            except LeafdbError as error:
                outcomes[plan_id] = error

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit, N1, first)
            nursery.start_soon(commit, N5, second)
        lost = outcomes[first]
        assert isinstance(lost, NotApplied)
        assert lost.reason is Reason.PLAN_STALE
        assert outcomes[second] is None
        await commit(N3, second)
        assert outcomes[second] is None, "what was committed is committed"
        for node in cluster.nodes:
            plan = metadata_of(cluster, node).plan
            assert plan is not None
            assert plan.id == second


@pytest.mark.parametrize("seed", range(3))
@virtual
async def test_two_different_plans_committed_through_two_nodes_leave_one(seed: int) -> None:
    """Each operator stages, plans and commits as quickly as it can, while the other does the same."""
    async with memory_cluster(4, seed, disk_latency_s=lambda: 0.002) as cluster:
        copying(cluster, done=False)
        won: list[tuple[NodeId, bytes]] = []
        refused: list[Reason] = []

        async def operate(node: NodeId, who: str) -> None:
            try:
                won.append((node, await committed(cluster, node, {"change": "leave", "node": who})))
            except NotApplied as error:
                refused.append(error.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(operate, N1, "n3")
            nursery.start_soon(operate, N4, "n2")
        assert len({plan_id for _, plan_id in won}) == 1
        assert set(refused) <= {Reason.PLAN_STALE, Reason.PLAN_IN_PROGRESS}
        await trio.sleep(5)
        ids = {metadata_of(cluster, node).plan.id for node in cluster.nodes}  # type: ignore[union-attr]
        assert ids == {won[0][1]}


@pytest.mark.parametrize("phase", [OLD, NEW, BACK])
@virtual
async def test_a_driver_that_dies_is_followed_by_the_next_one(phase: Phase) -> None:
    async with memory_cluster(5) as cluster:
        copies = copying(cluster, done=False)
        await committed(cluster, N3, {"change": "force-remove", "node": 5}, force=True)
        await cluster.kill(N5)
        if phase is not OLD:
            copies[N4].stuck = NEW, cluster.nodes[N4].view
            for each in copies.values():
                each.done = True
            await until_phase(cluster, NEW)
        if phase is BACK:
            cluster.cut(N4, [N1, N2, N3], silently=True)  # who does not hear of it holds it where it is
            await operator(cluster, N2, "cluster.abort")
            await until_phase(cluster, BACK, N1, N2, N3)
        await cluster.kill(N1)
        cluster.heal()
        copying(cluster)
        await trio.sleep(20)
        assert set(phases(cluster).values()) == {phase}, "n1 is an owner, and not given up"
        assert cluster.nodes[N2].ring_changes.waiting()[0].startswith("n1 is down")
        await cluster.start(N1)
        cluster.nodes[N1].transfers = Copies().transfers
        await until_phase(cluster, None)
        metadata = metadata_of(cluster, N2)
        assert (N5 in metadata.members) == (phase is BACK)


@virtual
async def test_the_next_driver_takes_the_steps_when_the_first_is_given_up_itself() -> None:
    async with memory_cluster(5) as cluster:
        copies = copying(cluster, done=False)
        await committed(cluster, N3, {"change": "force-remove", "node": 1}, force=True)
        await cluster.kill(N1)
        for each in copies.values():
            each.done = True
        await until_phase(cluster, None)
        metadata = metadata_of(cluster, N5)
        assert metadata.bans == (N1,)
        assert N1 not in metadata.control


@pytest.mark.parametrize("phase", [OLD, NEW])
@virtual
async def test_an_aborted_plan_leaves_the_ring_as_it_was_and_may_be_tried_again(phase: Phase) -> None:
    async with memory_cluster(4) as cluster:
        copies = copying(cluster, done=phase is NEW)
        before = metadata_of(cluster, N1)
        copies[N4].stuck = NEW, cluster.nodes[N4].view
        plan_id = await committed(cluster, N2, {"change": "leave", "node": 4})
        await until_phase(cluster, phase)
        if phase is NEW:
            # It gives everything away, so it is no new owner: nobody waits for it before the retreat ends.
            cluster.cut(N4, [N1, N2, N3], silently=True)
        answer = await operator(cluster, N3, "cluster.abort", plan_id=plan_id)
        assert answer["phase"] == ("" if phase is OLD else "given up, reads go back")
        await until_phase(cluster, None, N1, N2, N3)
        cluster.heal()
        await until_phase(cluster, None)
        after = metadata_of(cluster, N1)
        assert (after.owners, after.members, after.bans) == (before.owners, before.members, before.bans)
        copying(cluster)
        assert await committed(cluster, N2, {"change": "leave", "node": 4}) == plan_id, "the same plan once more"
        await until_phase(cluster, None, N1, N2, N3)
        assert N4 not in metadata_of(cluster, N1).members
        await cluster.kill(N4)


@asynccontextmanager
async def a_late_hint() -> AsyncIterator[tuple[MemoryCluster, BucketProperties, str, Callable[[], None]]]:
    """Node 4 leaves, all copies are made, and the first node has a hint for it, of this key; node 3 says that it has
    work left until it is called off. The leaver reaches the first node alone."""
    async with memory_cluster(4, disk_latency_s=lambda: 0.01) as cluster:
        bucket = await cluster.create_bucket(n=3)
        view = cluster.nodes[N1].view.buckets[bucket.id]
        key = next(key for key in map(str, range(1_000)) if N4 in cluster.primaries(bucket, key))
        receiver = cluster.nodes[N3]
        real, receiver.transfers = receiver.transfers, Copies(done=False).transfers
        await committed(cluster, N2, {"change": "leave", "node": 4})
        await until(lambda: all(node.anti_entropy.transfers.settled() for node in cluster.nodes.values()))
        cluster.cut(N4, [N2, N3])
        cluster.nodes[N1].hints.owe(N4, view, storage_key(bucket.id, encode_key(key)), record_of(1))
        yield cluster, bucket, key, lambda: setattr(receiver, "transfers", real)
        cluster.heal()
        await until_phase(cluster, None, N1, N2, N3)
        for owner in cluster.primaries(bucket, key):
            assert await cluster.record(owner, bucket, key) == record_of(1)


@virtual
async def test_reads_do_not_move_while_an_old_owner_owes_the_new_ones_what_a_late_hint_brought() -> None:
    async with a_late_hint() as (cluster, _, _, call_off):
        await until(lambda: not cluster.nodes[N4].transfers.settled(), 60)
        call_off()
        await trio.sleep(10)
        assert set(phases(cluster).values()) == {OLD}
        assert any(line.startswith("n4 has ") for line in cluster.nodes[N1].ring_changes.waiting())


@virtual
async def test_who_kept_a_late_hint_hears_that_it_was_taken_when_what_is_owed_for_it_is_on_the_disk() -> None:
    async with a_late_hint() as (cluster, bucket, key, call_off):
        handoff, left = cluster.nodes[N4].handoff, list[MemoryFileSystem]()
        applied = handoff.applied

        def told(sender: NodeId, batch: int, refused: tuple[int, ...]) -> None:
            left.append(cluster.disks[N4].power_cut(Random(0), keep=0.0))
            applied(sender, batch, refused)

        handoff.applied = told  # type: ignore[method-assign]
        await until(lambda: bool(left), 60)
        await cluster.kill(N4)
        cluster.disks[N4] = left[0]
        await cluster.start(N4)
        assert await cluster.record(N4, bucket, key) == record_of(1)
        assert not cluster.nodes[N4].transfers.settled()
        call_off()


@virtual
async def test_a_step_meant_for_an_aborted_plan_is_not_taken_of_its_twin() -> None:
    """The same changes of the same ring make a plan of the same id: the epoch of the commit tells them apart."""
    async with memory_cluster(4) as cluster:
        copying(cluster, done=False)
        plan_id = await committed(cluster, N2, {"change": "leave", "node": 4})
        driver = cluster.nodes[N1].ring_changes.plans
        old = metadata_of(cluster, N1).plan
        assert old is not None
        await operator(cluster, N3, "cluster.abort", plan_id=plan_id)
        assert await committed(cluster, N2, {"change": "leave", "node": 4}) == plan_id
        await driver._take(STEPS[Action.ADVANCE], old, Action.ADVANCE)
        assert set(phases(cluster).values()) == {OLD}
        assert "over" in driver.waiting[0]


@virtual
async def test_what_could_lose_writes_is_refused_with_the_ranges_unless_it_is_forced() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster)
        await cluster.create_bucket(n=3)
        await cluster.kill(N4, N5)
        await trio.sleep(20)
        await operator(cluster, N1, "cluster.stage", change="force-remove", node=4)
        await operator(cluster, N1, "cluster.stage", change="force-remove", node=5)
        report = await operator(cluster, N1, "cluster.plan")
        assert report["refusals"]
        with pytest.raises(NotApplied, match="ranges") as refused:
            await operator(cluster, N1, "cluster.commit", plan_id=report["plan_id"], force=False)
        assert refused.value.reason is Reason.UNSAFE
        await operator(cluster, N1, "cluster.commit", plan_id=report["plan_id"], force=True)
        await until_phase(cluster, None)
        assert set(metadata_of(cluster, N1).members) == {N1, N2, N3}


@virtual
async def test_nothing_is_committed_unlooked_at_by_a_node_that_knows_of_another_plan() -> None:
    """What is refused for its danger is what this very plan would do."""
    async with memory_cluster(5) as cluster:
        copying(cluster)
        await cluster.create_bucket(n=3)
        await operator(cluster, N1, "cluster.stage", change="leave", node=5)
        with pytest.raises(NotApplied) as refused:
            await operator(cluster, N1, "cluster.commit", plan_id=bytes(16), force=False)
        assert refused.value.reason is Reason.PLAN_STALE
        await operator(cluster, N1, "cluster.clear")
        with pytest.raises(NotApplied) as refused:
            await operator(cluster, N1, "cluster.commit", plan_id=bytes(16), force=True)
        assert refused.value.reason is Reason.PLAN_STALE


@virtual
async def test_without_a_majority_of_the_control_set_data_is_served_and_changes_are_refused_with_the_reason() -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster)
        bucket = await cluster.create_bucket(n=3, w=1, r=1)
        await operator(cluster, N4, "cluster.stage", change="leave", node=5)
        plan_id = (await operator(cluster, N4, "cluster.plan"))["plan_id"]
        await cluster.kill(N2, N3)
        await trio.sleep(20)
        client = await cluster.client(N4)
        for number in range(20):
            await client.put(bucket, f"k{number}", b"v", w=1)
            assert await client.values(bucket, f"k{number}", r=1) == [b"v"]
        for verb, args in (
            ("cluster.stage", {"change": "leave", "node": 4}),
            ("cluster.commit", {"plan_id": plan_id, "force": True}),
            ("cluster.clear", {}),
            ("cluster.abort", {}),
        ):
            with pytest.raises(NotApplied, match="no majority") as refused:
                await client.admin(verb, **args)
            assert refused.value.reason is Reason.NO_QUORUM, verb
        assert (await client.admin("cluster.plan"))["plan_id"] == plan_id
        assert (await client.admin("ring.simulate", changes=[{"change": "leave", "node": "n5"}]))["moved"] > 0
        await cluster.start(N2)
        copying(cluster)
        await cluster.meet()
        assert (await client.admin("cluster.clear"))["epoch"] > 0


@virtual
async def test_a_simulated_change_changes_nothing_and_says_what_a_plan_of_it_would() -> None:
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket(n=3)
        before = metadata_of(cluster, N1)
        answer = await operator(
            cluster,
            N2,
            "ring.simulate",
            changes=[{"change": "join", "name": "n9", "zone": "z", "weight": 2}, {"change": "leave", "node": 3}],
        )
        assert metadata_of(cluster, N1) == before
        assert [each["name"] for each in answer["ownership"]] == ["n1", "n2", "n3", "n9"]
        assert answer["ownership"][3]["after"] == 32
        assert answer["moved"] >= answer["moved_least"] > 0
        assert answer["future"][0].endswith("3 owners")
        with pytest.raises(NotApplied) as refused:
            await operator(cluster, N2, "ring.simulate", changes=[])
        assert refused.value.reason is Reason.NOTHING_STAGED


@virtual
async def test_bytes_are_estimated_from_what_lies_in_memory_and_in_tables() -> None:
    async with memory_cluster(3, partitions=16) as cluster:
        bucket = await cluster.create_bucket(n=3)
        client = await cluster.client(N1)
        for number in range(64):
            await client.put(bucket, f"k{number}", bytes(range(256)) * 40, w=3)
        simulated = {"changes": [{"change": "replace", "node": 3, "name": "n9"}]}
        in_memory = (await operator(cluster, N1, "ring.simulate", **simulated))["bytes_total"]
        assert 64 * 256 * 40 < in_memory < 64 * 256 * 44
        for node in cluster.nodes.values():
            flushed = trio.Event()
            node.engine.flush_soon(flushed.set)
            await flushed.wait()
        stats = cluster.nodes[N1].engine.stats()
        tables = stats.table_bytes + stats.value_live_bytes
        answer = await operator(cluster, N1, "ring.simulate", **simulated)
        assert 0.5 * tables < answer["bytes_total"] < 2 * tables, (tables, answer["bytes_total"])
        assert answer["seconds_estimated"] > 0
        assert not answer["rate_measured"]


@virtual
async def test_the_rate_of_transfers_is_bounded_on_all_members_or_on_one() -> None:
    async with memory_cluster(3) as cluster:
        copies = copying(cluster)
        assert (await operator(cluster, N1, "transfer.limit", bytes_per_s=1000))["nodes"] == ["n1", "n2", "n3"]
        answer = await operator(cluster, N1, "transfer.limit", bytes_per_s=0, node="n2")
        assert answer["nodes"] == ["n2"]
        assert [copies[node].limit for node in (N1, N2, N3)] == [1000, 0, 1000]
        with pytest.raises(NotApplied) as refused:
            await operator(cluster, N1, "transfer.limit", bytes_per_s=5, node="nobody")
        assert refused.value.reason is Reason.NO_SUCH_MEMBER


@virtual
async def test_a_node_that_is_not_blank_is_not_staged() -> None:
    async with memory_cluster(3) as cluster:
        copying(cluster)
        await blank(cluster)
        await committed(cluster, N1, {"change": "join", "address": "host-4:2"})
        await until_phase(cluster, None)
        with pytest.raises(NotApplied, match="not blank"):
            await operator(cluster, N1, "cluster.stage", change="join", address="host-4:2")
        with pytest.raises(LeafdbError):
            await operator(cluster, N1, "cluster.stage", change="join", address="host-9:2")
