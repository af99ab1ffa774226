"""What the ring leaves behind: copies of ranges that are somebody else's now, hints for nodes that are gone (I21)."""

from __future__ import annotations

from random import Random

import pytest
import trio

from leafdb.hints.hint import Kind, decode_key
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import encode_key as encode_hint_key
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key as encode
from leafdb.model.record import merge
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.node import Node
from leafdb.ring.ring import Ring
from leafdb.ring.staging import ForceRemove, Join, Leave, Replace
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import Conflict, Durability, NodeId, TreeId
from support.repairs import plant, record_of, view_of
from support.ring_moves import begun, ended, moved, newcomer
from support.transports import until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))
KEYS = 40


def ring_of(node: Node) -> Ring:
    assert node.view.ring is not None
    return node.view.ring


class Guard:
    """Sees every write to every store: nobody may drop a record that not all of its holders have."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketProperties) -> None:
        self.cluster = cluster
        self.tree = TreeId(bucket.id)
        self.n = bucket.n
        self.stores: dict[NodeId, dict[bytes, bytes]] = {}
        self.hints: dict[NodeId, dict[bytes, bytes]] = {}
        self.drops: list[tuple[NodeId, bytes]] = []
        self.stop_at = 0
        self.stopped = trio.Event()
        cluster.observe_writes(self.on_write)

    def on_write(self, node: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        if tree == HINTS_TREE:
            self.on_hint(node, key, value)
        if tree != self.tree:
            return
        store = self.stores.setdefault(node, {})
        if value is not None:
            store[key] = value
            return
        ring = ring_of(self.cluster.nodes[node])
        holders = ring.holders(ring.partition_of(split_storage_key(key)[0]), self.n)
        assert node not in holders
        for holder in holders:
            held = self.stores.get(holder, {}).get(key)
            assert held is not None, f"n{node} drops {key!r}, of which n{holder} has nothing"
            assert merge(held, store[key], Conflict.SIBLINGS) == held, f"n{node} knows more of {key!r} than n{holder}"
        self.drops.append((node, key))
        if len(self.drops) == self.stop_at:
            self.stopped.set()

    def on_hint(self, node: NodeId, key: bytes, value: bytes | None) -> None:
        hints = self.hints.setdefault(node, {})
        if value is not None:
            hints[key] = value
            return
        target, bucket, place = decode_key(key)
        record = decode_hint(hints.pop(key)).record
        ring = ring_of(self.cluster.nodes[node])
        holders = ring.holders(ring.partition_of(split_storage_key(place)[0]), self.n)
        for holder in (target,) if target in holders else holders:
            held = self.stores.get(holder, {}).get(place)
            kept = hints.get(encode_hint_key(holder, bucket, place))
            known = [held] if held is not None else []
            known += [decode_hint(kept).record] if kept is not None else []
            covered = any(merge(each, record, Conflict.SIBLINGS) == each for each in known)
            assert covered, f"n{node} forgets what n{target} missed of {place!r}, and n{holder} has not got it"


async def fill(cluster: MemoryCluster, bucket: BucketProperties, via: NodeId = N1) -> dict[str, bytes]:
    """Keys with values."""
    client = await cluster.client(via)
    for number in range(KEYS):
        await client.put(bucket, f"k{number}", b"v%d" % number)
    return {f"k{number}": b"v%d" % number for number in range(KEYS)}


async def only_on(cluster: MemoryCluster, bucket: BucketProperties, node: NodeId) -> list[str]:
    """Keys of which a node has its copy, and no other primary has anything."""
    keys = [f"only{number}" for number in range(KEYS) if node in cluster.primaries(bucket, f"only{number}")]
    for number, key in enumerate(keys):
        await plant(cluster.nodes[node], "b", key, record_of(number))
    await cluster.settle()
    return keys


async def assert_whole(cluster: MemoryCluster, bucket: BucketProperties, values: dict[str, bytes]) -> None:
    """Everybody holds what is his, nobody anything else, and all values are there."""
    await cluster.settle()
    for node in cluster.nodes.values():
        node.anti_entropy.start_repair(None)  # what a plan's own copies are for
    await cluster.settle()
    await cluster.assert_replicas_equal(bucket)
    client = await cluster.client(min(cluster.nodes))
    for key, value in values.items():
        assert await client.values(bucket, key) == [value]
    assert not any(node.estate.problems() for node in cluster.nodes.values())


@virtual
async def test_old_copies_go_when_the_new_owners_have_them_and_not_before() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await cluster.settle()
        await moved(cluster, cluster.nodes[N1], Join(newcomer(N5)))
        await assert_whole(cluster, bucket, values)
        assert guard.drops
        assert sum(node.metrics.leftover_records_dropped_total for node in cluster.nodes.values()) == len(guard.drops)
        # What is given away once is looked for again now and then, and not found.
        drops = len(guard.drops)
        await cluster.pass_time(2_000)
        assert len(guard.drops) == drops


@virtual
async def test_a_node_that_was_away_for_the_whole_plan_brings_what_only_it_has() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await only_on(cluster, bucket, N4)
        held = {key for key in guard.stores[N4] if b"only" in key}
        await cluster.kill(N4)
        await moved(cluster, cluster.nodes[N1], Join(newcomer(N5)))
        mine = {key for key in held if N4 in holders_of(cluster, bucket, key)}
        assert mine < held, "the plan takes something from it"
        await cluster.start(N4)
        await assert_whole(cluster, bucket, values)
        dropped = {key for node, key in guard.drops if node == N4}
        assert held - mine <= dropped
        for key in held - mine:
            assert all(key in guard.stores[holder] for holder in holders_of(cluster, bucket, key))


def holders_of(cluster: MemoryCluster, bucket: BucketProperties, place: bytes) -> tuple[NodeId, ...]:
    """Who holds a storage key, as the newest of all nodes believes."""
    ring = max((ring_of(node) for node in cluster.nodes.values()), key=lambda ring: ring.epoch)
    return ring.holders(ring.partition_of(split_storage_key(place)[0]), bucket.n)


@virtual
async def test_a_copy_waits_for_a_holder_that_is_away_and_says_so() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(n=2)
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await cluster.settle()
        await begun(cluster, cluster.nodes[N1], Join(newcomer(N5)))
        await ended_without_leftovers(cluster)
        await cluster.pass_time(3_600)
        waiting = [node for node in cluster.nodes.values() if node.estate.leftovers.ranges]
        assert waiting
        for node in waiting:
            (problem,) = node.estate.problems()
            assert "n5 (cannot be reached)" in problem
        assert not any(N5 in holders_of(cluster, bucket, key) for _, key in guard.drops)
        await cluster.start(N5)
        await assert_whole(cluster, bucket, values)
        assert any(N5 in holders_of(cluster, bucket, key) for _, key in guard.drops)


async def ended_without_leftovers(cluster: MemoryCluster) -> None:
    """End the plan while its newcomer is down, so that nothing can be given to it."""
    await cluster.kill(N5)
    await trio.sleep(1.0)
    await ended(cluster, cluster.nodes[N1])


@virtual
@pytest.mark.parametrize("after", [1, 7, 20])
@pytest.mark.parametrize("everybody", [False, True])
async def test_power_that_goes_in_the_middle_loses_nothing(after: int, everybody: bool) -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket(durability=Durability.PERIODIC)
        guard = Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        only = await only_on(cluster, bucket, N4)
        await trio.sleep(10)  # all of it is synced
        guard.stop_at = after
        await moved(cluster, cluster.nodes[N1], Join(newcomer(N5)))
        with trio.fail_after(100):
            await guard.stopped.wait()
        # Nothing stays that was not synced: what a holder said it has it must still have.
        cut = tuple(node for node in cluster.nodes if everybody or node != guard.drops[-1][0])
        await cluster.power_cut(*cut, keep=0.0)
        await cluster.restart(*cut)
        await assert_whole(cluster, bucket, values)
        for number, key in enumerate(only):
            for node in cluster.primaries(bucket, key):
                assert await cluster.record(node, bucket, key) == record_of(number)


@virtual
async def test_a_record_that_comes_late_to_a_node_that_holds_nothing_of_its_range_is_found() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N3)
        await plant(cluster.nodes[N4], "b", key, record_of(1))
        await cluster.pass_time(700)
        assert await cluster.record(N4, bucket, key) is None
        for node in (N1, N2, N3):
            assert await cluster.record(node, bucket, key) == record_of(1)


@virtual
async def test_a_record_that_changes_while_it_is_given_away_stays_until_the_change_is_given_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N3)
        node = cluster.nodes[N4]
        await plant(node, "b", key, record_of(1))
        mover, entrusted = node.anti_entropy.mover, 0
        entrust = mover.entrust

        async def entrust_and_change(*args: object) -> None:
            nonlocal entrusted
            await entrust(*args)  # type: ignore[arg-type]
            entrusted += 1
            if entrusted == 3:
                await plant(node, "b", key, record_of(2))

        monkeypatch.setattr(mover, "entrust", entrust_and_change)
        await cluster.pass_time(700)
        assert entrusted == 6
        assert len(guard.drops) == 1
        merged = merge(record_of(1), record_of(2), Conflict.SIBLINGS)
        for holder in (N1, N2, N3):
            assert await cluster.record(holder, bucket, key) == merged


@virtual
async def test_a_range_that_comes_back_while_it_is_given_away_is_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        leaver = N1
        key = next(
            key
            for key in (f"x{number}" for number in range(1_000))
            if cluster.primaries(bucket, key)[:2] == (leaver, N2) and N4 not in cluster.primaries(bucket, key)
        )
        node = cluster.nodes[N4]
        await plant(node, "b", key, record_of(1))
        mover = node.anti_entropy.mover
        entrust = mover.entrust
        entrusted = 0

        async def entrust_and_wait(*args: object) -> None:
            nonlocal entrusted
            await entrust(*args)  # type: ignore[arg-type]
            entrusted += 1
            if entrusted == 3:  # the last holder has it, and the next step would be to drop it
                await begun(cluster, cluster.nodes[N2], Leave(leaver))

        monkeypatch.setattr(mover, "entrust", entrust_and_wait)
        await cluster.pass_time(700)
        assert entrusted == 3
        assert N4 in holders_of(cluster, bucket, storage_key(bucket.id, encode(key)))
        assert not guard.drops
        assert await cluster.record(N4, bucket, key) == record_of(1)


# -- hints


async def keep(cluster: MemoryCluster, holder: NodeId, target: NodeId, key: str, record: bytes, kind: Kind) -> None:
    """Have a node keep a hint of which nobody else has anything."""
    node = cluster.nodes[holder]
    bucket = view_of(node, "b")
    place = storage_key(bucket.id, encode(key))
    if kind is Kind.COORDINATOR:
        node.hints.owe(target, bucket, place, record)
        await trio.sleep(0.1)
        return
    over = trio.Event()
    errors: list[Exception | None] = []

    def done(error: Exception | None) -> None:
        errors.append(error)
        over.set()

    node.hints.keep(target, bucket, place, record, done)
    await over.wait()
    assert errors == [None]


async def targets(cluster: MemoryCluster, node: NodeId) -> set[NodeId]:
    """Whom a node keeps hints for."""
    return {decode_key(key).target for key in await cluster.hints(node)}


@virtual
async def test_hints_for_a_removed_member_reach_those_who_hold_the_range_now() -> None:
    async with memory_cluster(5) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        values = await fill(cluster, bucket)
        await cluster.settle()
        await cluster.kill(N4)
        rng = Random(1)
        keys = [f"h{number}" for number in range(60) if N4 in cluster.primaries(bucket, f"h{number}")]
        assert len(keys) > 20
        for number, key in enumerate(keys):
            kind = rng.choice((Kind.FALLBACK, Kind.COORDINATOR))
            await keep(cluster, rng.choice((N1, N2, N3, N5)), N4, key, record_of(number), kind)
        await moved(cluster, cluster.nodes[N1], ForceRemove(N4))
        await assert_whole(cluster, bucket, values)
        for number, key in enumerate(keys):
            for node in cluster.primaries(bucket, key):
                assert await cluster.record(node, bucket, key) == record_of(number)
        nodes = cluster.nodes.values()
        assert sum(node.metrics.hints_handed_on_total for node in nodes) == len(keys)
        assert not any(node.hints.ledger.targets() for node in nodes)


@virtual
async def test_hints_for_a_replaced_member_wait_under_the_name_of_a_holder_that_is_away() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N4)
        await cluster.kill(N4)
        await keep(cluster, N3, N4, key, record_of(1), Kind.FALLBACK)
        await begun(cluster, cluster.nodes[N1], Replace(N4, newcomer(N5)))
        await ended_without_leftovers(cluster)
        await until(lambda: cluster.nodes[N3].estate.quiet, 100)
        assert await targets(cluster, N3) == {N5}
        (hint,) = (await cluster.hints(N3)).values()
        assert decode_hint(hint).kind is Kind.FALLBACK
        for node in (N1, N2):
            assert await cluster.record(node, bucket, key) == record_of(1)
        await cluster.start(N5)
        await cluster.settle()
        assert await cluster.record(N5, bucket, key) == record_of(1)
        assert not await cluster.hints(N3)
        await cluster.assert_replicas_equal(bucket)


@virtual
async def test_without_room_for_another_hint_the_one_for_the_gone_stays_and_is_shown_as_such() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N4)
        await cluster.kill(N4)
        await keep(cluster, N3, N4, key, record_of(1), Kind.FALLBACK)
        ledger = cluster.nodes[N3].hints.ledger
        ledger.bytes_max = ledger.bytes
        await begun(cluster, cluster.nodes[N1], Replace(N4, newcomer(N5)))
        await ended_without_leftovers(cluster)
        await cluster.pass_time(1_000)
        assert await targets(cluster, N3) == {N4}
        client = await cluster.client(N1)
        (line,) = (await client.admin("hints.list"))["hints"]
        assert (line["holder"], line["target"], line["records"]) == ("n3", "node-4 (gone)", 1)
        (problem,) = cluster.nodes[N3].estate.problems()
        assert "n5 (cannot be reached)" in problem
        assert cluster.nodes[N3].metrics.hints_overflowed_total == 0
        await cluster.start(N5)
        await cluster.settle()
        assert await cluster.record(N5, bucket, key) == record_of(1)
        assert not await cluster.hints(N3)


@virtual
async def test_a_hint_for_a_member_that_gave_the_range_away_is_refused_by_it_and_goes_to_the_owners() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        guard = Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2, N3)
        await keep(cluster, N1, N4, key, record_of(1), Kind.FALLBACK)
        await cluster.pass_time(1_300)
        assert not guard.stores.get(N4), "it took what is not its own"
        for node in (N1, N2, N3):
            assert await cluster.record(node, bucket, key) == record_of(1)
        assert not await cluster.hints(N1)


@virtual
async def test_a_hint_is_not_removed_when_the_holders_change_while_it_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with memory_cluster(5) as cluster:
        bucket = await cluster.create_bucket()
        Guard(cluster, bucket)
        key = cluster.key_of(bucket, N1, N2)
        third = cluster.primaries(bucket, key)[2]
        holder, target = (node for node in (N3, N4, N5) if node != third)
        await keep(cluster, holder, target, key, record_of(1), Kind.FALLBACK)
        mover = cluster.nodes[holder].anti_entropy.mover
        entrust = mover.entrust
        under_way = False

        async def entrust_late(*args: object) -> None:
            nonlocal under_way
            await entrust(*args)  # type: ignore[arg-type]
            if args[0] == third and not under_way:
                under_way = True
                await begun(cluster, cluster.nodes[N1], Leave(N2))

        monkeypatch.setattr(mover, "entrust", entrust_late)
        await cluster.pass_time(1_300)
        assert under_way
        holders = holders_of(cluster, bucket, storage_key(bucket.id, encode(key)))
        assert len(holders) == 4
        for node in holders:
            assert await cluster.record(node, bucket, key) == record_of(1)
        assert not await cluster.hints(holder)


@virtual
async def test_hints_handed_on_survive_power_that_goes_anywhere() -> None:
    for seed in range(4):
        async with memory_cluster(5, seed=seed, disk_latency_s=lambda: 0.003) as cluster:
            bucket = await cluster.create_bucket()
            Guard(cluster, bucket)
            await cluster.kill(N4)
            keys = [f"h{number}" for number in range(120) if N4 in cluster.primaries(bucket, f"h{number}")]
            for number, key in enumerate(keys):
                await keep(cluster, N3, N4, key, record_of(number), Kind.FALLBACK)
            await moved(cluster, cluster.nodes[N1], ForceRemove(N4))
            await until(lambda: cluster.nodes[N3].metrics.hints_handed_on_total > 5 * seed, 100)  # noqa: B023
            everybody = tuple(cluster.nodes)
            await cluster.power_cut(*everybody, keep=0.0)
            await cluster.restart(*everybody)
            await cluster.settle()
            for number, key in enumerate(keys):
                for node in cluster.primaries(bucket, key):
                    assert await cluster.record(node, bucket, key) == record_of(number)
            assert not await cluster.hints(N3)
