"""Nodes in one loop that are asked too much, told nonsense, or whose disk is slow, full or broken."""

from __future__ import annotations

import errno
from random import Random

import pytest
import trio

from leafdb.config import StorageConfig
from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, OutcomeUnknown, Overloaded, Reason, StorageError
from leafdb.limits import PENDING_PER_KEY_MAX, VALUE_BYTES_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.storage.engine import Engine
from leafdb.storage.reads import ReadsOverloaded
from leafdb.testing.cluster import host_of, memory_cluster
from leafdb.testing.raw_client import Severed
from leafdb.testing.virtual_time import virtual
from leafdb.types import BucketId, Durability, NodeId, TreeId
from leafdb.vfs.memory import Fault
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_BLIND, PutRequest, encode_put

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


@pytest.mark.parametrize("port", [1, 2])
@virtual
async def test_garbage_on_any_port_ends_its_own_connection_and_nobody_elses(port: int) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        rng = Random(7)
        for size in (1, 18, 200, 5_000, 100_000):
            stream = await cluster.network.at("stranger").dial(host_of(N1), port)
            garbage = rng.randbytes(size)
            with trio.fail_after(30):
                try:
                    await stream.send_all(garbage)
                    while await stream.receive_some(4096):
                        pass
                except trio.BrokenResourceError:
                    pass
        assert (await client.put(bucket, "k", b"v", w=3)).acks == 3
        assert await client.values(bucket, "k") == [b"v"]
        assert not cluster.unsettled()


@virtual
async def test_malformed_bodies_of_every_client_request_are_this_sessions_end_only() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        rng = Random(11)
        for message_type in (MessageType.PUT, MessageType.GET, MessageType.SCAN, MessageType.ADMIN):
            for size in (0, 3, 60):
                bad = await cluster.client(N1)
                with pytest.raises((Severed, LeafdbError)):
                    await bad.ask(message_type, rng.randbytes(size), 1.0)
        for peers_own in (MessageType.REPLICA_PUT, MessageType.FORWARD_PUT, MessageType.REGISTER):
            bad = await cluster.client(N1)
            with pytest.raises(Severed):
                await bad.ask(peers_own, b"", 1.0)
        assert await client.put(bucket, "k", b"v")
        assert cluster.nodes[N1].pump.counters.handler_errors_total == 0


@pytest.mark.parametrize(
    "key", [b"", b"\x00\x01", b"no end", b"part\x00\x01no end", b"p\x00\x01s\x00\x01more", b"x" * 9_000 + b"\x00\x01"]
)
@virtual
async def test_a_malformed_or_overlong_key_is_never_stored(key: bytes) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        request = PutRequest(bucket.id, bucket.generation, 0, 1_000, FLAG_BLIND, 0, 0, 0, 0, bytes(16), key, b"", b"v")
        with pytest.raises(NotApplied) as refused:
            await client.ask(MessageType.PUT, encode_put(request), 1.0)
        assert refused.value.reason is Reason.BAD_REQUEST


@virtual
async def test_a_stalled_engine_refuses_writes_as_overload_and_keeps_its_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        with monkeypatch.context() as patch:
            patch.setattr(cluster.nodes[N1].engine, "admit", lambda: 0.25)
            with pytest.raises(Overloaded) as refused:
                await client.put(bucket, "k", b"v")
            assert refused.value.retry_after == 0.25
            assert await client.values(bucket, "k") == []
        await client.put(bucket, "k", b"v")


@virtual
async def test_a_full_operation_table_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leafdb.node.coordinator.OPERATIONS_MAX", 4)
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N2, N3), silently=True)
        outcomes: list[type[LeafdbError]] = []

        async def put(number: int) -> None:
            try:
                await client.put(bucket, f"key{number}", b"v", timeout_s=0.5)
            except LeafdbError as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(put, number)
        assert sorted(outcomes, key=str) == [OutcomeUnknown] * 4 + [Overloaded] * 6
        cluster.heal()
        await cluster.settle()
        await client.put(bucket, "k", b"v")


@virtual
async def test_writers_of_a_key_whose_record_is_on_disk_queue_in_order_and_within_bounds() -> None:
    storage = StorageConfig(flushed_in_memory=False)
    async with memory_cluster(1, disk_latency_s=lambda: 0.01, storage=storage) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        context = (await client.put(bucket, "k", b"base")).context
        await flushed(cluster.nodes[N1].engine)
        cluster.disks[N1].cold = True
        accepted: list[int] = []
        refused: list[LeafdbError] = []

        async def put(number: int) -> None:
            try:
                await client.put(bucket, "k", b"%d" % number, context)
                accepted.append(number)
            except LeafdbError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for number in range(PENDING_PER_KEY_MAX + 40):
                nursery.start_soon(put, number)
        # They ran one by one, each on what the one before had left, until the key had as many siblings as it may.
        assert len(accepted) == 64
        assert {type(error) for error in refused} == {NotApplied, Overloaded}
        shown = await client.values(bucket, "k")
        assert sorted(map(int, shown)) == sorted(accepted)


async def flushed(engine: Engine) -> None:
    """Bring everything into tables."""
    done = trio.Event()
    engine.flush_soon(done.set)
    await done.wait()


@virtual
async def test_a_local_disk_slower_than_the_deadline_leaves_no_hint_for_the_node_itself() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.4) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        with pytest.raises(OutcomeUnknown):
            await client.put(bucket, "k", b"v", timeout_s=0.1)
        await trio.sleep(5)
        await cluster.settle()
        assert await client.values(bucket, "k", r=3) == [b"v"]


@virtual
async def test_a_request_that_waits_for_metadata_past_its_deadline_is_never_executed() -> None:
    async with memory_cluster(3) as cluster:
        client = await cluster.client(N1)
        await cluster.create_bucket("other", via=N2)
        cluster.cut(N1, (N2, N3), silently=True)
        maker = await cluster.client(N2)
        made: list[BucketProperties] = []

        async def create() -> None:
            wanted = BucketProperties(id=BucketId(256), name="b", generation=0)
            made.append(BucketProperties.from_wire(await maker.admin("bucket.create", properties=wanted.to_wire())))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            await trio.sleep(0.5)
            # Node 1 has not heard of it: it asks, and the answer comes when the client has given up.
            guess = BucketProperties(id=BucketId(257), name="b", generation=3)

            async def write() -> None:
                with pytest.raises(NotApplied) as refused:
                    await client.put(guess, "k", b"v", timeout_s=0.3)
                assert refused.value.reason is Reason.EXPIRED

            async def read() -> None:
                with pytest.raises(DeadlineExceeded):
                    await client.get(guess, "k", timeout_s=0.3)

            nursery.start_soon(write)
            nursery.start_soon(read)
            await trio.sleep(0.5)
            cluster.heal()
        assert made == [guess]
        await cluster.settle()
        assert await client.values(guess, "k") == []


@virtual
async def test_a_full_disk_refuses_writes_and_hints_and_goes_on_reading() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client, full = await cluster.client(N1), await cluster.client(N3)
        await client.put(bucket, "old", b"v", w=3)
        cluster.fill_disk(N3)
        await trio.sleep(12)
        with pytest.raises(NotApplied) as refused:
            await full.put(bucket, "k", b"v", w=3)
        assert refused.value.reason is Reason.DISK_FULL
        assert (await full.put(bucket, "elsewhere", b"v")).acks == 2, "any node takes any request"
        assert await full.values(bucket, "old") == [b"v"]
        assert (await client.put(bucket, "new", b"v")).acks == 2
        await trio.sleep(5)
        hints = [await cluster.hints(node) for node in cluster.nodes]
        assert sum(map(len, hints)) == 2
        assert await cluster.record(N3, bucket, "new") is None
        cluster.free_disk(N3)
        await trio.sleep(12)
        await full.put(bucket, "k", b"v")
        await cluster.settle(900)
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_a_node_whose_log_fails_ends_and_the_others_go_on() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client, broken = await cluster.client(N1), await cluster.client(N3)
        await client.put(bucket, "k", b"before", w=3)
        cluster.disks[N3].faults.append(Fault("sync", path_prefix="wal/", error=errno.EIO))
        with pytest.raises((Severed, LeafdbError)) as failed:
            await broken.put(bucket, "k2", b"v", w=3)
        assert not isinstance(failed.value, NotApplied), "it may have been applied elsewhere"
        await cluster.processes[N3].ended.wait()
        assert isinstance(cluster.processes[N3].failure, StorageError)
        assert await client.put(bucket, "k", b"after", (await client.get(bucket, "k")).context)
        await cluster.start(N3)
        await cluster.settle()
        assert await client.values(bucket, "k", r=3) == [b"after"]
        await cluster.assert_replicas_equal(bucket)


@pytest.mark.parametrize("at", [2, 8, 9, 11, 12])
@virtual
async def test_a_disk_that_fails_while_a_node_starts_ends_the_start_with_the_reason(at: int) -> None:
    async with memory_cluster(1) as cluster:
        await cluster.create_bucket(durability=Durability.PERIODIC)
        await cluster.power_cut(N1, keep=1.0)
        fault = Fault("sync", at=at)
        cluster.disks[N1].faults.append(fault)
        try:
            await cluster.start(N1, limit_s=30)
            await cluster.processes[N1].ended.wait()
        except StorageError:
            pass
        finally:
            assert fault.seen >= at
            assert cluster.processes[N1].failure is not None
            cluster.disks[N1].faults.clear()
            await cluster.start(N1)


@virtual
async def test_hints_that_cannot_be_read_now_are_read_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N3,))
        await trio.sleep(0.1)
        await client.put(bucket, "k", b"v")
        cluster.heal()
        scan = Engine.scan_soon
        refusals: list[object] = []

        def crowded(engine: Engine, tree: object, *args: object, **more: object) -> None:
            if engine is cluster.nodes[N1].engine and tree == HINTS_TREE and len(refusals) < 3:
                refusals.append(tree)
                raise ReadsOverloaded("too many reads wait")
            scan(engine, tree, *args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Engine, "scan_soon", crowded)
        await cluster.settle()
        assert len(refusals) == 3
        assert cluster.nodes[N1].metrics.hints_delivered_total == 1


@virtual
async def test_a_coordinator_hint_that_cannot_be_kept_becomes_a_debt(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        client = await cluster.client(N1)
        cluster.cut(N1, (N3,))
        await trio.sleep(0.1)
        node = cluster.nodes[N1]
        get_now = node.engine.get_now

        def cold(tree: TreeId, key: bytes) -> object:
            return None if tree == HINTS_TREE else get_now(tree, key)

        def crowded(*_: object) -> None:
            raise ReadsOverloaded("too many reads wait")

        with monkeypatch.context() as patch:
            patch.setattr(node.engine, "get_now", cold)
            patch.setattr(node.engine, "get_soon", crowded)
            await client.put(bucket, "k", b"v")
        assert not await cluster.hints(N1)
        assert any("hints for n3 were given up" in str(task) for task in node.anti_entropy.report())
        cluster.heal()
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_values_of_the_greatest_size_travel_many_at_once() -> None:
    async with memory_cluster(3) as cluster:
        bucket = await cluster.create_bucket()
        clients = [await cluster.client(node) for node in cluster.nodes]
        values = {f"key{number}": bytes((number,)) * (VALUE_BYTES_MAX - number) for number in range(12)}

        async def put(number: int, key: str) -> None:
            await clients[number % 3].put(bucket, key, values[key], w=3, timeout_s=30.0)

        async with trio.open_nursery() as nursery:
            for number, key in enumerate(values):
                nursery.start_soon(put, number, key)
        for number, (key, value) in enumerate(values.items()):
            assert await clients[number % 3].values(bucket, key, r=3) == [value]
        await cluster.settle()
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_hints_and_debts_of_a_dropped_bucket_go_with_it() -> None:
    async with memory_cluster(3) as cluster:
        kept, dropped = await cluster.create_bucket("kept"), await cluster.create_bucket("dropped")
        client = await cluster.client(N1)
        await cluster.kill(N3)
        await trio.sleep(0.1)
        for bucket in (kept, dropped):
            await client.put(bucket, "k", b"v")
        await client.admin("bucket.drop", name="dropped")
        await cluster.start(N3)
        await cluster.settle()
        assert await client.values(kept, "k", r=3) == [b"v"]
        for node in cluster.nodes.values():
            assert TreeId(dropped.id) not in node.engine.trees()
        await cluster.kill(N1, N2, N3)
        await cluster.restart(N1, N2, N3)
        await cluster.settle()
        await cluster.assert_replicas_equal(kept)


@virtual
async def test_a_bucket_dropped_under_load_ends_every_request_with_a_type() -> None:
    async with memory_cluster(3, disk_latency_s=lambda: 0.002) as cluster:
        bucket = await cluster.create_bucket()
        client, other = await cluster.client(N1), await cluster.client(N2)
        ended: list[str] = []

        async def put(number: int) -> None:
            await trio.sleep(number * 0.001)
            try:
                await other.put(bucket, f"key{number % 7}", b"v", timeout_s=1.0)
                ended.append("put")
            except (NotApplied, OutcomeUnknown) as error:
                ended.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(put, number)
            await trio.sleep(0.03)
            await client.admin("bucket.drop", name="b")
        assert len(ended) == 80
        assert {"put", "NotApplied"} <= set(ended)
        assert all(node.pump.counters.handler_errors_total == 0 for node in cluster.nodes.values())
        await cluster.settle()
