"""Two operators with two plans while the network is in two parts, both on one side or one on each: one plan wins, and
whoever has the other is told that it is stale as soon as that can be known."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, Reason
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.ring_operators import copying, metadata_of, operator

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))
CONTROL = (N1, N2, N3)


async def looked_at(cluster: MemoryCluster, node: NodeId, goes: str) -> bytes:
    """Stage that somebody leaves, through a node; the plan that its operator looks at."""
    await operator(cluster, node, "cluster.stage", change="leave", node=goes)
    return bytes((await operator(cluster, node, "cluster.plan"))["plan_id"])


async def commit(cluster: MemoryCluster, node: NodeId, plan_id: bytes) -> LeafdbError | None:
    """Commit it through a node; why not."""
    try:
        await operator(cluster, node, "cluster.commit", plan_id=plan_id, force=True)
    except LeafdbError as error:
        return error
    return None


def apart(cluster: MemoryCluster, *side: NodeId) -> None:
    """These on one side, the others on the other."""
    for node in side:
        cluster.cut(node, cluster.nodes.keys() - set(side), silently=True)


async def agreed(cluster: MemoryCluster) -> None:
    """Wait until everybody believes the same, byte for byte."""
    await cluster.meet()
    with trio.fail_after(60):
        while len({metadata_of(cluster, node).encode() for node in cluster.nodes}) > 1:  # noqa: ASYNC110
            await trio.sleep(0.1)


def plans_there(cluster: MemoryCluster) -> set[bytes]:
    """The plans that anybody believes to be in progress."""
    found = {metadata_of(cluster, node).plan for node in cluster.nodes}
    return {b"" if plan is None else plan.id for plan in found}


@pytest.mark.parametrize("apart_before", [True, False], ids=["looked at apart", "looked at together"])
@virtual
async def test_of_two_operators_on_both_sides_the_one_with_the_majority_wins_and_the_other_is_stale_when_they_meet(
    apart_before: bool,
) -> None:
    async with memory_cluster(5) as cluster:
        copying(cluster, done=False)
        theirs = await looked_at(cluster, N4, "n4")
        if not apart_before:
            ours = await looked_at(cluster, N1, "n5")
        apart(cluster, N1, N2)
        await trio.sleep(20)
        # The control set is 1, 2 and 3: the smaller side has its majority, and that alone counts.
        if apart_before:
            ours = await looked_at(cluster, N1, "n5")
        assert ours != theirs
        ends: dict[NodeId, LeafdbError | None] = {}

        async def end(node: NodeId, plan_id: bytes) -> None:
            ends[node] = await commit(cluster, node, plan_id)

        async with trio.open_nursery() as nursery:
            for node, plan_id in ((N1, ours), (N4, theirs)):
                nursery.start_soon(end, node, plan_id)
        assert ends[N1] is None
        refused = ends[N4]
        assert isinstance(refused, NotApplied)
        assert refused.reason is Reason.NO_QUORUM, "it cannot know more"
        assert {metadata_of(cluster, node).plan for node in (N3, N4, N5)} == {None}
        cluster.heal()
        await agreed(cluster)
        for node in (N4, N2):
            refused = await commit(cluster, node, theirs)
            assert isinstance(refused, NotApplied)
            assert refused.reason is Reason.PLAN_STALE
        assert plans_there(cluster) == {ours}


@pytest.mark.parametrize("seed", range(6))
@virtual
async def test_of_two_operators_on_one_side_exactly_one_wins(seed: int) -> None:
    """And nobody of the other side, where one of the control set is, changes anything by that."""
    async with memory_cluster(5, seed, disk_latency_s=lambda: 0.003) as cluster:
        copying(cluster, done=False)
        apart(cluster, N3, N5)
        await trio.sleep(20)
        won: set[bytes] = set()
        refused: list[LeafdbError] = []

        async def operate(via: NodeId, goes: str) -> None:
            """Look and commit, as quickly as they can."""
            try:
                plan_id = await looked_at(cluster, via, goes)
            except LeafdbError as refusal:
                refused.append(refusal)
                return
            error = await commit(cluster, via, plan_id)
            if error is None:
                won.add(plan_id)
            else:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(operate, N2, "n5")
            await trio.sleep(0.004 * seed)
            nursery.start_soon(operate, N4, "n3")
        assert len(won) == 1, "both may have looked at one and the same"
        for error in refused:
            assert isinstance(error, NotApplied)
            assert error.reason in (Reason.PLAN_STALE, Reason.PLAN_IN_PROGRESS)
        cluster.heal()
        await agreed(cluster)
        assert plans_there(cluster) == won


async def told(ends: list[LeafdbError | None], cluster: MemoryCluster, plan_id: bytes) -> None:
    """Commit through the first node; what its operator hears."""
    ends.append(await commit(cluster, N1, plan_id))


async def other_plan(cluster: MemoryCluster) -> bytes:
    """Commit another through two others; none when they find one in progress."""
    try:
        plan_id = await looked_at(cluster, N2, "n4")
    except NotApplied as refused:
        if refused.reason is Reason.PLAN_IN_PROGRESS:
            return b""
        raise
    assert await commit(cluster, N3, plan_id) is None
    return plan_id


@virtual
async def test_a_commit_that_was_cut_off_in_the_middle_is_there_for_all_or_for_nobody() -> None:
    """The side of one who commits loses its majority while the round runs; then the other side commits another plan."""
    kept = set()
    for at_ms in range(0, 20, 3):
        async with memory_cluster(5, disk_latency_s=lambda: 0.003) as cluster:
            copying(cluster, done=False)
            theirs = await looked_at(cluster, N1, "n5")
            ends: list[LeafdbError | None] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(told, ends, cluster, theirs)
                await trio.sleep(at_ms / 1000)
                apart(cluster, N1, N4)
                await trio.sleep(8)
            ours = await other_plan(cluster) or theirs
            cluster.heal()
            await agreed(cluster)
            (there,) = plans_there(cluster)
            assert there == ours
            kept.add(there == theirs)
            match ends:
                case [None]:
                    assert there == theirs
                case [NotApplied()]:
                    assert there != theirs
                case [OutcomeUnknown()]:
                    pass
                case other:
                    raise AssertionError(other)
    assert kept == {True, False}, "both kinds of end were tried"
