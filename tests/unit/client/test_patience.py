"""The receive timeout of a blocking connection is set when it must be, and not for each call: that is a system call."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

import leafdb
from leafdb import BLIND, Found
from leafdb.client.blocking_slot import Patience
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from unit.client.fake_node import FakeCluster, Session


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What timeouts were asked for."""
    asked: list[float] = []
    limit = Patience.limit

    def noted(patience: Patience, left_s: float) -> None:
        asked.append(left_s)
        limit(patience, left_s)

    monkeypatch.setattr(Patience, "limit", noted)
    return asked


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Three nodes, so that reads wait for a hedge and writes for their deadline."""
    with FakeCluster() as cluster:
        cluster.grow(3)
        cluster.create("b")
        yield cluster


def test_reads_and_writes_in_turn_hardly_ever_change_it(cluster: FakeCluster, limits: list[float]) -> None:
    with leafdb.connect(cluster.url) as db:
        raw = db.bucket("b")
        for turn in range(100):
            raw.put(f"k-{turn}", b"v", after=BLIND)
            assert isinstance(raw.get(f"k-{turn}"), Found)
    assert len(limits) < 50


def test_a_timeout_that_was_set_for_less_is_outlived(cluster: FakeCluster, limits: list[float]) -> None:
    def slowly(session: Session, frame: Frame) -> None:
        def answer() -> None:
            time.sleep(0.3)
            session.node.answer(session, frame)

        threading.Thread(target=answer, daemon=True).start()

    with leafdb.connect(cluster.url) as db:
        raw = db.bucket("b")
        for turn in range(60):
            raw.get(f"k-{turn}")
        assert limits[-1] < 1.0, "for a hedge, on every connection by now"
        for node in cluster.nodes:
            node.script(MessageType.PUT, slowly)
        raw.put("k", b"w", after=BLIND)
        assert limits[-1] > 1.0, "once the short one has passed"
