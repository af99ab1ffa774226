"""Stopping and starting in good order: SIGTERM drains and leaves a clean mark, a rolling restart costs clients nothing,
and a second SIGTERM does not wait.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from leafdb import BLIND, Found, LeafdbError, NotApplied, Reason
from leafdb.client.sync_client import Client
from support.processes import Cluster, Load, eventually, run_leafdbd

pytestmark = pytest.mark.system


def starts_of(cluster: Cluster, index: int) -> list[dict[str, Any]]:
    """What a node said about its store at each start."""
    lines = [json.loads(line) for line in cluster.log_of(index).splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "store opened"]


def test_a_node_asked_to_stop_leaves_a_clean_store_and_the_next_start_replays_nothing(cluster: Cluster) -> None:
    with cluster.connect() as db:
        db.create_bucket("clean")
        bucket = db.bucket("clean")
        for number in range(200):
            bucket.put(f"key-{number}", b"x" * 100, after=BLIND, w=3)
        assert cluster.stop(1) == 0
        assert (cluster.nodes[1].directory / "data" / "CLEAN").exists()
        cluster.start(1)
        opened = starts_of(cluster, 1)[-1]
        assert opened["clean"] is True
        assert opened["torn"] == 0
        assert opened["replayed"] < 20, "200 writes went into tables; only the node's own last notes are in the log"

        cluster.kill(1)
        assert not (cluster.nodes[1].directory / "data" / "CLEAN").exists()
        cluster.start(1)
        assert starts_of(cluster, 1)[-1]["clean"] is False
        cluster.await_settled()
        with cluster.connect_to(1) as one:
            answers = one.bucket("clean").get_many([f"key-{number}" for number in range(200)], local=True)
        assert all(isinstance(answer, Found) for answer in answers)


def test_a_rolling_restart_under_load_fails_no_operation_that_cannot_be_repeated(cluster: Cluster) -> None:
    with cluster.connect() as db, Reader(cluster) as reader:
        db.create_bucket("rolling")
        with Load(cluster, ["rolling"], keys=6_000) as load:
            step = 1_000
            for index in range(3):
                load.allow((2 * index + 1) * step)
                load.await_begun(2 * index * step + step // 2)
                assert cluster.stop(index) == 0
                load.allow((2 * index + 2) * step)
                load.await_begun((2 * index + 1) * step + step // 2)
                cluster.start(index)
            load.allow(6_000)
            load.await_done(6_000)
        load.check()
        reader.stop()
        kinds = Counter(
            f"{type(error).__name__}: {error}" for error in (*load.unknown.values(), *load.refused.values())
        )
        assert not load.unknown, kinds
        assert all(error.retryable for error in load.refused.values()), kinds
        assert not load.refused, kinds
        assert not reader.problems
        expected = {key: value for (_, key), value in load.acknowledged.items()}
        answers = db.bucket("rolling").get_many(expected, timeout=60.0)
        assert all(
            isinstance(answer, Found) and answer.value == expected[key]
            for key, answer in zip(expected, answers, strict=True)
        )


class Reader:
    """A client in the background that must always be answered."""

    def __init__(self, cluster: Cluster) -> None:
        self._client: Client = cluster.connect()
        self._client.create_bucket("read", exist_ok=True)
        self._client.bucket("read").put("key", b"value", after=BLIND, w=3)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.problems: list[str] = []
        self.reads = 0

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60.0)
        assert not self._thread.is_alive(), "the reader hangs"

    def _work(self) -> None:
        bucket = self._client.bucket("read")
        while not self._stopping.wait(0.005):
            try:
                answer = bucket.get("key", r=2)
                if not isinstance(answer, Found) or answer.value != b"value":
                    self.problems.append(repr(answer))
                self.reads += 1
            except BaseException as error:
                self.problems.append(repr(error))


def test_a_second_sigterm_ends_a_node_whose_drain_would_take_long(cluster: Cluster) -> None:
    with cluster.connect() as db, cluster.connect_to(2, timeout=60.0) as two:
        db.create_bucket("slow", exist_ok=True)
        # A node that waits for a stalled peer has a request in flight that its drain waits for.
        cluster.stall(0)
        cluster.stall(1)
        answers: list[BaseException | None] = []

        def write() -> None:
            try:
                two.bucket("slow").put("key", b"value", after=BLIND, w=3)
                answers.append(None)
            except LeafdbError as error:
                answers.append(error)

        two.ping()
        writer = threading.Thread(target=write, daemon=True)
        writer.start()
        time.sleep(0.5)
        drains = cluster.log_of(2).count('"draining"')
        cluster.signal(2, signal.SIGTERM)
        eventually("node 2 drains", lambda: cluster.log_of(2).count('"draining"') > drains)
        cluster.signal(2, signal.SIGTERM)
        assert cluster.wait(2) == 0
        assert '"stopping at once"' in cluster.log_of(2)
        cluster.resume(0)
        cluster.resume(1)
        writer.join(60.0)
        assert len(answers) == 1
        error = answers[0]
        assert error is None or (isinstance(error, LeafdbError) and error.outcome in ("unknown", "not_applied"))


def test_a_draining_node_refuses_with_its_reason_and_others_are_asked(cluster: Cluster) -> None:
    with cluster.connect_to(1) as one:
        one.create_bucket("drained", exist_ok=True)
        one.bucket("drained").put("key", b"value", after=BLIND)
        assert cluster.stop(1) == 0
        with pytest.raises(LeafdbError) as caught:
            one.bucket("drained").put("key", b"other", after=BLIND, timeout=1.0)
        error = caught.value
        assert error.retryable
        assert error.outcome == "not_applied"
        assert not isinstance(error, NotApplied) or error.reason is Reason.DRAINING
    with cluster.connect() as db:
        assert isinstance(db.bucket("drained").get("key"), Found)


def test_a_taken_port_is_named_and_the_code_is_one(cluster: Cluster) -> None:
    node = cluster.nodes[2]
    assert cluster.stop(2) == 0
    with socket.create_server(("127.0.0.1", node.peer_port)):
        ended = run_leafdbd("--config", str(node.config))
    assert ended.returncode == 1
    assert f"listen.peer: 127.0.0.1:{node.peer_port} is taken" in ended.stderr


def test_a_data_directory_in_use_is_refused_and_its_owner_lives_on(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.nodes[1]
    ports = [f"--set=listen.{name}=127.0.0.1:0" for name in ("client", "peer", "http")]
    ended = run_leafdbd("--config", str(node.config), *ports)
    assert ended.returncode == 1
    assert str(node.directory / "data") in ended.stderr
    assert "belongs to another process" in ended.stderr
    assert cluster.ask(1, "ping") is not None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot be read"), ("short", "fewer than"), ("x" * 5000, "more than")],
)
def test_a_cluster_secret_that_is_missing_or_no_secret_is_refused(
    cluster: Cluster, tmp_path: Path, content: str | None, complaint: str
) -> None:
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content)
        secret.chmod(0o600)
    ended = run_leafdbd("--config", str(cluster.nodes[0].config), f"--set=cluster.secret_file={secret}")
    assert ended.returncode == 1
    assert f"cluster.secret_file: {secret}" in ended.stderr
    assert complaint in ended.stderr


def test_a_node_with_another_secret_is_kept_out_and_the_others_serve(cluster: Cluster, tmp_path: Path) -> None:
    with cluster.connect() as db:
        db.create_bucket("kept", exist_ok=True)
        assert cluster.stop(2) == 0
        secret = tmp_path / "secret"
        secret.write_text("another secret, which is long enough")
        secret.chmod(0o600)
        cluster.spawn(2, f"--set=cluster.secret_file={secret}")
        eventually("node 2 answers", lambda: cluster.ask(2, "ping"))
        db.bucket("kept").put("key", b"value", after=BLIND)
        status = cluster.ask(0, "status")
        assert status is not None
        assert status["nodes_up"] == 2
        with cluster.connect_to(2) as two, pytest.raises(NotApplied) as caught:
            two.bucket("kept").put("alone", b"value", after=BLIND)
        assert caught.value.reason is Reason.NOT_ENOUGH_REPLICAS
        assert cluster.stop(2) == 0
