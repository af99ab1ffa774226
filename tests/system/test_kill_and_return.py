"""A node is killed with SIGKILL and comes back, twice, while clients write: every acknowledged write is on every node.

LEAFDB_TEST_KEYS=20000 runs it at the size of the acceptance test.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping

import pytest

from leafdb import (
    BLIND,
    Answer,
    Conflict,
    Found,
    LeafdbError,
    Missing,
    OutcomeUnknown,
    Sibling,
    SiblingBucket,
)
from support.processes import Cluster, Load

pytestmark = pytest.mark.system

KEYS = int(os.environ.get("LEAFDB_TEST_KEYS", "4000"))
CHUNK = 500


def differences(bucket: SiblingBucket[bytes], expected: Mapping[str, bytes], *, local: bool) -> list[str]:
    """Every key that does not have exactly its value."""
    keys = list(expected)
    wrong = []
    for at in range(0, len(keys), CHUNK):
        chunk = keys[at : at + CHUNK]
        answers = (
            bucket.get_many(chunk, timeout=60.0, local=True) if local else bucket.get_many(chunk, r=2, timeout=60.0)
        )
        wrong += [
            f"{key}: {answer}"
            for key, answer in zip(chunk, answers, strict=True)
            if not isinstance(answer, Found) or answer.value != expected[key]
        ]
    return wrong


def test_every_acknowledged_write_survives_a_node_that_is_killed_and_returns_twice(cluster: Cluster) -> None:
    with cluster.connect() as db:
        db.create_bucket("returning")
        with Load(cluster, ["returning"], keys=KEYS) as load, Chain(cluster, "returning") as chain:
            step = KEYS // 7
            for at in (0, 3 * step):
                load.allow(at + step)
                load.await_begun(at + step // 2)
                cluster.kill(2)
                load.allow(at + 2 * step)
                load.await_done(at + step + step // 2)
                load.allow(at + 3 * step)
                cluster.start(2)
            load.allow(KEYS)
            load.await_done(KEYS)
            chain.stop()
        load.check()
        assert not load.refused, f"two of three nodes are always there: {next(iter(load.refused.items()))}"
        print(f"{len(load.acknowledged)} acknowledged, {len(load.unknown)} unknown, {chain.writes} writes in a chain")

        expected = {key: value for (_, key), value in load.acknowledged.items()}
        assert not differences(db.bucket("returning"), expected, local=False)
        chain.check(db.bucket("returning"))
        for error in load.unknown.values():
            assert isinstance(error, OutcomeUnknown)
            assert len(error.op_id) == 16
        for (_, key), answer in zip(
            load.unknown, db.bucket("returning").get_many(k for _, k in load.unknown), strict=True
        ):
            assert not isinstance(answer, Conflict), f"{key} was written once and has siblings"

    cluster.await_settled()
    hints = cluster.cli("-o", "json", "hints", "list")
    assert hints.returncode == 0
    assert json.loads(hints.stdout)["items"] == []
    assert not json.loads(hints.stdout).get("errors")
    assert cluster.cli("status", "--check").returncode == 0

    for node in cluster.nodes:
        with cluster.connect_to(node.index) as db:
            bucket = db.bucket("returning")
            assert not differences(bucket, expected, local=True), node.name
            for key in list(expected)[:: max(1, KEYS // 50)]:
                answer = bucket.get(key, local=True)
                assert isinstance(answer, Found)
                assert answer.value == expected[key], node.name


class Chain:
    """One writer of one key that always writes with the context it got last: it never makes a sibling of what was
    acknowledged to it. Only a write of unknown outcome may surface beside it, for nobody has seen that one."""

    KEY = "chain"

    def __init__(self, cluster: Cluster, bucket: str) -> None:
        self._client = cluster.connect()
        self._bucket = self._client.bucket(bucket)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._problem: BaseException | None = None
        self.writes = 0
        self._last = b""
        self._unknown_before: set[bytes] = set()
        self._unknown_since: set[bytes] = set()

    def __enter__(self) -> Chain:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60.0)
        assert not self._thread.is_alive(), "the chain hangs"

    def check(self, bucket: SiblingBucket[bytes]) -> None:
        """The last acknowledged value is there, or one that had seen it; no other that was acknowledged."""
        assert self._problem is None, repr(self._problem)
        assert self.writes > 0
        self._judge(bucket.get(self.KEY, r=2))

    def _judge(self, answer: Answer[bytes]) -> None:
        values = {sibling.value for sibling in siblings_of(answer)}
        assert values <= {self._last} | self._unknown_before | self._unknown_since, f"a false sibling: {values}"
        assert values & ({self._last} | self._unknown_since), f"{self._last!r} was acknowledged: {values}"

    def _work(self) -> None:
        try:
            after = self._bucket.get(self.KEY).context
            while not self._stopping.wait(0.002):
                value = b"link %d" % self.writes
                self.writes += 1
                try:
                    after = self._bucket.put(self.KEY, value, after=after).context
                    self._last = value
                    self._unknown_before |= self._unknown_since
                    self._unknown_since = set()
                except OutcomeUnknown:
                    self._unknown_since.add(value)
                    answer = self._bucket.get(self.KEY)
                    self._judge(answer)
                    after = answer.context
        except BaseException as error:
            self._problem = error


def siblings_of(answer: Answer[bytes]) -> list[Found[bytes] | Sibling[bytes]]:
    """All that is there."""
    match answer:
        case Missing():
            return []
        case Found():
            return [answer]
        case Conflict(siblings):
            return list(siblings)


def test_a_client_is_told_which_write_is_unknown_when_its_node_dies(cluster: Cluster) -> None:
    """The outcome of what was in flight to the dead node is unknown, never a failure and never silence."""
    with cluster.connect() as db:
        db.create_bucket("dying")
        kinds: dict[str, int] = {}
        with cluster.connect_to(1, timeout=5.0) as one:
            bucket = one.bucket("dying")
            bucket.put("first", b"1", after=BLIND)
            killer = threading.Timer(0.05, cluster.kill, (1,))
            killer.start()
            for number in range(100_000):
                try:
                    bucket.put(f"key-{number}", b"x", after=BLIND)
                except LeafdbError as error:
                    kinds[f"{type(error).__name__} {error.outcome}"] = number
                    break
            killer.join()
            with pytest.raises(LeafdbError) as caught:
                bucket.put("later", b"x", after=BLIND, timeout=1.0)
        assert set(kinds) <= {"OutcomeUnknown unknown", "ConnectFailed not_applied"}, kinds
        assert caught.value.outcome == "not_applied"
        answer = db.bucket("dying").get("first", r=2)
        assert isinstance(answer, Found)
        assert isinstance(db.bucket("dying").get("later", r=2), Missing)
