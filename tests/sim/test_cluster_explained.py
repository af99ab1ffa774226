"""A divergence of one replica is seen: by an explained read, by `kv where`, in history; and failures are explained."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio

from leafdb.client.async_client import AsyncClient
from leafdb.client.connect import async_client_over
from leafdb.client.context import BLIND
from leafdb.client.results import Found
from leafdb.client.url import Address
from leafdb.errors import NotEnoughReplicas, OutcomeUnknown
from leafdb.explanation import Status
from leafdb.model.key import encode_key
from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of, memory_cluster
from leafdb.testing.real_client import dialler
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.repairs import plant, record_of

N1, N2, N3, N4 = map(NodeId, range(1, 5))


@asynccontextmanager
async def connected(cluster: MemoryCluster, node: NodeId) -> AsyncIterator[AsyncClient]:
    """A client that knows one node only."""
    async with async_client_over(
        [Address(host_of(node), 1)], dial=dialler(cluster.network, CLIENT_HOST), routing="listed", rng=Random(7)
    ) as db:
        yield db


def name(cluster: MemoryCluster, node: NodeId) -> str:
    return cluster.nodes[node].config.node.name


@virtual
async def test_a_divergence_on_one_replica_is_explained_and_shown() -> None:
    async with memory_cluster(3) as cluster, connected(cluster, N1) as db:
        bucket = await cluster.create_bucket()
        handle = db.bucket(bucket.name)
        await handle.put("k", b"v", after=BLIND, w=3)
        await plant(cluster.nodes[N3], bucket.name, "k", record_of(1))
        seen = await db.admin("kv.where", {"bucket": bucket.name, "key": encode_key("k")})
        a, b, c = (name(cluster, node) for node in (N1, N2, N3))
        versions = {each["node"]: each["version"] for each in seen["replicas"]}
        assert versions[a] == versions[b] != versions[c]
        assert {each["node"]: each["behind"] for each in seen["replicas"]} == {a: 1, b: 1, c: 0}
        assert seen["summary"][0].endswith(f"behind {c}: 1 write missing")
        explained = await handle.get_explained("k", r=3)
        told = explained.explanation
        assert set(told.counted) == {a, b, c}
        assert set(told.behind) == set(told.written_back) == {a, b}
        assert {each.node: each.version.digest for each in told.replicas if each.version} == versions
        assert told.merged is not None
        assert told.merged.digest == versions[c]
        after = await db.admin("kv.where", {"bucket": bucket.name, "key": encode_key("k")})
        assert len({each["version"] for each in after["replicas"]}) == 1
        assert after["summary"][0].startswith("the same version on")


@virtual
async def test_explained_and_plain_calls_answer_alike() -> None:
    async with memory_cluster(4) as cluster, connected(cluster, N4) as db:
        bucket = await cluster.create_bucket()
        handle = db.bucket(bucket.name)
        merged = db.bucket(bucket.name, merge=max)
        for key in ("a", "b", "c", "d", "e"):
            assert (await handle.get_explained(key)).answer == await handle.get(key)
            written = await handle.put_explained(key, b"v", after=BLIND)
            assert len(written.explanation.counted) == written.answer.acks
            found = await handle.get_explained(key)
            assert found.answer == await handle.get(key)
            assert isinstance(found.answer, Found)
            assert (await merged.get_explained(key)).answer == b"v"
            holders = {name(cluster, node) for node in cluster.walk(bucket, key)[:3]}
            by = [hop.node for hop in found.explanation.forwarded_by]
            assert by == ([] if name(cluster, N4) in holders else [name(cluster, N4)])
            assert found.explanation.node in holders


@virtual
async def test_a_node_that_is_away_is_told_of_and_what_is_kept_for_it_is_shown() -> None:
    async with memory_cluster(4) as cluster:
        bucket = await cluster.create_bucket()
        key = cluster.key_of(bucket, N1, N2, N3)
        names = [name(cluster, node) for node in (N1, N2, N3, N4)]
        async with connected(cluster, N1) as db:
            handle = db.bucket(bucket.name)
            await handle.put(key, b"old", after=BLIND, w=3)
            await cluster.kill(N3)
            await trio.sleep(0.1)
            written = await handle.put_explained(key, b"new", after=BLIND, w=3)
            (stand_in,) = [each for each in written.explanation.replicas if each.stands_for]
            assert (stand_in.node, stand_in.stands_for, stand_in.role) == (names[3], names[2], "fallback")
            (away,) = [each for each in written.explanation.replicas if each.status is Status.AWAY]
            assert away.node == names[2]
            seen = await db.admin("kv.where", {"bucket": bucket.name, "key": encode_key(key)})
            (fallback,) = [each for each in seen["replicas"] if each["role"] == "fallback"]
            assert (fallback["node"], fallback["siblings"]) == (names[3], 2)
            assert [each["target"] for each in fallback["hints"]] == [names[2]]
            assert f"{names[3]} keeps a copy for {names[2]} until that takes it" in seen["summary"]
            with pytest.raises(NotEnoughReplicas) as refused:
                await handle.get_explained(key, r=3, sloppy=False, timeout=0.5)
            assert refused.value.explanation is not None
            assert [each.node for each in refused.value.explanation.replicas if each.status is Status.AWAY] == [
                names[2]
            ]


@virtual
async def test_an_unknown_outcome_is_explained() -> None:
    async with memory_cluster(3) as cluster, connected(cluster, N1) as db:
        bucket = await cluster.create_bucket()
        handle = db.bucket(bucket.name)
        await handle.get("k")
        cluster.network.cut(host_of(N1), host_of(N2), silently=True)
        cluster.network.cut(host_of(N1), host_of(N3), silently=True)
        with pytest.raises(OutcomeUnknown) as unknown:
            await handle.put_explained("k", b"v", after=BLIND, w=3, timeout=1.0)
        told = unknown.value.explanation
        assert told is not None
        assert told.counted == (name(cluster, N1),)
        assert not told.answered


@virtual
async def test_the_past_of_a_key_and_why_it_is_kept_are_told() -> None:
    async with memory_cluster(3) as cluster, connected(cluster, N1) as db:
        bucket = await cluster.create_bucket()
        handle = db.bucket(bucket.name)
        args = {"bucket": bucket.name, "key": encode_key("k")}
        nothing = await db.admin("kv.why_kept", args)
        assert (nothing["kept"], nothing["writes"]) == (False, [])
        assert (await db.admin("kv.history", args))["history"] == []
        first = await handle.put("k", b"v", after=BLIND, w=3)
        alive = await db.admin("kv.why_kept", args)
        assert "alive" in alive["verdict"]
        deleted = await handle.delete("k", after=first.context, w=3)
        told = (await db.admin("kv.history", args))["history"]
        assert [(line["state"], line["count"]) for line in told] == [("replaced", 1), ("tombstone", 1)]
        assert told[1]["op_id"] == deleted.op_id.hex()
        assert set(told[1]["replicas"].values()) == {"tombstone"}
        kept = await db.admin("kv.why_kept", args)
        assert (kept["kept"], kept["horizon"], kept["held_back_by"]) == (True, None, [])
        assert kept["verdict"].startswith("no horizon has been proved")
        await cluster.kill(N3)
        await trio.sleep(0.1)
        (held,) = (await db.admin("kv.why_kept", args))["held_back_by"]
        assert held.startswith(name(cluster, N1).replace("1", "3") + " cannot be asked")
