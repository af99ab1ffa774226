"""Promises: a traced client makes one span for each put, get and batch, by the conventions for databases, without keys
in it; puts and gets carry it to nodes that take it, and their spans are its children; who does not trace loads nothing
of this."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

pytest.importorskip("opentelemetry.trace", reason="opentelemetry-api is not installed: leafdb[otel]")

from opentelemetry.trace import SpanKind, StatusCode

import leafdb
from leafdb import BLIND, Found
from leafdb.client.sync_client import Client
from leafdb.client.tracing import traced
from leafdb.errors import NotApplied
from leafdb.node.tracing import follower
from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import GetRequest, encode_get
from leafdb.wire.traced import TraceContext, decode_traced, encode_traced
from support.spans import Recorder
from unit.client.fake_node import FakeCluster, FakeNode, Session, silence

N1 = NodeId(1)
SYSTEM = {"db.system.name": "leafdb"}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A node that takes traced requests, and answers them as if they were not."""
    facts = FakeNode.facts
    monkeypatch.setattr(FakeNode, "facts", lambda node: replace(facts(node), traces=True))
    with FakeCluster() as cluster:
        cluster.create("carts")
        yield cluster


def unwrapped(session: Session, frame: Frame) -> None:
    _, message_type, body = decode_traced(frame.body)
    session.node.answer(session, Frame(message_type, frame.request_id, body))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def db(cluster: FakeCluster, recorder: Recorder) -> Iterator[Client]:
    with traced(leafdb.connect(cluster.url), recorder.provider) as client:
        client.ping()
        recorder.spans.clear()
        yield client


def carried(cluster: FakeCluster) -> list[tuple[TraceContext, int]]:
    """What traced requests had with them."""
    return [decode_traced(frame.body)[:2] for frame in cluster.asked(MessageType.TRACED)]


def test_each_call_is_a_span_that_travels(db: Client, cluster: FakeCluster, recorder: Recorder) -> None:
    cluster.node.script(MessageType.TRACED, *[unwrapped] * 2)
    db.bucket("carts").put("alice", b"tea", after=BLIND)
    assert isinstance(db.bucket("carts").get("alice"), Found)
    db.buckets()
    put, get = recorder.spans
    assert [span.name for span in recorder.spans] == ["put carts", "get carts"]
    assert all(span.kind is SpanKind.CLIENT and span.ended == 1 for span in recorder.spans)
    assert put.attributes == {**SYSTEM, "db.operation.name": "put", "db.collection.name": "carts"}
    ids = [(span.get_span_context().trace_id, span.get_span_context().span_id) for span in (put, get)]
    assert [(int.from_bytes(trace.trace_id), int.from_bytes(trace.span_id)) for trace, _ in carried(cluster)] == ids
    assert [number for _, number in carried(cluster)] == [MessageType.PUT, MessageType.GET]
    assert not cluster.asked(MessageType.PUT)


def test_a_failure_is_named_and_nothing_of_it_is_told(db: Client, cluster: FakeCluster, recorder: Recorder) -> None:
    with pytest.raises(NotApplied):
        db.bucket("nonsense").put("alice", b"tea", after=BLIND)
    span = recorder.spans[-1]
    assert span.attributes["error.type"] == "NotApplied"
    assert span.status is not None
    assert span.status.status_code is StatusCode.ERROR
    assert "alice" not in f"{span.attributes} {span.status.description} {span.name}"


def test_a_node_that_takes_no_traces_gets_none(recorder: Recorder) -> None:
    with FakeCluster() as cluster, traced(leafdb.connect(cluster.url), recorder.provider) as db:
        cluster.create("carts")
        db.bucket("carts").put("alice", b"tea", after=BLIND)
        assert cluster.asked(MessageType.TRACED) == []
        assert [span.name for span in recorder.spans] == ["put carts"]


def test_a_hedge_carries_the_span_of_its_read(cluster: FakeCluster, recorder: Recorder) -> None:
    cluster.grow(3)
    cluster.create("carts")
    with traced(leafdb.connect(cluster.url), recorder.provider) as db:
        raw = db.bucket("carts")
        raw.get_many([f"k-{number}" for number in range(60)])
        assert all(node.sessions for node in cluster.nodes)
        unheard = [silence]
        for node in cluster.nodes:
            node.script(MessageType.TRACED, lambda *asked: (unheard.pop() if unheard else unwrapped)(*asked))
        raw.get("k-7")
    first, second = carried(cluster)
    assert first == second
    assert recorder.spans[-1].ended == 1


def test_many_at_once_are_one_span(db: Client, recorder: Recorder) -> None:
    db.bucket("carts").get_many(["a", "b", "c"])
    assert [span.name for span in recorder.spans] == ["batch"]


def test_the_asynchronous_client_does_the_same(cluster: FakeCluster, recorder: Recorder) -> None:
    async def run() -> None:
        async with traced(leafdb.connect_async(cluster.url), recorder.provider) as db:
            await db.ping()
            cluster.node.script(MessageType.TRACED, unwrapped)
            await db.bucket("carts").put("alice", b"tea", after=BLIND)
            await db.bucket("carts").get_many(["alice"])

    trio.run(run)
    assert [span.name for span in recorder.spans] == ["put carts", "batch"]
    assert all(span.ended == 1 for span in recorder.spans)
    assert len(carried(cluster)) == 1


@virtual
async def test_a_node_s_span_is_the_child_of_its_client_s() -> None:
    async with memory_cluster(1) as memory:
        bucket = await memory.create_bucket(n=1)
        node, recorder = memory.nodes[N1], Recorder()
        client = await memory.client(N1)
        trace = TraceContext(b"t" * 16, b"s" * 8, 1)

        def asking(key: bytes) -> bytes:
            request = GetRequest(int(bucket.id), bucket.generation, 0, 5_000, 0, 0, 0, key)
            return encode_traced(trace, MessageType.GET, encode_get(request))

        answer = await client.ask(MessageType.TRACED, asking(b"k\x00\x01"), 5.0)
        assert answer.type == MessageType.GET_REPLY, "nobody follows it, and it is answered all the same"
        assert recorder.spans == []

        node.coordinator.follow_trace = follower(node, recorder.provider)
        assert (await client.ask(MessageType.TRACED, asking(b"k\x00\x01"), 5.0)).type == MessageType.GET_REPLY
        with pytest.raises(NotApplied):
            await client.ask(MessageType.TRACED, asking(b"no encoded key"), 5.0)
        good, bad = recorder.spans
        assert (good.name, good.kind, good.ended, good.status) == ("get b", SpanKind.SERVER, 1, None)
        assert good.attributes == {
            **SYSTEM, "db.operation.name": "get", "db.collection.name": "b", "leafdb.node": "n1",
        }  # fmt: skip
        assert good.parent is not None
        assert good.parent.is_remote
        assert good.parent.trace_id.to_bytes(16, "big") == b"t" * 16
        assert good.parent.span_id.to_bytes(8, "big") == b"s" * 8
        assert bad.status is not None
        assert bad.ended == 1


def test_nothing_of_it_is_loaded_by_who_does_not_trace() -> None:
    code = (
        "import sys, leafdb, leafdb.embedded, leafdb.node.node, leafdb.node.serve;"
        "print(*[name for name in sys.modules if name.startswith('opentelemetry') or name.endswith('.tracing')])"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.split() == []
