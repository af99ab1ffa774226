"""Three real nodes under TLS: they find each other, both clients work, a change of the CA under load fails nobody."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

import leafdb
from leafdb import BLIND, Found
from leafdb_cli import authority
from leafdb_cli.authority import Authority
from support.processes import Cluster, eventually

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("secure"), tls=True) as made:
        yield made.up()
        print(made.logs())


def test_a_cluster_under_tls_serves_both_clients_and_the_command_line(cluster: Cluster) -> None:
    with cluster.connect() as db:
        db.create_bucket("b")
        db.bucket("b").put("k", b"over TLS", after=BLIND, w="all")
        assert db.status().healthy

    async def asynchronously() -> None:
        async with leafdb.connect_async(cluster.url, tls=cluster.tls) as db:
            answer = await db.bucket("b").get("k", r="all")
            assert isinstance(answer, Found)
            assert answer.value == b"over TLS"

    for backend in ("trio", "asyncio"):
        anyio.run(asynchronously, backend=backend)
    shown = cluster.cli("kv", "get", "b", "k")
    assert (shown.returncode, shown.stdout) == (0, "over TLS"), shown.stderr
    assert cluster.cli("node", "list").returncode == 0


def test_who_speaks_no_tls_is_told_what_to_do(cluster: Cluster) -> None:
    plain = cluster.url.replace("leafdbs://", "leafdb://")
    with leafdb.connect(plain) as db, pytest.raises(leafdb.ConnectFailed) as caught:
        db.ping()
    assert all("leafdbs://" in reason for reason in caught.value.attempts.values())


class Writers:
    """Threads that write until they are told to stop, each over clients that come and go; `failed` are their errors."""

    def __init__(self, cluster: Cluster, threads: int = 3) -> None:
        self.failed: list[BaseException] = []
        self.done = 0
        self._cluster = cluster
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60.0)

    def _write(self, number: int) -> None:
        try:
            with self._cluster.connect() as lasting:
                while not self._stop.is_set():
                    with self._cluster.connect() as fresh:
                        for db in (lasting, fresh):
                            db.bucket("load").put(f"{number}-{self.done}", b"v", after=BLIND)
                            self.done += 1
                    time.sleep(0.01)
        except BaseException as error:
            self.failed.append(error)

    def some_more(self) -> None:
        """Return when so many more writes are done that connections of every kind have been made."""
        until = self.done + 30
        eventually("writes go on", lambda: self.done >= until or self.failed)


def test_one_ca_follows_another_under_load_and_no_request_fails(cluster: Cluster) -> None:
    ca = cluster.nodes[0].ca
    assert ca is not None
    directory: Path = ca.parent

    def taken_over(times: int) -> None:
        for node in cluster.nodes:
            cluster.signal(node.index, signal.SIGHUP)
        for node in cluster.nodes:
            said = partial(cluster.log_of, node.index)
            eventually(f"{node.name} has taken them over", lambda: said().count("certificates taken over") >= times)  # noqa: B023

    with cluster.connect() as db:
        db.create_bucket("load")
    with Writers(cluster) as writers:
        writers.some_more()
        authority.begin_rotation(directory)  # all nodes and clients here read this very ca.crt
        taken_over(1)
        writers.some_more()
        for node in cluster.nodes:
            file = node.directory / "node.crt"
            signer = Authority.load(directory)
            signer.equip(signer.subject_of(file), file.with_name("node"))
        taken_over(2)
        writers.some_more()
        authority.finish_rotation(directory)
        taken_over(3)
        writers.some_more()
    assert not writers.failed
    assert writers.done > 100
    # A node that comes back meets the others by certificates of the new CA alone.
    assert cluster.stop(1) == 0
    cluster.start(1)
    cluster.await_settled()
