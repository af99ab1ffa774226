"""One key in the middle of a plan: what is acknowledged and shown when some owners of either set cannot be reached.

Five nodes, n = 3; N4 leaves and N5, which owned nothing, gets what it had. The key's old owners are `a`, `b` and `c`,
its new ones `b`, `c` and `d`; `a` goes or stays elsewhere. Copies are made before anything happens: what is written
later no copy brings along.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple

import pytest
import trio

from leafdb.errors import DeadlineExceeded, NotApplied, NotEnoughReplicas, OutcomeUnknown
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key
from leafdb.node.scan_replica import ScanReplica
from leafdb.ring.staging import Leave
from leafdb.ring.token import storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId, Token
from leafdb.wire.control import ScanReply, ScanRequest
from leafdb.wire.registry import MessageType
from support.plans import Steps, by_hand
from support.transports import until

N1, N2, N3, N4, N5, N6 = map(NodeId, range(1, 7))
QUORUM, ALL = 254, 255


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
        await until(lambda: not any(node.anti_entropy.pending for node in cluster.nodes.values()))
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
        await cluster.settle()


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
        (heir,) = set(cluster.nodes) - {a, b, c, d}  # would take hints of a, which goes, and bring them to d
        for node in (c, d, heir):
            cluster.cut(a, (node,), silently=True)
        client = await cluster.client(a)
        with pytest.raises(OutcomeUnknown):
            await client.put(bucket, key, b"v", sloppy=False, timeout_s=0.5)
        cluster.cut(b, (c, d))
        cluster.cut(a, (c, d, heir))
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


async def scanned(client: RawClient, bucket: BucketProperties, *, r: int = QUORUM) -> set[bytes]:
    """The storage keys that a scan of the whole bucket shows."""
    request = ScanRequest(int(bucket.id), bucket.generation, b"", b"", 1_000, 1 << 20, False, r, 5_000)
    frame = await client.ask(MessageType.SCAN, request.encode(), 5.0)
    reply = ScanReply.decode(frame.body)
    assert not reply.next
    return {key for key, _ in reply.items}


@virtual
async def test_a_scan_shows_in_every_phase_what_was_acknowledged_whoever_is_asked() -> None:
    async with memory_cluster(5, partitions=16, owners=(N1, N2, N3, N4)) as cluster:
        bucket = await cluster.create_bucket()
        steps = Steps(cluster)
        client = await cluster.client(N2)
        expected: set[bytes] = set()

        async def write(phase: str) -> None:
            for number in range(15):
                await client.put(bucket, f"{phase} {number}", b"v")
                expected.add(storage_key(bucket.id, encode_key(f"{phase} {number}")))

        async def check(phase: str) -> None:
            await write(phase)
            for node in cluster.nodes:
                if cluster.nodes[node].draining:
                    assert (phase, node) == ("read new", N4), "who goes"
                    continue
                for r in (1, QUORUM, ALL):
                    found = await scanned(await cluster.client(node), bucket, r=r)
                    assert found == expected, (phase, node, r)

        await check("before")
        await steps.begin(Leave(N4))
        await check("read old")
        await steps.copied()
        await steps.advance()
        await check("read new")
        await steps.abort()
        await check("as before")


@virtual
async def test_a_scan_by_who_has_not_heard_of_the_new_owners_is_refused_and_not_answered_short() -> None:
    """It would ask the one owner there was, who has not got what two of three acknowledged since."""
    async with memory_cluster(4, partitions=16, owners=(N1,)) as cluster:
        bucket = await cluster.create_bucket()
        steps = Steps(cluster)
        await steps.begin(Leave(N4))
        await steps.copied()
        steps.deafen(N4)
        await steps.advance()
        await steps.finish()
        key = next(f"key{number}" for number in range(1_000) if cluster.primaries(bucket, f"key{number}")[0] == N2)
        for node in (N2, N3):
            cluster.cut(N1, (node,), silently=True)
        written = await (await cluster.client(N2)).put(bucket, key, b"v", sloppy=False)
        assert written.primaries == 2
        behind = await cluster.client(N4)
        with pytest.raises(NotEnoughReplicas):
            await scanned(behind, bucket)
        owner = cluster.nodes[N1]
        asked = ScanRequest(int(bucket.id), bucket.generation, bytes(8), b"\xff" * 9, 10, 1 << 20, False, 1, 5_000)
        for range_epoch, answered in ((owner.view.epoch, True), (owner.view.epoch - 1, False), (0, False)):
            with nullcontext() if answered else pytest.raises(NotApplied):
                page = ScanReplica(owner.coordinator, owner.engine).read(
                    asked._replace(range_epoch=range_epoch), owner.view.buckets[int(bucket.id)]
                )
                assert (await page).complete
        cluster.heal()
        await cluster.kill(N4)
        await cluster.meet()


@virtual
async def test_copies_in_a_plan_that_cannot_be_delivered_are_kept_for_old_and_new_owners_alike() -> None:
    async with memory_cluster(6, partitions=16, owners=(N1, N2, N3, N4, N6)) as cluster:
        bucket = await cluster.create_bucket()
        steps = Steps(cluster)
        await steps.begin(Leave(N4))
        key, old, new = next(
            found for number in range(1_000) if (found := owners(steps, bucket, f"key{number}")) is not None
        )
        (a,), (d,) = set(old) - set(new), set(new) - set(old)
        b = next(node for node in old if node in new)
        client = await cluster.client(b)
        await cluster.kill(*{a, d} - {N1})
        await trio.sleep(0.3)
        assert (await client.put(bucket, key, b"v", w=ALL)).acks == 4
        assert await client.values(bucket, key, r=ALL) == [b"v"]
        await cluster.restart(*{a, d} - {N1})
        await cluster.meet()
        with trio.fail_after(60):
            while any([await cluster.hints(node) for node in cluster.nodes]):  # noqa: ASYNC110
                await trio.sleep(0.2)
        for node in (a, d):
            assert await cluster.record(node, bucket, key) is not None
