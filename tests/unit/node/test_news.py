"""A node that is a little behind is sent what has changed; one that is far behind, or has something else, the whole."""

from __future__ import annotations

from leafdb.ring.difference import apply
from leafdb.ring.metadata import decode
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.wire.control import MetadataFetch, MetadataReply

N1, N2 = NodeId(1), NodeId(2)


@virtual
async def test_a_difference_is_sent_to_whoever_has_a_version_we_remember() -> None:
    async with memory_cluster(3) as cluster:
        before = cluster.nodes[N1].view.metadata
        assert before is not None
        await cluster.create_bucket("one")
        after = cluster.nodes[N1].view.metadata
        assert after is not None
        register = cluster.nodes[N1].register
        small = MetadataReply.decode(register.on_fetch(N2, MetadataFetch(int(before.epoch)).encode()))
        assert small.difference
        assert apply(before, small.metadata) == after
        whole = MetadataReply.decode(register.on_fetch(N2, MetadataFetch(0).encode()))
        assert not whole.difference
        assert decode(whole.metadata) == after
        assert len(small.metadata) < len(whole.metadata) / 2
        assert MetadataReply.decode(register.on_fetch(N2, MetadataFetch(int(after.epoch)).encode())).metadata == b""


@virtual
async def test_a_difference_from_something_else_is_not_taken_and_asks_for_the_whole() -> None:
    async with memory_cluster(3) as cluster:
        before = cluster.nodes[N1].view.metadata
        assert before is not None
        await cluster.create_bucket("one")
        reply = cluster.nodes[N1].register.on_fetch(N2, MetadataFetch(int(before.epoch)).encode())
        register = cluster.nodes[N2].register
        assert not register.on_fetched(reply), "node 2 has the newer version already: the base is another"
