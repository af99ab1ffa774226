"""Founding a cluster: once, on the nodes named, resumable wherever it stopped, refused with what to do about it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from leafdb.config import ClusterConfig, Config, NodeConfig
from leafdb.errors import ConfigError, LeafdbError, NotApplied, OutcomeUnknown, Reason
from leafdb.node.boot import check_names
from leafdb.node.founding import FOUNDING_KEY, Plan, Standing, member_to_wire, read_plan
from leafdb.node.register import META_TREE
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.storage.identity import Identity
from leafdb.testing.cluster import MemoryCluster, host_of
from leafdb.testing.virtual_time import virtual
from leafdb.types import Durability, NodeId
from leafdb.vfs.memory import MemoryFileSystem
from support.clusters import proposed

ONE, TWO, THREE = NodeId(1), NodeId(2), NodeId(3)
ALL = (ONE, TWO, THREE)


def member(node: int, **changed: str | int) -> dict[str, Any]:
    host = host_of(NodeId(node))
    entry = {"name": f"n{node}", "host": host, "client": f"{host}:1", "peer": f"{host}:2", "http": f"{host}:3"}
    return {**entry, **changed}


def members(*nodes: int) -> list[dict[str, Any]]:
    return [member(node) for node in nodes]


async def init(
    cluster: MemoryCluster, via: NodeId, listed: list[dict[str, Any]] | None = None, name: str = "home"
) -> dict[str, Any]:
    client = await cluster.client(via)
    try:
        return dict(await client.admin("cluster.init", 60.0, name=name, members=listed or members(1, 2, 3)))
    finally:
        client.close()


async def refusal(cluster: MemoryCluster, via: NodeId, listed: list[dict[str, Any]] | None = None, **more: str) -> str:
    """The words with which an init is refused."""
    with pytest.raises(NotApplied) as refused:
        await init(cluster, via, listed, **more)
    assert refused.value.reason is Reason.BAD_REQUEST
    return str(refused.value)


def metadata(cluster: MemoryCluster, node: NodeId) -> ClusterMetadata:
    found = cluster.nodes[node].view.metadata
    assert found is not None
    return found


@asynccontextmanager
async def unfounded(nodes: int, named: Mapping[NodeId, str] | None = None) -> AsyncIterator[MemoryCluster]:
    """Running nodes that belong to no cluster; `named` is the cluster.name in the configuration of some."""
    async with trio.open_nursery() as nursery:
        cluster = MemoryCluster(nursery, nodes, 1)
        plain = cluster.config

        def config(node: NodeId) -> Config:
            return replace(plain(node), cluster=ClusterConfig(name=(named or {}).get(node, "")))

        cluster.config = config  # type: ignore[method-assign]  # every start asks it
        for node in cluster.disks:
            await cluster.start(node)
        yield cluster
        await cluster.stop(*cluster.nodes)
        nursery.cancel_scope.cancel()


@virtual
async def test_init_founds_the_same_epoch_one_everywhere() -> None:
    """Numbers in the order of the list, labels as listed, and everybody in touch at once: no dial met a refusal."""
    async with unfounded(3) as cluster:
        listed = [member(2, zone="east"), member(3, zone="west"), member(1, zone="east")]
        began = trio.current_time()
        answer = await init(cluster, TWO, listed)
        await cluster.meet()
        assert trio.current_time() - began < 1.0
        first = metadata(cluster, ONE)
        assert answer == {"epoch": 1, "cluster_id": first.cluster_id}
        assert len({metadata(cluster, node).encode() for node in ALL}) == 1
        assert [(entry.name, entry.zone) for entry in first.members.values()] == [
            ("n2", "east"),
            ("n3", "west"),
            ("n1", "east"),
        ]
        assert [cluster.nodes[node].view.self_id for node in (TWO, THREE, ONE)] == [1, 2, 3]
        bucket = await cluster.create_bucket()
        client = await cluster.client(THREE)
        await client.put(bucket, "a", b"1", w=3)


@virtual
async def test_init_again_answers_the_same_from_any_member_at_any_epoch() -> None:
    async with unfounded(3) as cluster:
        answer = await init(cluster, ONE)
        await cluster.meet()
        await cluster.create_bucket()
        again = await init(cluster, THREE)
        assert again["cluster_id"] == answer["cluster_id"]
        assert again["epoch"] == 2


@virtual
async def test_a_founded_cluster_survives_restarts() -> None:
    async with unfounded(3) as cluster:
        await init(cluster, ONE)
        await cluster.kill(*ALL)
        await cluster.restart(*ALL)
        await cluster.meet()
        assert {metadata(cluster, node).cluster_name for node in ALL} == {"home"}


@virtual
@pytest.mark.parametrize("lost", [ONE, TWO, THREE])
async def test_a_member_that_cannot_be_reached_stops_everything_before_it_begins(lost: NodeId) -> None:
    async with unfounded(3) as cluster:
        await cluster.kill(lost)
        words = await refusal(cluster, TWO if lost != TWO else ONE)
        assert f"n{lost} (host-{lost}:2): it cannot be reached" in words
        assert all(node.view.metadata is None for node in cluster.nodes.values())
        await cluster.restart(lost)
        await init(cluster, lost)


@virtual
async def test_an_interrupted_init_goes_on_with_the_same_list() -> None:
    """The member named last is founded first. Cut off behind it, the same list goes on, from whichever member."""
    async with unfounded(3) as cluster:
        at_keystone = cluster.nodes[THREE]
        async with trio.open_nursery() as nursery:

            async def interrupted() -> None:
                with pytest.raises((LeafdbError, Exception)):
                    await init(cluster, ONE)

            nursery.start_soon(interrupted)
            while at_keystone.view.metadata is None:  # the moment is not announced
                await trio.lowlevel.checkpoint()
            await cluster.kill(ONE)
        begun = metadata(cluster, THREE)
        await cluster.kill(TWO)
        await cluster.restart(ONE, TWO)
        assert cluster.nodes[ONE].view.metadata is None
        answer = await init(cluster, TWO)
        assert answer["cluster_id"] == begun.cluster_id
        assert {metadata(cluster, node).encode() for node in ALL} == {begun.encode()}
        await cluster.meet()


@virtual
async def test_another_list_than_the_one_begun_is_refused() -> None:
    async with unfounded(3) as cluster:
        await init(cluster, ONE, members(1, 2))
        words = await refusal(cluster, THREE, members(1, 2, 3))
        assert "n1 belongs to cluster 'home' of 2 members already" in words
        assert "empty its data directory" in words
        assert "belongs to cluster 'home'" in await refusal(cluster, ONE, members(2, 1))
        assert "belongs to cluster 'home'" in await refusal(cluster, ONE, members(1, 2), name="other")
        assert cluster.nodes[THREE].view.metadata is None


@virtual
async def test_two_inits_at_once_found_one_cluster() -> None:
    """Both draw an id; the keystone takes one of them, and the other is told and goes on with it when run again."""
    async with unfounded(3) as cluster:
        outcomes: list[dict[str, Any] | LeafdbError] = []

        async def attempt(via: NodeId) -> None:
            try:
                outcomes.append(await init(cluster, via))
            except LeafdbError as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            for via in ALL:
                nursery.start_soon(attempt, via)
        assert any(isinstance(outcome, dict) for outcome in outcomes), outcomes
        answers = [await init(cluster, via) for via in ALL]
        assert len({answer["cluster_id"] for answer in answers}) == 1
        assert len({metadata(cluster, node).encode() for node in ALL}) == 1


@virtual
async def test_who_does_not_confirm_is_named_and_nothing_is_claimed() -> None:
    async with unfounded(3) as cluster:
        cut = cluster.nodes[THREE]
        async with trio.open_nursery() as nursery:

            async def unfinished() -> None:
                with pytest.raises(OutcomeUnknown) as unknown:
                    await init(cluster, ONE)
                assert "n2" in unknown.value.replicas
                assert "Run it again" in str(unknown.value)

            nursery.start_soon(unfinished)
            while cut.view.metadata is None:  # the moment is not announced
                await trio.lowlevel.checkpoint()
            cluster.cut(ONE, [TWO], silently=True)
        cluster.heal()
        assert (await init(cluster, TWO))["cluster_id"] == metadata(cluster, ONE).cluster_id
        await cluster.meet()


@virtual
async def test_a_name_is_checked_against_every_configuration() -> None:
    async with unfounded(2, {TWO: "prod"}) as cluster:
        assert "n2 (host-2:2): its configuration says cluster.name = 'prod'" in await refusal(
            cluster, ONE, members(1, 2)
        )
        swapped = [member(1), member(2, name="n9")]
        assert "the node at this address is called 'n2'" in await refusal(cluster, ONE, swapped, name="prod")
        assert "n1, which was asked, is not in the list" in await refusal(cluster, ONE, [member(2)], name="prod")
        await init(cluster, ONE, members(1, 2), name="prod")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "members is not a list"),
        ({"name": "home", "members": []}, "founded by at least one member"),
        ({"name": "Home!", "members": members(1)}, "'Home!' is no name for a cluster"),
        ({"name": 7, "members": members(1)}, "7 is no name for a cluster"),
        ({"name": "home", "members": [member(1), member(1)]}, "two members are called 'n1'; host-1:1 is named twice"),
        ({"name": "home", "members": [member(1), member(2, http="host-1:1")]}, "host-1:1 is named twice"),
        ({"name": "home", "members": [member(1, peer="nowhere")]}, "peer of n1: 'nowhere' is not HOST:PORT"),
        ({"name": "home", "members": [member(1, client="0.0.0.0:7411")]}, "client of n1: nobody can reach 0.0.0.0"),
        ({"name": "home", "members": [member(1, colour="red")]}, "not colour"),
        ({"name": "home", "members": [{"name": "n1", "client": "a:1"}]}, "a member without peer"),
        ({"name": "home", "members": [member(1, zone="\n")]}, "unprintable"),
        ({"name": "home", "members": ["n1"]}, "a member is not a map"),
        ({"name": "home", "members": [member(1, weight=10_001)]}, "weight"),
        ({"name": "home", "members": [member(1, weight="2")]}, "weight"),
        ({"name": "home", "members": [member(1, weight=0), member(2, weight=0)]}, "nobody would own anything"),
    ],
)
def test_a_list_that_cannot_be_is_refused_with_every_problem(args: dict[str, Any], words: str) -> None:
    with pytest.raises(NotApplied) as refused:
        read_plan(args)
    assert refused.value.reason is Reason.BAD_REQUEST
    assert words in str(refused.value)


def test_a_host_left_out_is_the_name() -> None:
    plan = read_plan({"name": "home", "members": [{"name": "n1", "client": "a:1", "peer": "a:2"}]})
    assert (plan.members[0].host, plan.members[0].zone) == ("n1", "")


def test_weights_of_the_list_are_those_of_the_ring() -> None:
    plan = read_plan({"name": "home", "members": [member(1, weight=3), member(2), member(3, weight=0)]})
    assert [each.weight for each in plan.members] == [3, 1, 0]
    owners = plan.epoch_one(b"c" * 16).owners
    assert [owners.count(NodeId(number)) for number in (1, 2, 3)] == [192, 64, 0]
    assert read_plan({"name": "home", "members": [member_to_wire(each) for each in plan.members]}) == plan


def test_members_of_different_foundings_of_one_list_are_told_apart() -> None:
    """Two ids for one list can only come of data directories from elsewhere: nobody may guess which is right."""
    plan = Plan("home", (proposed(1), proposed(2)))
    first, second = (plan.epoch_one(bytes((number,)) * 16) for number in (1, 2))
    standings = {
        "node-1": Standing(first.cluster_id, 1, first.encode(), True),
        "node-2": Standing(second.cluster_id, 2, second.encode(), True),
    }
    with pytest.raises(NotApplied, match="different clusters"):
        plan.id_begun(standings)
    assert plan.id_begun({"node-1": standings["node-1"], "node-2": Standing(b"", 0, b"", False)}) == first.cluster_id
    torn = Standing(first.cluster_id, 1, b"", False)
    with pytest.raises(NotApplied, match="node-1 belongs to a cluster already"):
        plan.id_begun({"node-1": torn})


@virtual
async def test_a_blank_store_under_the_name_of_a_member_that_was_met_is_refused() -> None:
    """A wiped disk has forgotten which dots it minted: it must not become the member it was by founding again, however
    often it has started since. Its own disk brings it back."""
    async with unfounded(3) as cluster:
        await init(cluster, ONE)
        await cluster.meet()
        await cluster.stop(THREE)
        disk = cluster.disks[THREE]
        cluster.disks[THREE] = MemoryFileSystem()
        for _ in range(4):
            await cluster.start(THREE)
            assert "n3 is a member already" in await refusal(cluster, ONE)
            assert cluster.nodes[THREE].view.metadata is None
            await cluster.stop(THREE)
        cluster.disks[THREE] = disk
        await cluster.start(THREE)
        await init(cluster, ONE)


def test_a_store_opens_only_under_the_names_it_belongs_to() -> None:
    """Two data directories that were exchanged, or one mounted where another should be."""
    founded = read_plan({"name": "home", "members": members(1, 2)}).epoch_one(b"c" * 16)
    identity = Identity(store_id=b"s" * 16, cluster_id=founded.cluster_id, node_id=2)
    right = Config(node=NodeConfig(name="n2", data_dir="d"), cluster=ClusterConfig(name="home"))
    check_names(right, identity, founded)
    check_names(replace(right, cluster=ClusterConfig()), identity, founded)
    check_names(Config(node=NodeConfig(name="anything")), Identity(store_id=b"s" * 16), None)
    wrong = Config(node=NodeConfig(name="n1", data_dir="d"), cluster=ClusterConfig(name="away"))
    with pytest.raises(ConfigError) as caught:
        check_names(wrong, identity, founded)
    assert caught.value.problems == (
        "cluster.name: it is 'away', and d belongs to 'home'",
        "node.name: it is 'n1', and d belongs to 'n2'",
    )


@virtual
async def test_a_member_cut_off_while_it_adopted_proves_what_it_was_part_of() -> None:
    """Power goes between the stamp of the data directory and the metadata: the same list goes on with that id, and
    another one is refused."""
    async with unfounded(2) as cluster:
        plan = read_plan({"name": "home", "members": members(1, 2)})
        began = plan.epoch_one(b"c" * 16)
        engine = cluster.nodes[TWO].engine
        kept = trio.Event()
        key = FOUNDING_KEY + began.cluster_id
        engine.write(((META_TREE, key, began.encode()),), Durability.ALWAYS, lambda _: kept.set())
        await kept.wait()
        engine.stamp(cluster_id=began.cluster_id, node_id=2, incarnation=0)
        await cluster.power_cut(TWO)
        await cluster.restart(TWO)
        assert cluster.nodes[TWO].view.metadata is None
        words = await refusal(cluster, ONE, members(2, 1))
        assert "n2 belongs to cluster 'home' of 2 members already" in words
        assert (await init(cluster, ONE, members(1, 2)))["cluster_id"] == began.cluster_id
        assert decode(metadata(cluster, TWO).encode()) == began
