"""Promises: the fixture leafdb_cluster is a real cluster with real clients, under virtual time, from one seed."""

from __future__ import annotations

import threading

import pytest
import trio

import leafdb
from leafdb import BLIND, Conflict, Found, Missing
from leafdb.errors import ClientMisuse, NotApplied, Reason
from leafdb.testing import Cluster


async def test_an_async_test_runs_inside_the_cluster(leafdb_cluster: Cluster) -> None:
    assert leafdb_cluster.nodes == leafdb_cluster.up == (1, 2, 3)
    db = await leafdb_cluster.client()
    await db.create_bucket("carts")
    carts = db.bucket("carts", codec=leafdb.Text())
    missing = await carts.get("alice")
    assert isinstance(missing, Missing)
    await carts.put("alice", "tea", after=missing.context)
    await carts.put("alice", "milk", after=missing.context)
    conflict = await carts.get("alice")
    assert isinstance(conflict, Conflict)
    assert sorted(sibling.value for sibling in conflict.siblings) == ["milk", "tea"]


@pytest.mark.leafdb(nodes=5)
async def test_the_mark_says_how_many_nodes(leafdb_cluster: Cluster) -> None:
    db = await leafdb_cluster.client()
    status = await db.status()
    assert (status.nodes_up, status.nodes_total, status.healthy) == (5, 5, True)


@pytest.mark.leafdb(nodes=1)
class TestOfOneNode:
    """The mark of a class, and a test that is a method."""

    async def test_a_cluster_may_be_one_node(self, leafdb_cluster: Cluster) -> None:
        assert leafdb_cluster.nodes == (1,)
        assert (await (await leafdb_cluster.client()).ping()).name == "n1"


@pytest.mark.parametrize("leafdb_seed", [1, 2])
async def test_seeds_can_be_parametrized(leafdb_cluster: Cluster, leafdb_seed: int) -> None:
    assert leafdb_cluster.seed == leafdb_seed


async def test_a_client_may_speak_to_one_node_only(leafdb_cluster: Cluster) -> None:
    for node in leafdb_cluster.nodes:
        db = await leafdb_cluster.client(via=node)
        assert [(await db.ping()).node for _ in range(3)] == [node] * 3
    with pytest.raises(ValueError, match="there is no node 4: 1, 2, 3"):
        await leafdb_cluster.client(via=4)


async def test_a_client_may_be_opened_in_any_task_and_closed_at_any_time(leafdb_cluster: Cluster) -> None:
    clients = []

    async def work() -> None:
        db = await leafdb_cluster.client()
        clients.append(db)
        await db.ping()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(work)
    first, second = clients
    await first.close()
    with pytest.raises(ClientMisuse):
        await first.ping()
    await second.ping()


def test_a_synchronous_test_has_the_same_world(leafdb_cluster: Cluster) -> None:
    db = leafdb_cluster.connect()
    db.create_bucket("carts")
    tags = db.bucket("carts", codec=leafdb.JSON(list[str]), merge=lambda one, other: sorted({*one, *other}))
    for name in ("tea", "milk"):
        tags.update("carol", lambda items, name=name: [*items, name], default=[])  # type: ignore[misc]
    assert tags.get("carol") == ["tea", "milk"]
    plain = db.bucket("carts")
    plain.put_many([leafdb.Put(f"k{number}", b"v", after=BLIND) for number in range(20)])
    assert {item.key for item in plain.scan(page_size=7)} == {b"carol", *(b"k%d" % number for number in range(20))}
    assert all(isinstance(answer, Found) for answer in plain.get_many([f"k{number}" for number in range(20)]))
    with pytest.raises(NotApplied) as refused:
        db.create_bucket("carts")
    assert refused.value.reason is Reason.BUCKET_EXISTS
    db.close()
    with pytest.raises(ClientMisuse):
        db.ping()


def test_no_time_passes_while_a_synchronous_test_thinks(leafdb_cluster: Cluster) -> None:
    before = leafdb_cluster.time
    threading.Event().wait(0.01)
    assert leafdb_cluster.time == before
    leafdb_cluster.run(trio.sleep, 90)
    assert leafdb_cluster.time == pytest.approx(before + 90)


def test_a_synchronous_call_ends_at_its_deadline_in_virtual_time(leafdb_cluster: Cluster) -> None:
    n1, n2, n3 = leafdb_cluster.nodes
    db = leafdb_cluster.connect(via=n1, timeout=7.0)
    db.create_bucket("b")
    bucket = db.bucket("b")
    bucket.get("k")
    leafdb_cluster.world.cut(n1, (n2, n3), silently=True)
    before = leafdb_cluster.time
    with pytest.raises(TimeoutError):
        bucket.put("k", b"v", after=BLIND, w=3, sloppy=False)
    assert 0 < leafdb_cluster.time - before <= 7.1


def test_what_a_test_awaits_may_return_and_raise(leafdb_cluster: Cluster) -> None:
    async def double(number: int) -> int:
        await trio.sleep(1)
        return 2 * number

    async def fail() -> None:
        raise KeyError("mine")

    assert leafdb_cluster.run(double, 4) == 8
    with pytest.raises(KeyError, match="mine"):
        leafdb_cluster.run(fail)
    assert leafdb_cluster.run(double, 5) == 10  # the cluster is none the worse


async def test_within_the_loop_run_is_refused(leafdb_cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="await the function instead"):
        leafdb_cluster.run(trio.sleep, 1)


def test_another_thread_is_refused(leafdb_cluster: Cluster) -> None:
    errors: list[str] = []

    def work() -> None:
        try:
            leafdb_cluster.run(trio.sleep, 1)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == ["the loop belongs to the thread of the test: no other may use it"]


def test_the_same_seed_gives_the_same_run() -> None:
    def story(seed: int) -> list[object]:
        seen: list[object] = []

        async def writer(cluster: Cluster, name: str) -> None:
            db = await cluster.client()
            bucket = db.bucket("b")
            for number in range(5):
                written = await bucket.put("k", f"{name}{number}".encode(), after=BLIND)
                seen.append((name, number, trio.current_time(), written.op_id, bytes(written.context)))

        async def both(cluster: Cluster) -> None:
            await (await cluster.client()).create_bucket("b")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer, cluster, "a")
                nursery.start_soon(writer, cluster, "b")

        with Cluster(nodes=3, seed=seed) as cluster:
            cluster.run(both, cluster)
        return seen

    assert story(1) == story(1)
    assert len({str(story(seed)) for seed in range(1, 5)}) > 1


def test_a_bug_in_a_node_ends_the_test_that_runs() -> None:
    cluster = Cluster()

    async def fall() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"), cluster:
        cluster.connect().ping()
        cluster.world.processes[cluster.nodes[0]].life.nursery.start_soon(fall)
        cluster.run(trio.sleep, 3600)


def test_a_cluster_with_a_node_that_stands_still_ends() -> None:
    with Cluster() as cluster:
        cluster.world.pause(cluster.nodes[1])
        cluster.run(trio.sleep, 5)
    with pytest.raises(KeyError), Cluster() as cluster:
        cluster.world.pause(cluster.nodes[1])
        raise KeyError


def test_a_cluster_outside_its_block_says_so() -> None:
    cluster = Cluster(nodes=1)
    with pytest.raises(RuntimeError, match="does not run"):
        _ = cluster.world
    with cluster:
        pass
    with pytest.raises(RuntimeError):
        cluster.run(trio.sleep, 1)
    with pytest.raises(ValueError, match="at least one node"):
        Cluster(nodes=0)


async def test_after_a_long_sleep_everybody_is_there_as_before(leafdb_cluster: Cluster) -> None:
    db = await leafdb_cluster.client()
    await db.create_bucket("b")
    written = await db.bucket("b").put("k", b"v", after=BLIND)
    await leafdb_cluster.sleep(24 * 3600)
    status = await db.status()
    assert (status.healthy, status.nodes_up) == (True, 3)
    found = await db.bucket("b").get("k", r="all")
    assert isinstance(found, Found)
    assert found.context == written.context


async def test_a_blank_node_can_be_added(leafdb_cluster: Cluster) -> None:
    node = await leafdb_cluster.add_node(name="fresh", zone="b")
    assert node == 4
    assert leafdb_cluster.nodes == leafdb_cluster.up == (1, 2, 3, 4)
    pong = await (await leafdb_cluster.client(via=node)).ping()
    assert (pong.name, pong.node) == ("fresh", 0)
    db = await leafdb_cluster.client()
    assert (await db.status()).nodes_total == 3
    await leafdb_cluster.faults.kill(node)
    await leafdb_cluster.faults.start(node)
    await leafdb_cluster.settle()
