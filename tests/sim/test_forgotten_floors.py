"""A session that has seen what was forgotten by right does not wait for it, and waits for everything else as ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from random import Random

import pytest
import trio

from leafdb import BLIND, DeadlineExceeded, Found, Missing, NotApplied, NotEnoughReplicas, SessionToken
from leafdb.client.async_client import AsyncClient
from leafdb.client.connect import async_client_over
from leafdb.client.url import Address
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.model.record import newest_stamp
from leafdb.ring.horizon_change import Proof, raise_horizons
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.real_client import dialler
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId, PartitionId

N1, N2, N3 = map(NodeId, range(1, 4))
SEEDS = count(7)
"""Two clients with one seed would draw the same operation ids."""


@asynccontextmanager
async def through(cluster: MemoryCluster, node: NodeId) -> AsyncIterator[AsyncClient]:
    dial = dialler(cluster.network, CLIENT_HOST)
    async with async_client_over(
        [Address(host_of(node), 1)], dial=dial, routing="listed", rng=Random(next(SEEDS))
    ) as db:
        yield db


async def forget(
    cluster: MemoryCluster,
    bucket: BucketProperties,
    vouching: Iterable[NodeId],
    above: int = 1,
    proved: int | None = None,
) -> None:
    """The key is as a sweep leaves it, with the horizon so far above the newest in its record. These stores vouch for
    what lies below what was `proved`, the horizon if nothing else is said."""
    record = await cluster.record(N1, bucket, "k")
    assert record is not None
    horizon = newest_stamp(record) + above

    def proves(metadata: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        partitions = {PartitionId(number): epoch for number, epoch in enumerate(metadata.range_epochs)}
        members = {number: member.incarnation for number, member in metadata.members.items()}
        return raise_horizons(metadata, Proof(horizon, partitions, members, metadata.generation), change_id=change_id)

    chosen = await cluster.nodes[N1].register.change(proves, 5.0)
    await trio.sleep(3.0)
    stored = storage_key(bucket.id, encode_key("k"))
    for number, node in cluster.nodes.items():
        assert node.view.epoch >= chosen.epoch, "everybody has heard"
        node.completeness.vouches = partial(_vouches, number in vouching, horizon if proved is None else proved)
        tree = node.view.buckets[int(bucket.id)].tree
        current = node.replica.queue.now(tree, stored)
        assert current is not None
        if current[0] is not None:
            node.replica.remove(tree, stored, current[0], Durability.ALWAYS)


def _vouches(mine: bool, proved: int, partition: PartitionId, horizon: int) -> bool:
    return mine and horizon <= proved


async def deleted(cluster: MemoryCluster, db: AsyncClient) -> SessionToken:
    """The session wrote the key and deleted it."""
    written = await db.bucket("b").put("k", b"v", after=BLIND, w=3)
    await db.bucket("b").delete("k", after=written.context, w=3)
    return db.session_token


@virtual
@pytest.mark.parametrize("vouching", [N1, N2])
async def test_what_was_forgotten_is_missing_for_its_session_where_an_owner_vouches(vouching: NodeId) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        async with through(cluster, N1) as db, through(cluster, N3) as other:
            other.observe(await deleted(cluster, db))
            await forget(cluster, bucket, [vouching])
            for reader in (db, other):
                assert isinstance(await reader.bucket("b").get("k", r=1, timeout=1.0), Missing)
            assert isinstance((await other.bucket("b").get_explained("k", r=1, timeout=1.0)).answer, Missing)


@virtual
@pytest.mark.parametrize(
    ("vouching", "above", "short"),
    [((), 1, 0), ((N1, N2, N3), 0, 0), ((N1, N2, N3), 5, 1)],
    ids=["nobody vouches", "not all below the horizon", "for an older horizon"],
)
async def test_it_is_waited_for_where_nobody_can_say_that_it_was_forgotten_by_right(
    vouching: tuple[NodeId, ...], above: int, short: int
) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        async with through(cluster, N1) as db, through(cluster, N3) as other:
            other.observe(await deleted(cluster, db))
            record = await cluster.record(N1, bucket, "k")
            assert record is not None
            await forget(cluster, bucket, vouching, above, newest_stamp(record) + above - short)
            for reader in (db, other):
                with pytest.raises((DeadlineExceeded, NotEnoughReplicas)) as failure:
                    await reader.bucket("b").get("k", r=1, timeout=0.5)
                # Who does not vouch for that horizon does not count.
                assert isinstance(failure.value, DeadlineExceeded) == (bool(vouching) and not short)
                with pytest.raises(NotApplied):
                    await reader.bucket("b").put("k", b"w", after=BLIND, timeout=0.5)


@virtual
async def test_an_owner_that_vouches_and_is_incomplete_is_not_enough() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        async with through(cluster, N1) as db:
            await deleted(cluster, db)
            await forget(cluster, bucket, [N1])
            cluster.cut(N1, [N2, N3])
            cluster.nodes[N1].completeness.doubt(range(cluster.nodes[N1].view.metadata.partitions))  # type: ignore[union-attr]
            with pytest.raises((DeadlineExceeded, NotEnoughReplicas)):
                await db.bucket("b").get("k", r=1, timeout=0.5)
            with pytest.raises(NotApplied):
                await db.bucket("b").put("k", b"w", after=BLIND, w=1, timeout=0.5)


@virtual
async def test_a_key_that_was_written_anew_is_shown_and_written_over_what_is_there() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        async with through(cluster, N1) as db, through(cluster, N2) as anybody:
            await deleted(cluster, db)
            await forget(cluster, bucket, [N1])
            await anybody.bucket("b").put("k", b"new", after=BLIND, w=3)
            found = await db.bucket("b").get("k", r=1, timeout=1.0)
            assert isinstance(found, Found)
            assert found.value == b"new"


@virtual
async def test_a_blind_write_of_the_session_is_minted_over_nothing_and_above_what_it_had_seen() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        async with through(cluster, N1) as db, through(cluster, N2) as other:
            other.observe(await deleted(cluster, db))
            record = await cluster.record(N1, bucket, "k")
            assert record is not None
            cluster.skew_ms[N2] = -3_600_000
            await forget(cluster, bucket, [N2])
            await other.bucket("b").put("k", b"w", after=BLIND, w=3, timeout=1.0)
            anew = await cluster.record(N2, bucket, "k")
            assert anew is not None
            assert newest_stamp(anew) > newest_stamp(record)
            assert isinstance(await other.bucket("b").get("k", r=1), Found)
