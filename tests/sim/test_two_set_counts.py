"""One key in the middle of a plan: what is acknowledged and shown when some owners of either set cannot be reached.

Five nodes, n = 3; N4 leaves and N5, which owned nothing, gets what it had. The key's old owners are `a`, `b` and `c`,
its new ones `b`, `c` and `d`; `a` goes or stays elsewhere. Copies are made before anything happens: what is written
later no copy brings along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import trio

from leafdb.errors import DeadlineExceeded, NotEnoughReplicas, OutcomeUnknown
from leafdb.hints.hint import Kind, decode, decode_key
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.ring.staging import Leave
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, Token
from support.plans import Steps, by_hand

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))
ALL = 255


@pytest.fixture(autouse=True)
def _by_hand() -> Iterator[None]:
    with by_hand():
        yield


class Changing(NamedTuple):
    """A cluster in the first phase of a plan, its copies made, and a key whose owners change."""

    cluster: MemoryCluster
    steps: Steps
    bucket: BucketProperties
    key: str
    a: NodeId
    b: NodeId
    c: NodeId
    d: NodeId

    async def client(self, node: NodeId) -> RawClient:
        return await self.cluster.client(node)

    async def apart(self, *nodes: NodeId) -> None:
        """Nobody reaches these nodes, nor they each other, and everybody knows it."""
        for node in nodes:
            self.cluster.cut(node, self.cluster.nodes)
        await trio.sleep(0.3)

    async def held(self, node: NodeId) -> bool:
        return await self.cluster.record(node, self.bucket, self.key) is not None

    async def hinted(self, node: NodeId) -> dict[NodeId, Kind]:
        """Whom the node keeps something for."""
        hints = await self.cluster.hints(node)
        return {decode_key(key).target: decode(value).kind for key, value in hints.items()}


@asynccontextmanager
async def changing() -> AsyncIterator[Changing]:
    async with memory_cluster(5, partitions=16, owners=(N1, N2, N3, N4)) as cluster:
        bucket = await cluster.create_bucket()
        steps = Steps(cluster)
        await steps.begin(Leave(N4))
        key, old, new = next(found for number in range(1_000) if (found := owners(steps, bucket, f"key{number}")))
        both = [node for node in old if node in new]
        (a,), (d,) = set(old) - set(new), set(new) - set(old)
        await steps.copied()
        # The register's own member must stay reachable for the steps that follow.
        yield Changing(cluster, steps, bucket, key, a, both[0], both[1], d)


def owners(
    steps: Steps, bucket: BucketProperties, key: str
) -> tuple[str, tuple[NodeId, ...], tuple[NodeId, ...]] | None:
    """The key with its old and new owners; None when not just one changes."""
    token = int.from_bytes(storage_key(bucket.id, encode_key(key))[:8], "big")
    sets = steps.ring.write_sets(steps.ring.partition_of(Token(token)), bucket.n)
    if len(sets) < 2 or len({*sets[0], *sets[1]}) != bucket.n + 1:
        return None
    return key, sets[0], sets[1]


@virtual
async def test_a_write_that_only_the_old_owners_took_is_not_acknowledged() -> None:
    async with changing() as (cluster, _, bucket, key, a, b, c, d):
        for node in (c, d):
            cluster.cut(a, (node,), silently=True)
        with pytest.raises(OutcomeUnknown) as unknown:
            await (await cluster.client(a)).put(bucket, key, b"v", sloppy=False, timeout_s=1.0)
        assert (unknown.value.acks, unknown.value.required) == (1, 2)
        assert sorted(unknown.value.replicas) == sorted(f"n{node}" for node in (a, b, c, d))
        cluster.heal()


@virtual
async def test_a_write_that_only_the_new_owners_took_is_not_acknowledged() -> None:
    async with changing() as (cluster, _, bucket, key, a, b, c, _d):
        for node in (a, c):
            cluster.cut(b, (node,), silently=True)
        with pytest.raises(OutcomeUnknown) as unknown:
            await (await cluster.client(b)).put(bucket, key, b"v", sloppy=False, timeout_s=1.0)
        assert (unknown.value.acks, unknown.value.required) == (1, 2)
        cluster.heal()


@virtual
async def test_what_two_old_owners_agree_on_is_not_shown_before_the_new_ones_hold_it() -> None:
    async with changing() as (cluster, steps, bucket, key, a, b, c, d):
        for node in (c, d):
            cluster.cut(a, (node,), silently=True)
        client = await cluster.client(a)
        with pytest.raises(OutcomeUnknown):
            await client.put(bucket, key, b"v", sloppy=False, timeout_s=0.5)
        cluster.cut(b, (c, d))
        cluster.cut(a, (c, d))
        await trio.sleep(0.3)
        with pytest.raises((DeadlineExceeded, NotEnoughReplicas)):  # a and b have it, of three
            await client.get(bucket, key, sloppy=False, timeout_s=0.5)
        assert not await cluster.record(d, bucket, key)
        cluster.network.heal(f"host-{a}", f"host-{d}")
        await trio.sleep(2.0)
        assert await client.values(bucket, key) == [b"v"]
        assert await cluster.record(d, bucket, key) is not None, "it is shown because d holds it"
        cluster.heal()
        await cluster.meet()
        await steps.advance()
        for node in (b, c, d):
            assert await (await cluster.client(node)).values(bucket, key) == [b"v"]
