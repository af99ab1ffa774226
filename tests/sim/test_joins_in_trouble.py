"""A join in the middle of whose copies something happens to the newcomer, or to one from whom it copies: it is killed,
loses power, is cut off, or its disk is full.

Either that passes, and the join goes on from where it was to its end; or the operator gives the join up meanwhile, and
then nothing of it is left, in the ring or on any disk, and the same node joins when it is asked again. Whatever was
acknowledged, before and in all that time, is there in the end. All is asked for by admin verbs, and taken by drivers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import pytest
import trio

from leafdb.model.bucket import BucketProperties
from leafdb.node import range_pull
from leafdb.node.boot import CHECKPOINTS_TREE, INTERNAL_TREES
from leafdb.node.expulsion import EXPELLED_KEY
from leafdb.node.joining import JOINING_KEY
from leafdb.node.register import META_TREE, METADATA_KEY
from leafdb.node.transfer_progress import KINDS
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.testing.cluster import MemoryCluster, address_of, memory_cluster
from leafdb.testing.stores import tree_of
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.newcomers import is_blank, stamp_of
from support.repairs import contents
from support.ring_load import ALL, QUORUM, Counts, Load
from support.ring_operators import committed, metadata_of, operator, phases, until_phase
from support.transports import until

N1, N2, N3, N4, N5 = map(NodeId, range(1, 6))
TARGET, SOURCE = N4, N2
JOIN = {"change": "join", "address": address_of(TARGET)}
KEYS, VALUE = 240, b"v" * 500
PAGE_BYTES = 8 * 1024
QUICKLY, SLOWLY = 20_000, 1_000
"""Bytes per second: to the middle of the copies, and from there."""
TROUBLE_S = 25.0
SLACK = 8 * 1024
"""Bytes: what is written while copies are made may travel twice."""


class Trouble(Enum):
    """What happens to a machine, until it is over."""

    KILLED = "killed"
    POWER_CUT = "power cut"
    CUT_OFF = "cut off"
    DISK_FULL = "disk full"

    async def begin(self, cluster: MemoryCluster, machine: NodeId) -> None:
        """It happens."""
        match self:
            case Trouble.KILLED:
                await cluster.kill(machine)
            case Trouble.POWER_CUT:
                await cluster.power_cut(machine)
            case Trouble.CUT_OFF:
                cluster.cut(machine, [N1, N2, N3, N4], silently=True)
            case Trouble.DISK_FULL:
                cluster.fill_disk(machine)

    async def end(self, cluster: MemoryCluster, machine: NodeId) -> None:
        """It is over."""
        match self:
            case Trouble.KILLED | Trouble.POWER_CUT:
                await cluster.start(machine)
            case Trouble.CUT_OFF:
                cluster.heal()
            case Trouble.DISK_FULL:
                cluster.free_disk(machine)


class Joining:
    """A cluster of three with data and clients, and the copies of the fourth under way."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketProperties, before: ClusterMetadata) -> None:
        self.cluster = cluster
        self.bucket = bucket
        self.before = before
        self._moved = 0

    @property
    def moved(self) -> int:
        """Bytes that the newcomer has received, in all its lives."""
        node = self.cluster.nodes.get(TARGET)
        return self._moved + (0 if node is None else node.metrics.transfer_bytes_received_total)

    def hurry(self, bytes_per_s: int = 0) -> None:
        """From now on copies are made so fast; 0: as fast as can be."""
        for node in self.cluster.nodes.values():
            node.transfers.set_limit(bytes_per_s)

    async def commit(self) -> None:
        """Have it join, slowly; returns in the middle of its copies."""
        self.hurry(QUICKLY)
        await committed(self.cluster, N1, JOIN)
        transfers = self.cluster.nodes[TARGET].transfers
        await until(lambda: transfers.report().bytes_done > 5 * PAGE_BYTES, 60)
        self.hurry(SLOWLY)
        assert not transfers.settled()

    async def begin(self, trouble: Trouble, machine: NodeId) -> None:
        """It happens, and lasts; the join does not end meanwhile."""
        moved = self.moved
        await trouble.begin(self.cluster, machine)
        self._moved = moved if TARGET not in self.cluster.nodes else 0
        await trio.sleep(TROUBLE_S)
        others = [node for node in self.cluster.nodes if node not in (machine, TARGET)]
        assert {phases(self.cluster)[node] for node in others} == {Phase.WRITE_BOTH_READ_OLD}

    async def held(self) -> int:
        """Bytes that the newcomer has."""
        items = await contents(self.cluster.nodes[TARGET], self.bucket.name)
        return sum(len(key) + len(record) for key, record in items.items())

    async def assert_as_before(self) -> None:
        """Nothing of a join is left: not in the ring, not on a disk."""
        cluster = self.cluster
        for node in (N1, N2, N3):
            after = metadata_of(cluster, node)
            assert (after.owners, after.members, after.plan, after.staged) == (
                self.before.owners, self.before.members, None, (),
            )  # fmt: skip
            kept = await tree_of(cluster.nodes[node], CHECKPOINTS_TREE)
            assert not [key for key in kept if key[0] in KINDS], "the copies of a plan that is no more"
        newcomer = cluster.nodes[TARGET]
        assert set(newcomer.engine.trees()) == set(INTERNAL_TREES)
        for tree in {*INTERNAL_TREES} - {META_TREE}:
            assert not await tree_of(newcomer, tree)
        assert not {METADATA_KEY, JOINING_KEY, EXPELLED_KEY} & (await tree_of(newcomer, META_TREE)).keys()

    async def finish(self) -> None:
        """The join goes to its end, and the ring has it as if nothing had been."""
        self.hurry()
        await until_phase(self.cluster, None)
        metadata = metadata_of(self.cluster, N1)
        number = self.cluster.nodes[TARGET].view.self_id
        assert set(metadata.members) == {N1, N2, N3, number}
        assert metadata.owners.count(number) == len(metadata.owners) // 4


@asynccontextmanager
async def joining() -> AsyncIterator[Joining]:
    """In the middle of the copies; at the end everything is where it belongs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(range_pull, "EXCHANGE_BYTES_MAX", PAGE_BYTES)
        async with memory_cluster(3, partitions=8) as cluster:
            bucket = await cluster.create_bucket()
            client = await cluster.client(N1)
            for number in range(KEYS):
                await client.put(bucket, f"old{number}", VALUE)
            load = Load(cluster, bucket, Counts(QUORUM, QUORUM), sloppy=True, pause_s=0.5)
            await cluster.add_node()
            async with trio.open_nursery() as nursery:
                join = Joining(cluster, bucket, metadata_of(cluster, N1))
                nursery.start_soon(load.lane, 0)
                await join.commit()
                yield join
                load.over = True
            await cluster.settle()
            await cluster.assert_replicas_equal(bucket)
            await load.check()
            client = await cluster.client(TARGET)
            for number in range(KEYS):
                assert await client.values(bucket, f"old{number}", r=ALL) == [VALUE]
            assert load.written > 20
            assert load.read > 40


@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("machine", [TARGET, SOURCE], ids=["target", "source"])
@virtual
async def test_a_join_goes_on_from_where_it_was_when_the_trouble_has_passed(machine: NodeId, trouble: Trouble) -> None:
    async with joining() as join:
        cluster = join.cluster
        before = cluster.nodes[TARGET].transfers.report()
        await join.begin(trouble, machine)
        if (machine, trouble) != (SOURCE, Trouble.DISK_FULL):  # a full disk can be read from
            assert any(f"n{machine} " in line for line in cluster.nodes[N1].ring_changes.waiting())
        await trouble.end(cluster, machine)
        report = cluster.nodes[TARGET].transfers.report()
        assert report.bytes_done >= before.bytes_done - 2 * PAGE_BYTES
        assert report.total == before.total > 0, "the same copies, not anew"
        await join.finish()
        assert join.moved <= 1.1 * await join.held() + SLACK + 2 * PAGE_BYTES


@pytest.mark.parametrize("trouble", Trouble)
@pytest.mark.parametrize("machine", [TARGET, SOURCE], ids=["target", "source"])
@virtual
async def test_a_join_that_is_given_up_leaves_no_trace_and_the_same_node_joins_again(
    machine: NodeId, trouble: Trouble
) -> None:
    async with joining() as join:
        cluster = join.cluster
        store = stamp_of(cluster, TARGET).store_id
        await join.begin(trouble, machine)
        answer = await operator(cluster, N3, "cluster.abort")
        assert answer["phase"] == ""
        if trouble is Trouble.DISK_FULL:  # it needs no room
            await until(lambda: is_blank(cluster, TARGET))
        await trouble.end(cluster, machine)
        await until_phase(cluster, None, N1, N2, N3)
        await until(lambda: is_blank(cluster, TARGET))
        await join.assert_as_before()
        assert stamp_of(cluster, TARGET).store_id != store
        assert metadata_of(cluster, N1).bans == (N4,)
        await committed(cluster, N3, JOIN)
        await until(lambda: cluster.nodes[TARGET].view.self_id == N5)
        await join.finish()


@virtual
async def test_a_newcomer_whose_disk_is_wiped_amid_its_copies_is_another_store_and_joins_after_an_abort() -> None:
    """The plan names the store that was staged: another one under its name is told so, and the plan says it waits."""
    async with joining() as join:
        cluster = join.cluster
        await cluster.kill(TARGET)
        cluster.wipe(TARGET)
        await cluster.start(TARGET)
        changes = cluster.nodes[N1].ring_changes
        await until(lambda: "another store was staged under this name" in str(changes.waiting()), 60)
        await trio.sleep(TROUBLE_S)
        assert is_blank(cluster, TARGET)
        await operator(cluster, N2, "cluster.abort")
        await join.assert_as_before()
        await committed(cluster, N2, JOIN)
        await until(lambda: cluster.nodes[TARGET].view.self_id == N5)
        await join.finish()
