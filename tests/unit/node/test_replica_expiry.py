"""I37: what a requester has given up is not executed, neither at once nor after it has waited for metadata."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from leafdb.errors import DeadlineExceeded, LeafdbError, Overloaded
from leafdb.model.key import encode_key
from leafdb.node.catch_up import CatchUp
from leafdb.node.replica_service import ReplicaService
from leafdb.node.scan_driver import ScanDriver
from leafdb.node.scan_replica import ScanReplica
from leafdb.node.view import ClusterView
from leafdb.quorum.messages import ReplicaStatus, decode_reply, encode_replica_get, encode_replica_put
from leafdb.ring.token import STORAGE_KEY_END, TOKEN_BYTES
from leafdb.types import NodeId
from leafdb.wire.control import ScanRequest
from leafdb.wire.frame import HEADER_BYTES
from support.clusters import bucket, cluster

N1 = NodeId(1)
KEY = encode_key("k")
FOUNDED = cluster(3)
GROWN = FOUNDED.create_bucket(bucket("later"), change_id=bytes(16), exist_ok=False)
(LATER,) = GROWN.buckets.values()


class World:
    """A node that is one epoch behind, its clock, and everything it does for others."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.view = ClusterView()
        self.view.install(N1, FOUNDED)
        self.fetches: list[Callable[[], None]] = []
        self.catch_up = CatchUp(self.fetches.append)
        self.executed: list[str] = []
        self.answers: list[bytes] = []
        self.refusals: list[LeafdbError] = []
        parts: Any = self
        self.service = ReplicaService(
            view=self.view, replica=parts, hints=parts, completeness=parts, catch_up=self.catch_up, now=self.now
        )

    def learns(self, after_s: float) -> None:
        """So much later the fetch is over and has brought the bucket."""
        self.now_s += after_s
        self.view.install(N1, GROWN)
        self.fetches.pop()()

    @property
    def statuses(self) -> list[ReplicaStatus]:
        return [decode_reply(frame[HEADER_BYTES:])[0] for frame in self.answers]

    # -- what stands for replica, hints, completeness, coordinator, session and nursery

    memory = SimpleNamespace(full=False)
    draining = False

    def now(self) -> float:
        return self.now_s

    def deadline(self, deadline_ms: int) -> float:
        return self.now_s + deadline_ms / 1000

    def send(self, frame: bytes) -> bool:
        self.answers.append(frame)
        return True

    def refuse(self, session: object, request_id: int, error: LeafdbError) -> None:
        self.refusals.append(error)

    def admit(self) -> None:
        """There is room."""

    def definitive(self, *_: object) -> bool:
        return True

    def merge(self, *_: object) -> None:
        self.executed.append("merge")

    def show(self, *_: object) -> None:
        self.executed.append("read")

    def keep(self, *_: object) -> None:
        self.executed.append("keep")


def asked(world: World, kind: str, deadline_ms: int) -> None:
    """A request of a coordinator that knows the bucket."""
    head = (int(LATER.id), LATER.generation, int(GROWN.range_epochs[0]), deadline_ms)
    if kind == "read":
        world.service.get(world, 1, encode_replica_get(*head, 0, KEY))
    else:
        hint_target = 2 if kind == "keep" else 0
        world.service.put(world, 1, encode_replica_put(*head, 0, hint_target, KEY, b"record"))


@pytest.mark.parametrize("kind", ["merge", "keep", "read"])
def test_a_replica_request_whose_deadline_passes_while_it_waits_for_metadata_is_refused(kind: str) -> None:
    world = World()
    asked(world, kind, 500)
    assert len(world.fetches) == 1, "the node is behind: the request waits"
    world.learns(after_s=0.5)
    assert world.executed == []
    assert world.statuses == [ReplicaStatus.REFUSED_EXPIRED]


@pytest.mark.parametrize("kind", ["merge", "keep", "read"])
def test_a_replica_request_that_has_time_left_is_executed_after_it_has_waited(kind: str) -> None:
    world = World()
    asked(world, kind, 500)
    world.learns(after_s=0.4)
    assert world.executed == [kind]
    assert world.statuses == []


@pytest.mark.parametrize("kind", ["merge", "keep", "read"])
def test_a_replica_request_without_time_left_does_not_wait(kind: str) -> None:
    world = World()
    asked(world, kind, 0)
    assert (world.fetches, world.executed) == ([], [])
    assert world.statuses == [ReplicaStatus.REFUSED_EXPIRED]


@pytest.mark.parametrize("by", ["coordinator", "client"])
@pytest.mark.parametrize(("waits_s", "refused"), [(0.5, DeadlineExceeded), (0.4, Overloaded)])
def test_a_scan_that_waits_for_metadata_keeps_its_deadline(by: str, waits_s: float, refused: type[LeafdbError]) -> None:
    """Nobody runs scans here, so one with time left is refused for that; it would have begun."""
    world = World()
    node: Any = world
    request = ScanRequest(
        int(LATER.id), LATER.generation, bytes(TOKEN_BYTES), STORAGE_KEY_END, 10, 1_000, False, 0, 500
    )
    if by == "coordinator":
        ScanReplica(node, node).on_request(None, node, 1, request.encode())
    else:
        ScanDriver(node, node, node).on_scan(node, 1, request.encode())
    assert len(world.fetches) == 1, "the node is behind: the request waits"
    world.learns(after_s=waits_s)
    assert [type(error) for error in world.refusals] == [refused]
