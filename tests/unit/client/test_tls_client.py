"""TLS of both clients: they believe the node of their CA by the name they dialled, and say what to do when they do not.

The node is the fake one, under TLS of the standard library's own sockets: another implementation of the same protocol.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import leafdb
from leafdb import BLIND, ConnectFailed, Found
from leafdb.client.blocking_tls import dialler
from leafdb.client.connect import client_over
from leafdb.client.tls import ClientTls
from leafdb.transport.tls_contexts import TlsFiles
from support.certificates import Pki
from unit.client.fake_node import FakeCluster, FakeNode, Session

Run = Callable[[str, Any], None]


class TlsNode(FakeNode):
    """A fake node that speaks TLS; `refused` are the handshakes that came to nothing."""

    context: ssl.SSLContext
    refused: list[OSError]

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(sock,), daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        try:
            line = self.context.wrap_socket(sock, server_side=True)
        except OSError as error:
            self.refused.append(error)
            sock.close()
            return
        session = Session(self, line)
        self.sessions.append(session)
        session.serve()


class TlsCluster(FakeCluster):
    """One node with these files."""

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        super().__init__()

    def add_node(self) -> FakeNode:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.cert, self.files.key)
        if self.files.client_ca:
            context.load_verify_locations(self.files.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        kind = type("Node", (TlsNode,), {"context": context, "refused": []})
        node: FakeNode = kind(self, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    @property
    def url(self) -> str:
        return super().url.replace("leafdb://", "leafdbs://")


@contextmanager
def cluster(files: TlsFiles) -> Iterator[TlsCluster]:
    made = TlsCluster(files)
    with made:
        made.create("b")
        yield made


def sync_run(url: str, tls: Any) -> None:
    with leafdb.connect(url, tls=tls, routing="listed") as db:
        bucket = db.bucket("b")
        for size in (1, 100_000):
            bucket.put("k", bytes(size), after=BLIND)
        answer = bucket.get("k")
        assert not isinstance(answer, leafdb.Missing)
        keys = [f"key {index}" for index in range(50)]
        bucket.put_many([leafdb.Put(key, b"v" * 2_000, after=BLIND) for key in keys])
        assert all(isinstance(each, Found) for each in bucket.get_many(keys))


def async_run(url: str, tls: Any) -> None:
    async def main() -> None:
        async with leafdb.connect_async(url, tls=tls, routing="listed") as db:
            bucket = db.bucket("b")
            for size in (1, 100_000):
                await bucket.put("k", bytes(size), after=BLIND)

            async def one(number: int) -> None:
                await bucket.put(f"key {number}", b"v" * 2_000, after=BLIND)
                assert isinstance(await bucket.get(f"key {number}"), Found)

            async with anyio.create_task_group() as tasks:
                for number in range(30):
                    tasks.start_soon(one, number)

    anyio.run(main, backend="asyncio")


CLIENTS = pytest.mark.parametrize("run", [sync_run, async_run], ids=["sync", "async"])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def reason_of(run: Run, made: TlsCluster, tls: Any, url: str = "") -> str:
    with pytest.raises(ConnectFailed) as caught:
        run(url or made.url, tls)
    assert not made.node.log, "nothing was asked of a node that is not believed"
    return " ".join(caught.value.attempts.values())


@CLIENTS
def test_a_cluster_s_node_is_believed(run: Run, pki: Pki) -> None:
    with cluster(pki.node()) as made:
        run(made.url, pki.trusting())


@CLIENTS
def test_a_client_shows_its_certificate_where_one_is_wanted(run: Run, pki: Pki) -> None:
    with cluster(pki.node(clients=True)) as made:
        run(made.url, pki.client())
        made.node.log.clear()
        assert "cert_file" in reason_of(run, made, pki.trusting())


@CLIENTS
def test_another_ca_is_not_believed_and_hears_nothing(run: Run, pki: Pki, tmp_path: Path) -> None:
    with cluster(pki.node()) as made:
        assert "not from a CA in our ca_file" in reason_of(run, made, Pki(tmp_path).trusting())
        assert isinstance(made.node, TlsNode)
        assert not made.node.sessions, "the handshake failed, so not a byte of the protocol was sent"


@CLIENTS
def test_the_system_s_cas_do_not_do_for_a_cluster_s_own(run: Run, pki: Pki) -> None:
    with cluster(pki.node()) as made:
        assert "not from a CA" in reason_of(run, made, None)


@CLIENTS
def test_names_are_compared(run: Run, pki: Pki) -> None:
    with cluster(pki.node("elsewhere", ("db1.example.org",))) as made:
        reason = reason_of(run, made, pki.trusting())
        assert "not for 127.0.0.1" in reason
        run(made.url, pki.trusting(server_name="db1.example.org"))


@CLIENTS
def test_a_certificate_that_has_run_out_is_said_to_have(run: Run, pki: Pki) -> None:
    with cluster(pki.node("late", days=0)) as made:
        assert "has run out" in reason_of(run, made, pki.trusting())


@CLIENTS
def test_tls_to_a_port_without_is_told_apart(run: Run, pki: Pki) -> None:
    with FakeCluster() as plain, pytest.raises(ConnectFailed) as caught:
        run(plain.url.replace("leafdb://", "leafdbs://"), pki.trusting())
    assert "may not speak TLS" in str(caught.value.attempts)


def test_a_ca_that_follows_another_is_taken_over_by_a_client_that_runs(tmp_path: Path) -> None:
    """Its files are looked at whenever it connects; what is unsound changes nothing."""
    old, new = Pki(tmp_path / "old"), Pki(tmp_path / "new")
    trusted = tmp_path / "ca.crt"
    trusted.write_bytes(new.ca.read_bytes())
    dial = dialler(ClientTls(leafdb.TLS(ca_file=trusted)))
    with cluster(new.node()) as made, cluster(old.node()) as another:
        with client_over([made.node.address], dial=dial, routing="listed") as db:
            db.ping()
        trusted.write_bytes(b"half")
        with client_over([made.node.address], dial=dial, routing="listed") as db:
            db.ping()
        trusted.write_bytes(old.ca.read_bytes())
        with client_over([another.node.address], dial=dial, routing="listed") as db:
            db.ping()
        with client_over([made.node.address], dial=dial, routing="listed") as db, pytest.raises(ConnectFailed):
            db.ping()


def test_wrong_files_are_said_to_be_when_the_client_is_made(pki: Pki, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("no certificate")
    whole = pki.client()
    for wrong, word in (
        (leafdb.TLS(ca_file="/nowhere/ca.crt"), "ca_file: /nowhere/ca.crt"),
        (leafdb.TLS(ca_file=junk), "ca_file"),
        (leafdb.TLS(ca_file=pki.ca, cert_file=whole.cert_file), "belong together"),
        (leafdb.TLS(ca_file=pki.ca, cert_file=whole.cert_file, key_file=pki.node("n9").key), "cert_file"),
        (leafdb.TLS(ca_file=pki.ca, cert_file="/nowhere", key_file="/nowhere"), "cert_file: /nowhere"),
        (leafdb.TLS(ca_file=pki.ca, server_name=""), "server_name"),
        (5, "leafdb.TLS"),
    ):
        for connect in (leafdb.connect, leafdb.connect_async):
            with pytest.raises(leafdb.ConfigError, match=word):
                connect("leafdbs://a", tls=wrong)  # type: ignore[arg-type]
    with pytest.raises(leafdb.ConfigError, match="write leafdbs://"):
        leafdb.connect("leafdb://a", tls=pki.trusting())
