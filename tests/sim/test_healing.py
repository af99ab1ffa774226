"""A damaged table heals in place: what it lost is doubted, and brought back by other owners; the node never stops."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio

from leafdb.errors import CorruptionError, LeafdbError
from leafdb.limits import SCRUB_INTERVAL_S_DEFAULT
from leafdb.merkle.tree import Tree
from leafdb.model.bucket import BucketProperties
from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.node import Node
from leafdb.node.register import META_TREE
from leafdb.storage.engine import Engine
from leafdb.storage.lsm_tree import Page
from leafdb.storage.sstable_reader import verify
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta
from leafdb.testing.cluster import MemoryCluster, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId, PartitionId, TreeId
from support.repairs import contents, make_bucket, partition_of, plant, record_of, repaired
from support.transports import until

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
KEYS = 600


async def filled(cluster: MemoryCluster, *, n: int = 3) -> TreeId:
    """Every node has every key, in tables."""
    nodes = list(cluster.nodes.values())
    bucket = await make_bucket(nodes, "b", n=n)
    for node in nodes:
        for number in range(KEYS):
            await plant(node, "b", f"k{number}", record_of(number, 100))
        await flushed(node)
    await repaired(*nodes)
    return TreeId(bucket)


async def flushed(node: Node) -> None:
    over = trio.Event()
    node.engine.flush_soon(over.set)
    await over.wait()


def table_of(node: Node, tree: TreeId) -> TableMeta:
    return next(iter(node.engine._tables.version.trees[tree]))


def shorten(cluster: MemoryCluster, node: NodeId, meta: TableMeta) -> None:
    cluster.disks[node].open_append(meta.path).truncate(meta.size // 2)


async def meet(node: Node) -> None:
    """Read everything; a damaged part is an error and nothing else."""
    with pytest.raises(CorruptionError):
        await contents(node, "b")


async def put(client: RawClient, bucket: BucketProperties, key: str, value: bytes) -> None:
    """Until the node that was asked knows what it has of the key."""
    with trio.fail_after(60):
        while True:
            try:
                await client.put(bucket, key, value)
                return
            except LeafdbError:
                await trio.sleep(0.5)


async def healed(cluster: MemoryCluster, node: Node, tree: TreeId) -> None:
    """All that the others have is back, the node is complete, and its tables are sound."""
    with trio.fail_after(600):
        await until(lambda: not node.engine.lost and not node.completeness.incomplete, 500.0)
        await repaired(*cluster.nodes.values())
    stores = [await contents(each, "b") for each in cluster.nodes.values()]
    assert all(store == stores[0] for store in stores)
    assert len(stores[0]) == KEYS
    assert node.engine.stats().damaged_tables == 0
    for meta in node.engine._tables.version.trees[tree]:
        verify(cluster.disks[N2], meta)
    node.trees.kept.check()


@virtual
async def test_a_damaged_block_heals_while_the_node_serves() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        node, meta = cluster.nodes[N2], table_of(cluster.nodes[N2], tree)
        node.horizons.vouch(range(64), 5)
        disk = cluster.disks[N2]
        disk.flip(meta.path, 60)
        disk.evict()
        actor_floor = node.leases.epochs.floor
        cluster.cut(N2, (N1, N3))
        await meet(node)
        await until(lambda: node.engine.stats().salvages == 1)
        assert node.completeness.incomplete, "it says of nothing in the range that it is not there"
        assert not all(node.horizons.mark(at) for at in range(64)), "nor that it was forgotten by right"
        assert node.leases.epochs.floor > actor_floor, "and mints nothing over what it may have lost"
        assert node.metrics.lost_ranges_total == 1
        assert disk.list("quarantine") == [meta.path.rpartition("/")[2]]
        cluster.heal()
        await healed(cluster, node, tree)
        assert node.anti_entropy.possible_losses == 0, "somebody had it"


@virtual
async def test_a_table_that_cannot_be_opened_at_a_start_heals() -> None:
    for gone in (True, False):
        async with memory_cluster(3) as cluster:
            tree = await filled(cluster)
            meta = table_of(cluster.nodes[N2], tree)
            await cluster.kill(N2)
            if gone:
                cluster.disks[N2].unlink(meta.path)
            else:
                shorten(cluster, N2, meta)
            node = await cluster.start(N2)
            await until(lambda node=node: node.engine.stats().salvages >= 1)  # type: ignore[misc]
            await healed(cluster, node, tree)
            assert node.anti_entropy.possible_losses == 0


@virtual
async def test_a_loss_that_was_not_noted_before_a_kill_is_doubted_by_the_next_start() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        node, meta = cluster.nodes[N2], table_of(cluster.nodes[N2], tree)
        shorten(cluster, N2, meta)
        cluster.disks[N2].evict()
        node.engine.on_lost = lambda lost: None  # it dies before it has noted anything
        await meet(node)
        await until(lambda: bool(node.engine.lost))
        await cluster.kill(N2)
        cluster.cut(N2, (N1, N3))
        node = await cluster.start(N2)
        assert node.completeness.incomplete
        await until(lambda: not node.engine.lost)
        await cluster.kill(N2)
        node = await cluster.start(N2)
        assert node.completeness.incomplete, "that it was noted is remembered as well"
        cluster.heal()
        await healed(cluster, node, tree)


@virtual
async def test_a_node_alone_says_that_writes_may_be_lost_and_goes_on() -> None:
    async with memory_cluster(1) as cluster:
        tree = await filled(cluster, n=1)
        node = cluster.nodes[N1]
        shorten(cluster, N1, table_of(node, tree))
        cluster.disks[N1].evict()
        await meet(node)
        await until(lambda: node.engine.stats().salvages == 1 and not node.engine.lost)
        await until(lambda: not node.completeness.incomplete)
        assert node.anti_entropy.possible_losses > 0
        assert await contents(node, "b") == {}
        await plant(node, "b", "k1", record_of(1))
        assert len(await contents(node, "b")) == 1


@virtual
async def test_owners_that_have_all_lost_something_give_each_other_what_is_left() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        for number, node in cluster.nodes.items():
            reader = node.engine._tables.readers[table_of(node, tree).file_number]
            cluster.disks[number].flip(reader.meta.path, reader._places[number][0] + 60)
            cluster.disks[number].evict()
        cluster.cut(N1, (N2, N3))
        cluster.cut(N2, (N3,))
        for node in cluster.nodes.values():
            await meet(node)
            await until(lambda node=node: node.engine.stats().salvages == 1)  # type: ignore[misc]
        cluster.heal()
        await until(lambda: all(not node.completeness.incomplete for node in cluster.nodes.values()), 500.0)
        await repaired(*cluster.nodes.values())
        stores = [await contents(node, "b") for node in cluster.nodes.values()]
        assert all(store == stores[0] for store in stores)
        assert len(stores[0]) == KEYS, "each had lost another part"


@virtual
async def test_lost_hash_trees_are_built_anew() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        node = cluster.nodes[N2]
        await until(lambda: bool(node.engine._tables.version.trees[TREES_TREE].levels[0]))
        meta = table_of(node, TREES_TREE)
        shorten(cluster, N2, meta)
        cluster.disks[N2].evict()
        await cluster.kill(N2)
        node = await cluster.start(N2)
        await until(lambda: node.engine.stats().salvages == 1 and not node.engine.lost)
        await until(lambda: not node.trees.kept.unknown, 500.0)
        assert not node.completeness.incomplete, "no record was lost"
        await healed(cluster, node, tree)


@virtual
async def test_what_no_other_store_has_is_not_salvaged() -> None:
    async with memory_cluster(3) as cluster:
        await filled(cluster)
        node = cluster.nodes[N2]
        meta = table_of(node, META_TREE)
        await cluster.kill(N2)
        shorten(cluster, N2, meta)
        with pytest.raises(CorruptionError, match=meta.path):
            await cluster.start(N2)


@virtual
async def test_writes_and_salvages_side_by_side_lose_nothing() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        rng = Random(5)
        client = await cluster.client(N2)
        bucket = cluster.nodes[N2].view.bucket_named("b")
        assert bucket is not None
        for round_number in range(4):
            node = cluster.nodes[N2]
            meta = rng.choice(list(node.engine._tables.version.trees[tree]))
            cluster.disks[N2].flip(meta.path, rng.randrange(meta.size))
            cluster.disks[N2].evict()
            for number in range(100):
                await put(client, bucket.properties, f"new{number}", b"%d" % round_number)
            await flushed(node)
            try:
                await contents(node, "b")
            except CorruptionError:
                await until(lambda node=node: not node.engine.stats().damaged_tables)  # type: ignore[misc]
        for node in cluster.nodes.values():
            await until(lambda node=node: not node.completeness.incomplete, 500.0)  # type: ignore[misc]
        await repaired(*cluster.nodes.values())
        stores = [await contents(node, "b") for node in cluster.nodes.values()]
        assert all(store == stores[0] for store in stores)
        assert len(stores[0]) == KEYS + 100


@virtual
async def test_damage_that_nobody_meets_is_found_by_the_scrub_and_heals() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        node, disk = cluster.nodes[N2], cluster.disks[N2]
        await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT)  # the pass that began with an empty store
        meta = table_of(node, tree)
        disk.flip(meta.path, 60)
        disk.evict()
        await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT)
        assert node.scrubber.passes_total >= 1
        assert node.engine.stats().salvages == 1
        assert node.engine.scrubber.damages_found >= 1
        await healed(cluster, node, tree)


@virtual
async def test_a_large_value_that_rots_unread_is_found_by_the_scrub_and_comes_back_alone() -> None:
    async with memory_cluster(3) as cluster:
        tree = await filled(cluster)
        node, disk = cluster.nodes[N2], cluster.disks[N2]
        for each in cluster.nodes.values():
            for number in range(20):
                await plant(each, "b", f"k{number}", record_of(KEYS + number, 5_000))
            await flushed(each)
        await repaired(*cluster.nodes.values())
        await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT)  # the pass that began with an empty store
        (meta,) = (meta for meta in node.engine.files().values() if isinstance(meta, ValueMeta))
        disk.flip(meta.path, meta.size // 2)
        disk.evict()
        await cluster.pass_time(2 * SCRUB_INTERVAL_S_DEFAULT)
        assert node.metrics.lost_ranges_total == 1, "of this pass, and not of the next one again"
        assert node.scrubber.passes_total >= 2
        assert meta.file_number in node.engine.files(), "the other values lie where they lay"
        await healed(cluster, node, tree)


@virtual
async def test_a_scrub_goes_on_after_a_restart_and_reads_no_table_twice() -> None:
    async with memory_cluster(1) as cluster:
        await filled(cluster, n=1)
        await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT + 60)
        node = cluster.nodes[N1]
        sizes = {number: meta.size for number, meta in node.engine.tables().items()}
        read = node.engine.scrubber.bytes_read
        assert 0 < read < sum(sizes.values()), "evenly over the interval, not at its beginning"
        for _ in range(8):
            await cluster.stop(N1)
            node = await cluster.start(N1)
            await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT / 8)
            read += node.engine.scrubber.bytes_read
        old = sum(size for number, size in sizes.items() if number in node.engine.tables())
        assert old <= read <= 1.5 * sum(sizes.values())


@virtual
async def test_a_file_that_a_kill_kept_from_being_read_has_its_turn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def never_read(engine: Engine, number: int, *, bytes_per_s: int, done: object) -> None:
        asked.append(number)

    async with memory_cluster(1) as cluster:
        await filled(cluster, n=1)
        await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT + 60)  # the pass that began with an empty store
        monkeypatch.setattr(Engine, "scrub_soon", never_read)
        for _ in range(2):
            await cluster.pass_time(SCRUB_INTERVAL_S_DEFAULT / 2)
            await cluster.kill(N1)
            await cluster.start(N1)
    assert len(asked) >= 2
    assert len(set(asked)) == 1


@virtual
async def test_a_hash_tree_that_is_being_built_does_not_keep_what_was_lost_meanwhile() -> None:
    async with memory_cluster(1) as cluster:
        tree = await filled(cluster, n=1)
        node = cluster.nodes[N1]
        kept, rebuild = node.trees.kept, node.trees.rebuild
        victim = next(iter(await contents(node, "b")))
        partition = PartitionId(partition_of(node, victim))
        page, pages = rebuild._page, 0

        async def losing(*args: Any) -> Page:
            nonlocal pages
            pages += 1
            found = await page(*args)
            if pages == 1:  # what was read is gone, and nobody wrote it
                node.engine.write(((tree, victim, None),), Durability.ALWAYS, None)
                kept.lose(tree, [partition])
            return found

        rebuild._page = losing  # type: ignore[method-assign, assignment]
        kept.doubt(tree, partition, "the test says so")
        await until(lambda: kept.of(tree, partition) is not None)
        assert pages >= 2
        truth = Tree()
        for key, record in (await contents(node, "b")).items():
            if partition_of(node, key) == partition:
                truth.add(key, record)
        built = kept.of(tree, partition)
        assert built is not None
        assert built.root() == truth.root()
