"""Scans over whole nodes in memory: every key at least once, from any node, whatever the replicas lack."""

from __future__ import annotations

import pytest
import trio

from leafdb.errors import DeadlineExceeded, NotApplied, NotEnoughReplicas, Overloaded, Reason
from leafdb.limits import SCANS_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import decode_key, encode_key
from leafdb.ring.token import partition_range, storage_key
from leafdb.testing.cluster import FIRST, MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId, PartitionId
from leafdb.wire.control import ScanReply, ScanRequest
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import QUORUM_ALL, decode_get_reply
from support.repairs import plant, record_of
from support.transports import until

TWO, THREE = NodeId(2), NodeId(3)


async def page(
    client: RawClient,
    bucket: BucketProperties,
    start: bytes = b"",
    stop: bytes = b"",
    *,
    limit: int = 50,
    bytes_max: int = 1 << 20,
    reverse: bool = False,
    r: int = 0,
    deadline_ms: int = 5_000,
    generation: int | None = None,
) -> ScanReply:
    wanted = bucket.generation if generation is None else generation
    request = ScanRequest(int(bucket.id), wanted, start, stop, limit, bytes_max, reverse, r, deadline_ms)
    frame = await client.ask(MessageType.SCAN, request.encode(), deadline_ms / 1000)
    assert frame.type == MessageType.SCAN_REPLY
    return ScanReply.decode(frame.body)


async def scan(
    client: RawClient,
    bucket: BucketProperties,
    *,
    limit: int = 50,
    bytes_max: int = 1 << 20,
    reverse: bool = False,
    r: int = 0,
) -> list[tuple[bytes, list[bytes]]]:
    """Page by page to the end: (storage key, the values it shows)."""
    found: list[tuple[bytes, list[bytes]]] = []
    start = stop = b""
    for _ in range(1_000):
        reply = await page(client, bucket, start, stop, limit=limit, bytes_max=bytes_max, reverse=reverse, r=r)
        assert len(reply.items) <= limit
        assert len(reply.items) == 1 or sum(len(key) + len(body) for key, body in reply.items) <= bytes_max
        for key, body in reply.items:
            shown = decode_get_reply(body)
            assert shown.context
            found.append((key, sorted(sibling.value for sibling in shown.siblings)))
        if not reply.next:
            return found
        if reverse:
            stop = reply.next
        else:
            start = reply.next
    pytest.fail("a scan without end")


async def fill(cluster: MemoryCluster, bucket: BucketProperties, count: int) -> dict[bytes, list[bytes]]:
    """Keys put through the first node; what a scan must show, by storage key."""
    client = await cluster.client(FIRST)
    expected = {}
    for number in range(count):
        name = f"key-{number}"
        await client.put(bucket, name, b"v%d" % number, w=QUORUM_ALL)
        expected[storage_key(bucket.id, encode_key(name))] = [b"v%d" % number]
    client.close()
    return expected


@virtual
async def test_every_key_comes_once_in_token_order_from_any_node() -> None:
    """Also from nodes that hold no replica of a part: with five nodes and three copies every node lacks some."""
    async with memory_cluster(5, partitions=16) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        expected = sorted((await fill(cluster, bucket, 60)).items())
        for node in cluster.nodes:
            client = await cluster.client(node)
            assert await scan(client, bucket, limit=7) == expected
            assert await scan(client, bucket, limit=1_000, reverse=True) == expected[::-1]
            client.close()


@virtual
async def test_pages_keep_to_their_bounds() -> None:
    """One item at a time, or hardly any bytes: the scan is as whole as ever, either way."""
    async with memory_cluster(3, partitions=16) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        expected = sorted((await fill(cluster, bucket, 20)).items())
        client = await cluster.client(TWO)
        for reverse in (False, True):
            wanted = expected[::-1] if reverse else expected
            assert await scan(client, bucket, limit=1, reverse=reverse) == wanted
            assert await scan(client, bucket, bytes_max=1, reverse=reverse) == wanted
            assert await scan(client, bucket, bytes_max=300, reverse=reverse) == wanted
        reply = await page(client, bucket, limit=1_000)
        assert (len(reply.items), reply.next) == (20, b""), "few keys in many partitions are one page"


@virtual
async def test_a_range_of_one_partition_key_is_sorted_and_bounded() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(THREE)
        for number in range(12):
            await client.put(bucket, ("cart", f"{number:02}"), b"x", w=QUORUM_ALL)
        await client.put(bucket, "cart", b"not a pair", w=QUORUM_ALL)
        start = storage_key(bucket.id, encode_key(("cart", "03")))
        stop = storage_key(bucket.id, encode_key(("cart", "07")))
        for reverse in (False, True):
            reply = await page(client, bucket, start, stop, reverse=reverse)
            sort_keys = [decode_key(key[8:])[1] for key, _ in reply.items]
            assert sort_keys == sorted([b"03", b"04", b"05", b"06"], reverse=reverse)
            assert reply.next == b""
        assert (await page(client, bucket, stop, start)).items == ()


@virtual
async def test_what_is_not_live_is_passed_over_and_the_scan_moves_on() -> None:
    """Deleted and expired keys fill whole pages of the replicas; the client sees none of them and comes to the end."""
    async with memory_cluster(3, partitions=4) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(FIRST)
        for number in range(40):
            written = await client.put(bucket, f"gone-{number}", b"x", w=QUORUM_ALL, ttl_ms=1_000 * (number % 2))
            if number % 2 == 0:
                await client.put(bucket, f"gone-{number}", None, written.context, w=QUORUM_ALL)
        await client.put(bucket, "stays", b"here", w=QUORUM_ALL)
        await trio.sleep(2.0)
        for reverse in (False, True):
            found = await scan(client, bucket, limit=1, reverse=reverse)
            assert [(decode_key(key[8:]), values) for key, values in found] == [(b"stays", [b"here"])]


@virtual
async def test_what_one_replica_alone_holds_is_shown_when_it_is_asked() -> None:
    """Reading all three sees a write that reached one, and merges what the replicas hold differently."""
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        await until(lambda: all(node.view.bucket_named("b") for node in cluster.nodes.values()))
        for number, node in enumerate((FIRST, TWO, THREE)):
            await plant(cluster.nodes[node], "b", "shared", record_of(number))
        alone = await plant(cluster.nodes[THREE], "b", "alone", record_of(7))
        client = await cluster.client(FIRST)
        found = dict(await scan(client, bucket, r=QUORUM_ALL))
        assert len(found) == 2
        assert len(found[alone]) == 1
        assert len(found[storage_key(bucket.id, encode_key("shared"))]) == 3


@virtual
async def test_a_lost_replica_is_replaced_and_too_few_are_told() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        expected = sorted((await fill(cluster, bucket, 10)).items())
        client = await cluster.client(FIRST)
        # Silence is noticed late: the scan itself has to give the hanging replica up.
        cluster.cut(FIRST, [TWO], silently=True)
        for _ in range(2):  # whichever of the other two is asked first
            assert await scan(client, bucket, r=2) == expected
        await cluster.kill(TWO)
        assert await scan(client, bucket, r=2) == expected
        with pytest.raises(NotEnoughReplicas) as refusal:
            await page(client, bucket, r=3)
        assert (refusal.value.alive, refusal.value.required) == (2, 3)


@virtual
async def test_a_replica_that_may_have_forgotten_does_not_count() -> None:
    """Its "absent" would hide keys; what it holds still shows. Complete neighbours are asked instead."""
    async with memory_cluster(3, partitions=8) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        expected = sorted((await fill(cluster, bucket, 24)).items())
        client = await cluster.client(FIRST)
        cluster.nodes[FIRST].completeness.doubt(range(8))
        assert await scan(client, bucket, r=2) == expected
        # Each partition has two complete replicas, but no two nodes are complete for all of them.
        cluster.nodes[FIRST].completeness.proved(0)
        cluster.nodes[TWO].completeness.doubt([0])
        assert await scan(client, bucket, r=2) == expected
        assert await scan(client, bucket, r=2, reverse=True) == expected[::-1]
        cluster.nodes[TWO].completeness.doubt(range(4, 8))
        whole = (await page(client, bucket, r=2)).next
        assert whole == partition_range(PartitionId(4), 8)[0], "what can be shown is shown first"
        with pytest.raises(NotEnoughReplicas) as refusal:
            await page(client, bucket, whole, r=2)
        assert (refusal.value.alive, refusal.value.required) == (1, 2)
        for node in (FIRST, TWO):
            for partition in range(8):
                cluster.nodes[node].completeness.proved(partition)


@virtual
async def test_what_is_not_committed_yet_is_not_shown() -> None:
    """A page that saw a write waits for its sync: what a power cut may take back was never shown."""
    async with memory_cluster(1, disk_latency_s=lambda: 0.2) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.ALWAYS)
        client = await cluster.client(FIRST)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.put, bucket, "a", b"1")
            while await cluster.record(FIRST, bucket, "a") is None:  # noqa: ASYNC110  # it is in the memtable now
                await trio.sleep(0.01)
            other = await cluster.client(FIRST)
            assert len((await page(other, bucket)).items) == 1
        assert trio.current_time() - began >= 0.4, "the sync of the write, after the batch under way"


@virtual
async def test_requests_that_cannot_be_are_refused() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(FIRST)
        with pytest.raises(DeadlineExceeded):
            await page(client, bucket, deadline_ms=0)
        with pytest.raises(NotApplied) as refusal:
            await page(client, bucket, generation=bucket.generation + 1)
        assert refusal.value.reason is Reason.NO_SUCH_BUCKET
        with pytest.raises(NotApplied) as refusal:
            await page(client, bucket, generation=bucket.generation - 1)
        assert refusal.value.reason is Reason.STALE_EPOCH
        with pytest.raises(NotApplied) as refusal:
            await page(client, bucket, r=4)
        assert refusal.value.reason is Reason.IMPOSSIBLE_QUORUM


@virtual
async def test_a_deadline_is_kept_and_places_are_bounded() -> None:
    """With both others silent no scan can be answered: each ends at its deadline, and one too many is refused at once,
    while all of them wait."""
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        client = await cluster.client(FIRST)
        cluster.cut(FIRST, [TWO, THREE], silently=True)
        ended: list[float] = []

        async def wait() -> None:
            with pytest.raises((DeadlineExceeded, NotEnoughReplicas)):
                await page(client, bucket, deadline_ms=1_000)
            ended.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            for _ in range(SCANS_MAX):
                nursery.start_soon(wait)
            await trio.sleep(0.1)
            began = trio.current_time()
            with pytest.raises(Overloaded):
                await page(client, bucket)
            assert trio.current_time() - began < 0.1
        assert len(ended) == SCANS_MAX
        assert max(ended) - began < 1.2
        assert cluster.nodes[FIRST].scans.running == 0
        cluster.heal()
        await cluster.meet()
