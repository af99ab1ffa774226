"""Accounts on real nodes in memory: every node asks the same, and what is changed on one counts on all."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from leafdb.client.auth import cluster_login
from leafdb.codec import cbor
from leafdb.config import AuthConfig
from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.limits import LOGIN_FAILURES_BURST, SCRAM_ITERATIONS_MIN
from leafdb.model.bucket import BucketProperties
from leafdb.model.scram import keys_of, verifier_of
from leafdb.ring.metadata import decode
from leafdb.testing.cluster import CLIENT_HOST, SECRET, MemoryCluster, host_of, memory_cluster
from leafdb.testing.raw_client import RawClient
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.wire.login import Login, ScramLogin, TokenLogin
from leafdb.wire.scram import ClientScram

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
ROOT = cluster_login(SECRET)


def password(user: str, word: str) -> Login:
    return ScramLogin(ClientScram(user, "nonce", lambda salt, count: keys_of(word.encode(), salt, count)))


def verifier(word: str) -> dict[str, Any]:
    return verifier_of(word.encode(), b"s" * 16, SCRAM_ITERATIONS_MIN).to_wire()


class Clients:
    """Connections with logins, heard by one nursery."""

    def __init__(self, cluster: MemoryCluster, nursery: trio.Nursery) -> None:
        self._cluster = cluster
        self._nursery = nursery

    async def at(self, node: NodeId, login: Login | None, host: str = CLIENT_HOST) -> RawClient:
        stream = await self._cluster.network.at(host).dial(host_of(node), 1)
        client = RawClient(stream, login)
        await client.greet()
        self._nursery.start_soon(client.listen)
        return client


async def guarded(cluster: MemoryCluster) -> BucketProperties:
    """Have a founded cluster ask for accounts from now on; its one bucket."""
    bucket = await cluster.create_bucket("carts")
    cluster.auth = AuthConfig(mode="required")
    await cluster.stop(*cluster.nodes)
    await cluster.restart(N1, N2, N3)
    await cluster.settle()
    return bucket


async def denied(client: RawClient, bucket: BucketProperties, key: str) -> bool:
    try:
        await client.values(bucket, key)
    except NotApplied as error:
        return error.reason is Reason.UNAUTHORIZED
    return False


@virtual
async def test_from_the_first_user_to_one_that_is_dropped_while_connected() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        bucket = await guarded(cluster)
        for node in (N1, N2, N3):
            with pytest.raises(NotApplied) as caught:
                await clients.at(node, None)
            assert caught.value.reason is Reason.UNAUTHORIZED
        root = await clients.at(N1, ROOT.login())
        await root.admin("role.create", name="hers", grants=["read:carts/user-", "write:carts/user-"])
        await root.admin("user.create", name="alice", verifier=verifier("wonder"), roles=["hers"])

        everywhere = [await clients.at(node, password("alice", "wonder")) for node in (N1, N2, N3)]
        for number, alice in enumerate(everywhere):
            await alice.put(bucket, f"user-{number}", b"mine")
            assert await denied(alice, bucket, "other")
            with pytest.raises(NotApplied, match=r"admin\.accounts"):
                await alice.admin("user.list")
        for alice in everywhere:
            assert await alice.values(bucket, "user-1") == [b"mine"], "what is forwarded was decided where it came in"

        await root.admin("role.set", name="hers", add=[], remove=["read:carts/user-"])
        assert [await denied(alice, bucket, "user-1") for alice in everywhere] == [True] * 3
        await root.admin("role.set", name="hers", add=["read:carts"], remove=[])
        assert [await denied(alice, bucket, "other") for alice in everywhere] == [False] * 3
        await root.admin("user.drop", name="alice")
        assert [await denied(alice, bucket, "user-1") for alice in everywhere] == [True] * 3
        with pytest.raises(NotApplied):
            await clients.at(N2, password("alice", "wonder"))
        nursery.cancel_scope.cancel()


@virtual
async def test_accounts_survive_restarts_and_members_that_were_away() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        bucket = await guarded(cluster)
        await cluster.kill(N3)
        root = await clients.at(N1, ROOT.login())
        await root.admin("user.create", name="bob", verifier=verifier("builder"), roles=["writer"])
        await cluster.restart(N3)
        await cluster.settle()
        late = await clients.at(N3, password("bob", "builder"))
        await late.put(bucket, "k", b"v")
        await cluster.stop(N1, N2, N3)
        await cluster.restart(N1, N2, N3)
        await cluster.settle()
        again = await clients.at(N2, password("bob", "builder"))
        assert await again.values(bucket, "k") == [b"v"]
        nursery.cancel_scope.cancel()


@virtual
async def test_what_clients_fetch_for_routing_holds_no_account() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        await guarded(cluster)
        root = await clients.at(N1, ROOT.login())
        kept = verifier("canary")
        await root.admin("user.create", name="carol", verifier=kept, roles=["admin"])
        carol = await clients.at(N2, password("carol", "canary"))
        answers = [
            await carol.admin(verb)
            for verb in ("ring", "ring.show", "ring.history", "cluster.status", "status", "user.list", "role.list")
        ]
        assert not decode(answers[0]["metadata"]).accounts
        told = b"".join(cbor.dumps(dict(answer)) for answer in answers)
        assert b"carol" in told
        for secret in (kept["stored_key"], kept["server_key"], kept["salt"]):
            assert secret not in told
            assert secret.hex().encode() not in told
        nursery.cancel_scope.cancel()


@virtual
async def test_failed_logins_hold_up_their_source_and_never_the_user() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        await guarded(cluster)
        root = await clients.at(N1, ROOT.login())
        await root.admin("user.create", name="dora", verifier=verifier("explorer"), roles=["reader"])
        for _ in range(LOGIN_FAILURES_BURST):
            with pytest.raises(NotApplied, match="rejected"):
                await clients.at(N1, password("dora", "guess"), host="mallory")
        with pytest.raises(Overloaded) as caught:
            await clients.at(N1, password("dora", "explorer"), host="mallory")
        assert 0.0 < caught.value.retry_after < 60.0
        await clients.at(N1, password("dora", "explorer"))
        await trio.sleep(caught.value.retry_after)
        await clients.at(N1, password("dora", "explorer"), host="mallory")
        nursery.cancel_scope.cancel()


@virtual
async def test_a_user_changes_the_own_password_and_whoever_has_the_old_one_is_out() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        bucket = await guarded(cluster)
        root = await clients.at(N1, ROOT.login())
        await root.admin("user.create", name="erin", verifier=verifier("old"), roles=["reader"])
        erin, thief = await clients.at(N1, password("erin", "old")), await clients.at(N2, password("erin", "old"))
        assert (await erin.admin("user.password", name="erin", verifier=verifier("new")))["name"] == "erin"
        assert [await denied(each, bucket, "k") for each in (erin, thief)] == [True, True]
        with pytest.raises(NotApplied, match="rejected"):
            await clients.at(N3, password("erin", "old"))
        assert not await denied(await clients.at(N3, password("erin", "new")), bucket, "k")
        nursery.cancel_scope.cancel()


@virtual
async def test_logins_are_counted_by_what_became_of_them() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        await guarded(cluster)
        metrics = cluster.nodes[N2].metrics
        await clients.at(N2, ROOT.login())
        for login in (password("nobody", "x"), password("@cluster", "x"), None, TokenLogin("leafdb_x")):
            with pytest.raises(NotApplied):
                await clients.at(N2, login, host="mallory")
        counted = (metrics.logins_accepted_total, metrics.logins_rejected_total, metrics.logins_turned_away_total)
        assert counted == (1, 2, 2)
        for _ in range(LOGIN_FAILURES_BURST - 2):
            with pytest.raises(NotApplied):
                await clients.at(N2, password("nobody", "x"), host="mallory")
        with pytest.raises(Overloaded):
            await clients.at(N2, password("nobody", "x"), host="mallory")
        assert (metrics.logins_rejected_total, metrics.logins_turned_away_total) == (LOGIN_FAILURES_BURST, 3)
        nursery.cancel_scope.cancel()


@virtual
async def test_a_token_is_not_taken_where_it_could_have_been_read() -> None:
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        await guarded(cluster)
        with pytest.raises(NotApplied, match="over TLS"):
            await clients.at(N1, TokenLogin("leafdb_x"))
        nursery.cancel_scope.cancel()


@virtual
async def test_strangers_change_nothing() -> None:
    """Whatever comes before a login, no metadata, no session and no operation is there afterwards that was not."""
    async with memory_cluster(3) as cluster, trio.open_nursery() as nursery:
        await guarded(cluster)
        clients = Clients(cluster, nursery)
        before = {number: node.view.epoch for number, node in cluster.nodes.items()}
        for login in (None, password("nobody", "x"), TokenLogin("y")):
            with pytest.raises(LeafdbError):
                await clients.at(N1, login, host="mallory")
        node = cluster.nodes[N1]
        await trio.sleep(1.0)
        assert not node.clients.sessions
        assert not node.coordinator.operations
        assert {number: node.view.epoch for number, node in cluster.nodes.items()} == before
        nursery.cancel_scope.cancel()
