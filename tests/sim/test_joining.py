"""A blank node beside a running cluster: admitted by a plan, whatever happens meanwhile; blank again after an abort.

The plan is stepped by hand here: its driver and the copies are tested elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied
from leafdb.node.endings import Expelled
from leafdb.node.engine_reads import read_value
from leafdb.node.joining import JOINING_KEY
from leafdb.node.register import META_TREE
from leafdb.ring import transitions
from leafdb.ring.plan import Phase
from leafdb.storage.identity import WIPE_PATH
from leafdb.testing.cluster import CLUSTER_ID, address_of, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, TreeId
from leafdb.wire.hello import Refusal
from support import plans
from support.newcomers import assert_takes_part, is_blank, stamp_of, until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))


@pytest.fixture(autouse=True)
def _by_hand() -> Iterator[None]:
    with plans.by_hand():
        yield


@virtual
async def test_a_blank_node_waits_says_who_it_would_be_and_serves_nobody() -> None:
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node(name="fresh", zone="b")
        told = await plans.ask(cluster.nodes[N2], address_of(machine), "join.describe", {})
        assert told["blank"]
        assert told["store"] == stamp_of(cluster, machine).store_id
        member = told["member"]
        assert (member["name"], member["zone"], member["peer"]) == ("fresh", "b", address_of(machine))
        client = await cluster.client(machine)
        with pytest.raises(NotApplied, match="not part of a cluster"):
            await client.admin("status")
        told = await plans.ask(cluster.nodes[N2], address_of(N1), "join.describe", {})
        assert not told["blank"]
        assert told["cluster"] == "test"
        await trio.sleep(60)
        assert is_blank(cluster, machine)


@pytest.mark.parametrize("nodes", [1, 3])
@virtual
async def test_a_node_that_is_admitted_serves_at_once_and_after_restarts(nodes: int) -> None:
    async with memory_cluster(nodes) as cluster:
        bucket = await cluster.create_bucket(w=1, r=1)
        client = await cluster.client(N1)
        for number in range(20):
            await client.put(bucket, f"before-{number}", b"v")
        machine = await cluster.add_node()
        began = trio.current_time()
        plan = await plans.join(cluster, N1, machine)
        await cluster.meet()
        assert trio.current_time() - began < 2, "those who dial it come back soon"
        number = plan.joining[0]
        assert number == nodes + 1
        await assert_takes_part(cluster, machine, number)
        for way in (cluster.stop, cluster.kill, cluster.power_cut):
            await way(machine)
            await cluster.start(machine)
            await assert_takes_part(cluster, machine, number)


@virtual
async def test_a_node_that_joined_holds_what_is_written_once_the_plan_is_done() -> None:
    async with memory_cluster(2) as cluster:
        machine = await cluster.add_node()
        plan = await plans.join(cluster, N1, machine)
        await cluster.meet()
        for transition in (transitions.advance, transitions.finish):
            await plans.change(cluster.nodes[N2], transition, plan.id)
            await plans.agree(cluster)
        bucket = await cluster.create_bucket(n=3)
        client = await cluster.client(machine)
        assert (await client.put(bucket, "k", b"v", w=3, pw=3)).primaries == 3
        assert await cluster.record(machine, bucket, "k") is not None


@virtual
async def test_admission_is_idempotent_and_brings_newer_metadata() -> None:
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        await plans.stage_join(cluster.nodes[N1], machine)
        await plans.commit(cluster.nodes[N1])
        answers: list[int] = []

        async def admit() -> None:
            answers.append((await plans.admit(cluster.nodes[N1], N4))["epoch"])

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(admit)
        assert answers == [cluster.nodes[N1].view.epoch] * 4
        cluster.cut(machine, cluster.nodes)
        await cluster.create_bucket("later")
        cluster.heal()
        await admit()
        assert answers[-1] == cluster.nodes[N1].view.epoch
        assert cluster.nodes[machine].view.bucket_named("later") is not None


@pytest.mark.parametrize("keep", [1.0, None])
@pytest.mark.parametrize("after", range(12))
@virtual
async def test_a_node_cut_off_while_it_is_admitted_goes_on_by_itself_or_when_it_is_asked_again(
    after: int, keep: float | None
) -> None:
    """After any call to its disk: the process is killed, or its machine loses power."""
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        await plans.stage_join(cluster.nodes[N1], machine)
        await plans.commit(cluster.nodes[N1])
        calls = [0]
        disk = cluster.disks[machine]
        left = disk.power_cut(Random(after), keep=keep)

        def called(kind: str, path: str) -> None:
            nonlocal left
            calls[0] += 1
            if calls[0] <= after:
                left = disk.power_cut(Random(after), keep=keep)

        disk.on_call = called
        await plans.admit(cluster.nodes[N1], N4)
        await cluster.kill(machine)
        assert calls[0] >= 8, "kept, stamped, in force"
        cluster.disks[machine] = left
        await cluster.start(machine)
        stamped = bool(stamp_of(cluster, machine).cluster_id)
        assert (cluster.nodes[machine].view.metadata is not None) >= stamped, "by itself"
        await plans.admit(cluster.nodes[N1], N4)
        await assert_takes_part(cluster, machine, N4)
        await cluster.stop(machine)
        await cluster.start(machine)
        await assert_takes_part(cluster, machine, N4)


@virtual
async def test_a_node_that_was_asked_and_not_stamped_goes_on_with_what_it_kept() -> None:
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        await plans.stage_join(cluster.nodes[N1], machine)
        await plans.commit(cluster.nodes[N1])
        node = cluster.nodes[machine]
        kept: list[bytes | None] = []

        def founded(*_: object) -> None:
            kept.append(b"")
            raise LeafdbError("the process dies here")

        node.founded = founded  # type: ignore[method-assign, assignment]
        with pytest.raises(LeafdbError):
            await plans.admit(cluster.nodes[N1], N4)
        assert await read_value(node.engine, META_TREE, JOINING_KEY) is not None
        assert not stamp_of(cluster, machine).cluster_id
        await cluster.kill(machine)
        await cluster.start(machine)
        await assert_takes_part(cluster, machine, N4)


@virtual
async def test_what_may_not_join_is_refused_with_what_to_do() -> None:
    async with memory_cluster(3) as cluster:
        one = cluster.nodes[N1]
        machine = await cluster.add_node()
        await plans.stage_join(one, machine)
        plan = await plans.commit(one)
        metadata = one.view.metadata
        assert metadata is not None

        async def refusal(address: str, **changed: object) -> str:
            args = {"metadata": metadata.encode(), "node": int(N4), "plan_id": plan.id, **changed}
            with pytest.raises(NotApplied) as refused:
                await plans.ask(one, address, "cluster.admit", args)
            return str(refused.value)

        here = address_of(machine)
        assert "no plan" in await refusal(here, plan_id=bytes(16))
        assert "called 'n4', not 'n2'" in await refusal(here, node=2)
        assert "no member" in await refusal(here, node=9)
        other = await cluster.add_node(name="n4")
        assert "another store was staged" in await refusal(address_of(other))
        # The member it is already, under another number.
        assert "called 'n2', not 'n4'" in await refusal(address_of(N2))
        assert is_blank(cluster, machine), "nothing was changed"
        await plans.admit(one, N4)
        await assert_takes_part(cluster, machine, N4)


@pytest.mark.parametrize(
    ("cluster_id", "number", "why"), [(b"z" * 16, 4, "another cluster"), (CLUSTER_ID, 9, "node 9")]
)
@virtual
async def test_a_store_of_another_cluster_or_number_is_refused_and_stays_as_it_is(
    cluster_id: bytes, number: int, why: str
) -> None:
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        await plans.stage_join(cluster.nodes[N1], machine)
        await plans.commit(cluster.nodes[N1])
        cluster.nodes[machine].engine.stamp(cluster_id=cluster_id, node_id=number, incarnation=0)
        before = stamp_of(cluster, machine)
        for _ in range(2):
            with pytest.raises(NotApplied, match=why) as refused:
                await plans.admit(cluster.nodes[N1], N4)
            assert "empty its data directory" in str(refused.value)
            await cluster.stop(machine)
            await cluster.start(machine)
        assert replace(stamp_of(cluster, machine), boot=before.boot) == before


@virtual
async def test_an_abort_leaves_a_blank_store_in_the_same_process_that_may_be_staged_again() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(n=5, w=1)
        machine = await cluster.add_node()
        for attempt in range(3):
            store = stamp_of(cluster, machine).store_id
            process = cluster.processes[machine]
            plan = await plans.join(cluster, N1, machine)
            number = plan.joining[0]
            assert number == N4 + attempt, "a number is never given twice"
            await assert_takes_part(cluster, machine, number)
            client = await cluster.client(machine)
            await client.put(bucket, f"k{attempt}", b"v", w=2)
            await plans.give_up(cluster.nodes[N1])
            await until(lambda: is_blank(cluster, machine))
            assert cluster.processes[machine] is process, "nobody had to start it"
            assert stamp_of(cluster, machine).store_id != store
            assert TreeId(bucket.id) not in cluster.nodes[machine].engine.trees()
            assert (await (await cluster.client(N1)).values(bucket, f"k{attempt}")) == [b"v"]
        plan = await plans.join(cluster, N2, machine)
        await assert_takes_part(cluster, machine, plan.joining[0])
        await cluster.stop(machine)
        await cluster.start(machine)
        await assert_takes_part(cluster, machine, plan.joining[0])


@virtual
async def test_an_abort_is_heard_of_by_a_node_that_was_down_or_cut_off_meanwhile() -> None:
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        await plans.join(cluster, N1, machine)
        await cluster.meet()
        await cluster.kill(machine)
        await plans.give_up(cluster.nodes[N1])
        await cluster.start(machine)
        await until(lambda: is_blank(cluster, machine))
        await plans.join(cluster, N1, machine)
        await cluster.meet()
        cluster.cut(machine, cluster.nodes, silently=True)
        await plans.give_up(cluster.nodes[N1])
        await trio.sleep(30)
        assert not is_blank(cluster, machine), "there is no proof of anything"
        cluster.heal()
        await until(lambda: is_blank(cluster, machine))


@virtual
async def test_a_retreat_ends_like_an_abort_and_a_wipe_that_was_cut_off_is_finished() -> None:
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        plan = await plans.join(cluster, N1, machine)
        one = cluster.nodes[N1]
        await plans.change(one, transitions.advance, plan.id)
        await plans.agree(cluster)
        await plans.give_up(one)
        await plans.agree(cluster)
        metadata = cluster.nodes[machine].view.metadata
        assert metadata is not None
        assert metadata.plan is not None
        assert metadata.plan.phase is Phase.RETREAT
        disk = cluster.disks[machine]
        snapshots = []
        disk.on_call = lambda kind, path: snapshots.append(disk.copy()) if disk.exists(WIPE_PATH) else None
        await plans.change(one, transitions.finish_abort, plan.id)
        await until(lambda: is_blank(cluster, machine))
        assert len(snapshots) > 5
        for snapshot in snapshots[:: len(snapshots) // 5]:
            await cluster.kill(machine)
            cluster.disks[machine] = snapshot
            await cluster.start(machine)
            assert is_blank(cluster, machine)


@virtual
async def test_who_may_hold_data_that_nobody_else_has_is_never_emptied() -> None:
    """A joiner that has heard that reads have moved, and not of the retreat."""
    async with memory_cluster(3) as cluster:
        machine = await cluster.add_node()
        plan = await plans.join(cluster, N1, machine)
        one = cluster.nodes[N1]
        await plans.change(one, transitions.advance, plan.id)
        await plans.agree(cluster)
        cluster.cut(machine, (N1, N2, N3), silently=True)
        await plans.give_up(one)
        await plans.change(one, transitions.finish_abort, plan.id)
        store = stamp_of(cluster, machine).store_id
        cluster.heal()
        with trio.fail_after(60):
            await cluster.processes[machine].ended.wait()
        failure = cluster.processes[machine].failure
        assert isinstance(failure, Expelled)
        assert failure.why is Refusal.BANNED
        assert stamp_of(cluster, machine).store_id == store
        # It says so at once from now on.
        with pytest.raises(Expelled, match="for good"):
            await cluster.start(machine)
