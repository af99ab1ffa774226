"""What quorum reads show while one store of three is new and still being filled."""

from __future__ import annotations

from random import Random

import pytest
import trio

from leafdb.errors import NotEnoughReplicas
from leafdb.sim.replacement import replace_store
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


@virtual
async def test_a_quorum_read_does_not_count_a_store_that_was_replaced_and_is_not_whole_again() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(n=3)
        await cluster.kill(N3)
        await trio.sleep(0.5)
        assert (await (await cluster.client(N1)).put(bucket, "k", b"one", w=2)).primaries == 2
        identity, metadata = cluster.nodes[N1].engine.identity, cluster.nodes[N1].view.metadata
        assert metadata is not None
        await cluster.kill(N1)
        replace_store(cluster, N1, identity, metadata, Random(1))
        cluster.cut(N2, [N1, N3])  # the only one who still knows
        await cluster.restart(N3, N1)
        await trio.sleep(8)
        client = await cluster.client(N1)
        await client.put(bucket, "k", b"two", w=2, sloppy=False)
        with pytest.raises(NotEnoughReplicas):  # one complete primary: N3; what N1 has by now is not all it should
            await client.get(bucket, "k", r=2, sloppy=False)
        cluster.heal()
        await cluster.settle()
        assert sorted(await client.values(bucket, "k", r=2)) == [b"one", b"two"]
