"""A whole cluster while a plan moves its ranges: clients write and read all the while, nothing acknowledged is lost.

The plan is stepped by the test: some member goes, and another, that is there from the founding and owns nothing, gets
what it had. Copies between the phases are made by the test as well. What a read must show: all that was acknowledged by
enough primaries before it began, and all that quorum reads have shown (I8, I19).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import permutations

import pytest
import trio

from leafdb.errors import LeafdbError
from leafdb.ring.staging import ForceRemove, Leave
from leafdb.testing.cluster import host_of, memory_cluster
from leafdb.testing.streams import Link
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.plans import Steps, by_hand
from support.ring_load import ALL, COUNTS, QUORUM, Counts, Load

N1, N2, N3, N4, N5, N6 = map(NodeId, range(1, 7))
LANES = 4


@pytest.fixture(autouse=True)
def _by_hand() -> Iterator[None]:
    with by_hand():
        yield


@asynccontextmanager
async def loaded(
    counts: Counts, *, sloppy: bool = True, nodes: int = 5, owners: tuple[NodeId, ...] = (N1, N2, N3, N4)
) -> AsyncIterator[tuple[Load, Steps]]:
    """A cluster under load, over a network in which something is always under way. At the end everything is there."""
    async with memory_cluster(nodes, partitions=16, owners=owners) as cluster:
        for at, (one, other) in enumerate(permutations(map(host_of, cluster.nodes), 2)):
            cluster.network.set_link(one, other, Link(latency_s=(0.0005, 0.002 + at % 5 * 0.002)))
        load = Load(cluster, await cluster.create_bucket(), counts, sloppy=sloppy)
        async with trio.open_nursery() as nursery:
            for lane in range(LANES):
                nursery.start_soon(load.lane, lane)
            await trio.sleep(0.3)
            yield load, Steps(cluster)
            await trio.sleep(0.3)
            load.over = True
        await load.check()
        assert load.written > 50
        assert load.read > 80


async def copied(load: Load, steps: Steps) -> None:
    """All copies are made, while the load goes on."""
    await trio.sleep(0.2)
    await steps.copied()
    assert sum(node.transfers.report().total for node in load.cluster.nodes.values()), "there was nothing to copy"
    await trio.sleep(0.2)


@pytest.mark.parametrize("sloppy", [False, True])
@pytest.mark.parametrize("counts", COUNTS)
@virtual
async def test_a_plan_that_goes_through_loses_nothing_and_leaves_no_write_in_doubt(
    counts: Counts, sloppy: bool
) -> None:
    async with loaded(counts, sloppy=sloppy) as (load, steps):
        await steps.begin(Leave(N4))
        await copied(load, steps)
        await steps.advance()
        await trio.sleep(0.5)
        load.over = True  # who leaves has nobody to tell it so here: it is stopped when nothing of it is under way
        await trio.sleep(0.5)
        await load.cluster.stop(N4)
        await steps.finish()
        assert N5 in steps.ring.loads
        assert N4 not in steps.ring.loads
        assert all(isinstance(error, LeafdbError) and error.retryable for error in load.failures), load.failures


@pytest.mark.parametrize(
    ("dead", "counts", "sloppy"),
    [
        (N4, Counts(QUORUM, QUORUM), True),
        (N4, Counts(1, ALL), False),
        (N5, Counts(QUORUM, QUORUM), False),
        (N5, Counts(ALL, 1), True),
    ],
)
@virtual
async def test_an_owner_that_is_away_in_the_first_phase_costs_nothing_acknowledged(
    dead: NodeId, counts: Counts, sloppy: bool
) -> None:
    """N4 is an owner that goes, N5 one that comes; with six nodes there are some to stand in."""
    owners = (N1, N2, N3, N4, N6)
    async with loaded(counts, sloppy=sloppy, nodes=6, owners=owners) as (load, steps):
        await steps.begin(Leave(N4))
        await load.cluster.kill(dead)
        await trio.sleep(0.5)
        written = load.written
        await trio.sleep(0.5)
        assert load.written > written
        await load.cluster.restart(dead)
        await load.cluster.meet()
        await copied(load, steps)
        await steps.advance()


@pytest.mark.parametrize("counts", [Counts(QUORUM, QUORUM), Counts(ALL, 1)])
@virtual
async def test_a_dead_owner_is_removed_by_force_and_what_two_had_acknowledged_is_kept(counts: Counts) -> None:
    async with loaded(counts) as (load, steps):
        await load.cluster.kill(N4)
        await trio.sleep(0.3)
        await steps.begin(ForceRemove(N4))
        await copied(load, steps)
        await steps.advance()
        await trio.sleep(0.3)
        await steps.finish()
        assert N5 in steps.ring.loads


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("reading_new", [False, True])
@virtual
async def test_a_plan_given_up_from_either_phase_takes_nothing_along(reading_new: bool, counts: Counts) -> None:
    """In the first phase with the newcomer dead; in the second with everything at the new owners."""
    async with loaded(counts) as (load, steps):
        before = steps.ring.owners
        await steps.begin(Leave(N4))
        if reading_new:
            await copied(load, steps)
            await steps.advance()
            await trio.sleep(0.5)
            await steps.abort()
        else:
            await trio.sleep(0.3)
            await load.cluster.kill(N5)
            await trio.sleep(0.3)
            await steps.abort()
        assert steps.ring.owners == before


@pytest.mark.parametrize("counts", [Counts(0, 0), Counts(ALL, 1), Counts(1, ALL)])
@virtual
async def test_growing_from_one_owner_to_three_keeps_every_promise_of_either_size(counts: Counts) -> None:
    async with loaded(counts, nodes=4, owners=(N1,)) as (load, steps):
        assert steps.ring.effective_n(3) == 1
        await steps.begin(Leave(N4))
        await copied(load, steps)
        await steps.advance()
        assert steps.ring.effective_n(3) == 3
