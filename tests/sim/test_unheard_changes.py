"""A change that a majority has accepted and nobody has heard of, for its proposer died: members come to know of it by
themselves, and not when somebody changes something else (seed 2 of tier CLUSTER with 4 nodes and 300 operations)."""

from __future__ import annotations

import trio

from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import Severed
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.ring_operators import metadata_of

N1, N2, N3 = map(NodeId, range(1, 4))
SLOW_S = 5.0
"""So long a call to the proposer's disk takes: what it has made known to nobody yet is not on its own disk either."""


async def accepted_by_others(cluster: MemoryCluster, epoch: int) -> None:
    """Wait until the acceptors of n2 and n3 have this epoch, and n1 has been told so."""
    with trio.fail_after(SLOW_S / 2):
        while True:
            accepted = [cluster.nodes[node].register.standing().accepted for node in (N2, N3)]
            told = cluster.nodes[N1].register.newest[1] == epoch
            if told and all(value is not None and value.epoch == epoch for value in accepted):
                return
            await trio.sleep(0.01)


@virtual
async def test_a_change_that_was_chosen_and_told_to_nobody_is_found_by_those_who_accepted_it() -> None:
    async with memory_cluster(3) as cluster:
        epoch = metadata_of(cluster, N1).epoch + 1
        cluster.slow_disk(N1, lambda: SLOW_S)

        async def create() -> None:
            try:
                await cluster.create_bucket("b", via=N1)
            except Severed:
                return  # whoever asked cannot know
            raise AssertionError("acknowledged by a node without power")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            await accepted_by_others(cluster, epoch)
            assert {metadata_of(cluster, node).epoch for node in cluster.nodes} == {epoch - 1}
            await cluster.power_cut(N1, N2, N3, keep=0.0)
        cluster.slow_disk(N1, None)
        await cluster.restart(N1, N2, N3)
        assert {metadata_of(cluster, node).epoch for node in cluster.nodes} == {epoch - 1}, "nobody knows of it"
        with trio.fail_after(60):
            while {metadata_of(cluster, node).epoch for node in cluster.nodes} != {epoch}:  # noqa: ASYNC110
                await trio.sleep(0.1)
        assert [bucket.name for bucket in metadata_of(cluster, N2).buckets.values()] == ["b"]
