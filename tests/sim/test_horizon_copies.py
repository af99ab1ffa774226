"""New owners of ranges with purge horizons get everything old, come to vouch, and no plan waits for ever; what a dry
run foretells of such ranges happens; what peers say of exchanges is believed only while there is one."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from leafdb.codec import cbor
from leafdb.errors import NotApplied
from leafdb.merkle.messages import Compare
from leafdb.node.horizons import MARK, PURGE_TREE
from leafdb.node.node import Node
from leafdb.node.record_messages import Fetch, Offer
from leafdb.ring.token import TOKEN_BYTES, split_storage_key
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import FIRST_BUCKET_ID, NodeId, PartitionId, TreeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import Lane, MessageType
from support.old_and_new import HORIZON, NEW, OLD, held, put_there, raise_horizon, swept, vouch, written
from support.repairs import make_bucket, partition_of, view_of
from support.ring_clusters import assert_copied, new_owners, old_owners, place_of, put, ring_cluster, ring_of
from support.transports import until

N1, N2, N3, N4 = (NodeId(number) for number in range(1, 5))
KEYS = 120


async def fill(cluster: MemoryCluster) -> None:
    """Most of it older than the horizon to come."""
    for number in range(KEYS):
        await put(cluster, f"k{number}", written(number, NEW if number % 5 == 0 else OLD))


def arrived(cluster: MemoryCluster, node: Node) -> list[int]:
    """The partitions that came to the node."""
    ring = ring_of(cluster)
    own = node.view.self_id
    return [at for at in range(16) if own in new_owners(ring, at) and own not in old_owners(ring, at)]


@virtual
async def test_a_newcomer_gets_what_is_older_than_the_horizon_and_vouches() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster)
        vouch(cluster.nodes.values())
        await raise_horizon(cluster.nodes.values())
        await steps.begin_join()
        swept(cluster.nodes[N4])
        await steps.copied()
        await assert_copied(cluster)
        newcomer = cluster.nodes[N4]
        came = arrived(cluster, newcomer)
        assert came
        assert all(newcomer.horizons.mark(at) == HORIZON for at in came)
        old = [f"k{number}" for number in range(KEYS) if number % 5]
        mine = [key for key in old if place_of(cluster, key)[1] in came]
        assert mine
        assert all(held(newcomer, "b", key) is not None for key in mine)
        assert newcomer.metrics.losses_proved_total == 0
        newcomer.horizons.retract(came[:1], "a test")
        assert not newcomer.transfers.settled(), "reads do not move to who could not say what is absent"
        assert "vouches" in newcomer.transfers.report().last_error
        await until(newcomer.transfers.settled)
        await steps.advance()
        await steps.finish()
        await cluster.settle()


@virtual
async def test_copies_are_made_where_no_owner_vouches() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster)
        await raise_horizon(cluster.nodes.values())  # all are behind it, with no mark
        await steps.begin_join()
        swept(cluster.nodes[N4])
        await steps.copied()
        await assert_copied(cluster)
        await steps.advance()
        await steps.finish()
        await cluster.settle()
        assert any(node.anti_entropy.losses.returned for node in cluster.nodes.values())


@virtual
async def test_a_bucket_of_one_copy_moves_to_a_newcomer() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await make_bucket(cluster.nodes.values(), "one", n=1)
        await fill(cluster)
        vouch(cluster.nodes.values())
        await raise_horizon(cluster.nodes.values())
        await steps.begin_join()
        swept(cluster.nodes[N4])
        await steps.copied()
        await steps.advance()
        await steps.finish()
        await cluster.settle()
        assert not any(node.anti_entropy.losses.returned for node in cluster.nodes.values())


FIGURES = ("keys_differing", "keys_sent", "keys_received")


async def ended(cluster: MemoryCluster, tasks: dict[str, int]) -> dict[str, Any]:
    """The line of the one task, when it is over."""
    client = await cluster.client(N1)
    while True:
        lines = (await client.admin("repair.status"))["repairs"]
        for line in lines:
            if tasks.get(line["node"]) == line["task"] and line["state"] in ("done", "failed"):
                client.close()
                return dict(line)
        await trio.sleep(0.5)


@virtual
async def test_a_dry_run_foretells_what_is_dropped_and_what_is_left_out() -> None:
    async with ring_cluster(3) as (cluster, _):
        await fill(cluster)
        await cluster.settle()
        vouch(cluster.nodes.values())
        await raise_horizon(cluster.nodes.values())
        await cluster.settle()
        three = cluster.nodes[N3]
        # The sweeper is kept back meanwhile, so that what the store owes is not worked off before it is asked.
        for node in (cluster.nodes[N1], cluster.nodes[N2]):
            cluster.cut(N3, [node.view.self_id])
        await trio.sleep(10)
        for number in range(500, 530):
            put_there(three, "b", f"deleted{number}", written(number, OLD))
        for number in range(40):
            put_there(three, "b", f"k{number}", None)
        for number in range(600, 610):
            put_there(three, "b", f"fresh{number}", written(number, NEW))
        three.horizons.retract(range(16), "a test")
        three.anti_entropy._workers._queue._gate = Closed()
        for node in (cluster.nodes[N1], cluster.nodes[N2]):
            node.anti_entropy._workers._queue._gate = Closed()
        cluster.heal()
        await cluster.meet()
        client = await cluster.client(N1)
        dry = await ended(cluster, (await client.admin("repair.dry", node="n3"))["tasks"])
        assert dry["state"] == "done"
        assert held(three, "b", "deleted500") is not None, "nothing was moved"
        begun = (await client.admin("repair.run", node="n3"))["tasks"]
        three.anti_entropy._workers._queue._gate = three.anti_entropy.standings.gate
        three.anti_entropy._workers.wake()
        done = await ended(cluster, begun)
        assert [dry[name] for name in FIGURES] == [done[name] for name in FIGURES]
        assert dry["keys_differing"] >= 70
        assert held(three, "b", "deleted500") is None
        client.close()


class Closed:
    """A gate through which nothing goes."""

    def closed(self, peer: NodeId, bucket: int) -> int:
        return (1 << 16) - 1

    def rank(self, bucket: int) -> int:
        return 0


@virtual
async def test_records_of_no_exchange_under_way_are_neither_shown_nor_taken() -> None:
    async with ring_cluster(3) as (cluster, _):
        await fill(cluster)
        one = cluster.nodes[N1]
        place, _ = place_of(cluster, "k1")
        bucket = view_of(one, "b").id
        key = place[TOKEN_BYTES:]
        for request in (Fetch(bucket, (key,), 77), Offer(bucket, (key,), (b"",), exchange=77)):
            with pytest.raises(NotApplied, match="no such exchange"):
                await one.peers.call(N2, Lane.BULK, MessageType.RECORDS, request.encode(), 5.0)


@virtual
async def test_an_exchange_moves_records_of_its_own_range_and_nothing_is_told_to_who_vouches() -> None:
    async with ring_cluster(3) as (cluster, _):
        await fill(cluster)
        await cluster.settle()
        one, two = cluster.nodes[N1], cluster.nodes[N2]
        bucket = view_of(one, "b").id
        place, partition = place_of(cluster, "k1")
        other = next(
            place_of(cluster, f"k{number}")[0]
            for number in range(KEYS)
            if place_of(cluster, f"k{number}")[1] != partition
        )
        ring = ring_of(cluster)
        compare = Compare(99, bucket, PartitionId(partition), 12345, 1).to_wire() | {
            "range_epoch": int(ring.range_epoch(PartitionId(partition)))
        }
        frame = encode_frame(MessageType.EXCHANGE, 0, cbor.dumps(compare))
        one.peers.send(N2, Lane.BULK, frame)
        await until(lambda: two.anti_entropy.exchanges.accord(N1, 99) is not None)

        async def ask(request: Fetch | Offer) -> None:
            await one.peers.call(N2, Lane.BULK, MessageType.RECORDS, request.encode(), 5.0)

        await ask(Fetch(bucket, (place[TOKEN_BYTES:],), 99))
        with pytest.raises(NotApplied, match="another range"):
            await ask(Fetch(bucket, (other[TOKEN_BYTES:],), 99))
        with pytest.raises(NotApplied, match="vouches"):
            await ask(Offer(bucket, (place[TOKEN_BYTES:],), (b"",), exchange=99))
        assert held(two, "b", "k1") is not None
        assert partition_of(two, place) == partition
        await raise_horizon(cluster.nodes.values())
        with pytest.raises(NotApplied):
            await ask(Fetch(bucket, (place[TOKEN_BYTES:],), 99))


@virtual
async def test_who_loses_a_range_takes_its_mark_back_before_it_drops_a_record_and_keeps_those_of_what_it_has() -> None:
    async with ring_cluster(3) as (cluster, steps):
        await fill(cluster)
        vouch(cluster.nodes.values())
        await raise_horizon(cluster.nodes.values())
        gone: set[tuple[NodeId, int]] = set()
        drops: dict[NodeId, set[int]] = {}

        def watch(machine: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
            if tree == PURGE_TREE and key[0] == MARK and value is None:
                gone.add((machine, int.from_bytes(key[1:3], "big")))
            elif tree >= FIRST_BUCKET_ID and value is None:
                partition = int(ring_of(cluster).partition_of(split_storage_key(key)[0]))
                assert (machine, partition) in gone, "an old copy of the disk would vouch for what it has dropped"
                drops.setdefault(machine, set()).add(partition)

        cluster.observe_writes(watch)
        await steps.begin_join()
        swept(cluster.nodes[N4])
        await steps.copied()
        await steps.advance()
        await steps.finish()
        await cluster.settle()
        await until(lambda: not any(node.estate.leftovers.ranges for node in cluster.nodes.values()), 600)
        assert drops, "the newcomer took ranges from somebody who had records in them"
        ring = ring_of(cluster)
        for number, node in cluster.nodes.items():
            kept = {at for at in range(16) if ring.is_primary(number, PartitionId(at), 3)}
            assert not kept & drops.get(number, set())
            assert all(node.horizons.mark(at) == HORIZON for at in kept)
