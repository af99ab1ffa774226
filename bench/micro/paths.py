"""What the request path costs its coordinator, without disk and network: microseconds of a put and a get, frame to end.

    python bench/micro/paths.py [SECONDS [KIND...]]

Five members, n = 3, w = r = 2, everybody answers at once; replica, hints and lanes are stubs that take no time. The
rows for two sets are keys whose range a plan changes, in its first phase; "one set, plan" are keys it leaves alone. The
kinds take turns in short rounds; reported is the median of each with its ratio to the first. Nothing is asserted.

To compare versions run one kind alone, "one set": an interpreter that has met the machine for two sets as well goes
through both a little slower, by some 5 %.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Any, Final, cast

from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import Dot
from leafdb.model.context import ContextSealer
from leafdb.model.key import encode_key
from leafdb.node.catch_up import CatchUp
from leafdb.node.completeness import Completeness
from leafdb.node.coordinator import Coordinator, Place
from leafdb.node.get_driver import get
from leafdb.node.memory import MemoryLedger
from leafdb.node.metrics import Metrics
from leafdb.node.put_driver import put
from leafdb.node.timers import TimingWheel
from leafdb.node.view import ClusterView
from leafdb.quorum.messages import ReplicaStatus, encode_reply
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.proposal import propose
from leafdb.ring.staging import Join, Leave
from leafdb.ring.transitions import commit, stage
from leafdb.types import BucketId, NodeId
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_BLIND, GetRequest, PutRequest, encode_get, encode_put

SECONDS_DEFAULT: Final = 6.0
ROUND_OPERATIONS: Final = 200
OWN: Final = NodeId(1)
DOT: Final = cast(Dot, (bytes(8), 1))
APPLIED: Final = encode_reply(ReplicaStatus.APPLIED)


class Taker:
    """A session or a lane: takes every frame."""

    def send(self, frame: bytes) -> bool:
        return True


class StubReplica:
    """A replica that has nothing to do."""

    def admit(self) -> None:
        pass

    def coordinate(self, operation: Any) -> None:
        operation.minted(b"r" * 120, DOT)
        operation.committed(None)

    def horizon_at(self, key: bytes) -> int:
        return 0

    def show(self, tree: Any, key: bytes, durability: Any, horizon: int, done: Callable[..., None]) -> None:
        done(None, None)


class Path:
    """One coordinator under one epoch's metadata, and a key."""

    def __init__(self, metadata: ClusterMetadata, *, joint: bool) -> None:
        view = ClusterView()
        view.install(OWN, metadata)
        for node in metadata.members:
            if node != OWN:
                view.connected(node)
        stub: Any = StubReplica()
        nothing: Any = None
        self.session = Taker()
        self.coordinator = Coordinator(
            view=view, replica=stub, hints=nothing, lanes=dict.fromkeys(metadata.members, Taker()),
            sealer=ContextSealer(bytes(32)), wheel=TimingWheel(perf_counter), catch_up=CatchUp(lambda done: done()),
            completeness=Completeness(nothing, nothing, view), memory=MemoryLedger(1 << 40), metrics=Metrics(),
            now=perf_counter, now_ms=lambda: 1_700_000_000_000,
        )  # fmt: skip
        self.bucket = next(iter(view.buckets.values()))
        assert view.ring is not None
        ring = view.ring
        for number in range(100_000):
            self.key = encode_key(f"key-{number}")
            place = Place(self.bucket, self.key, ring)
            if place.primaries[0] == OWN and (len(ring.write_sets(place.partition, 3)) == 2) == joint:
                break
        others = dict.fromkeys(node for each in ring.write_sets(place.partition, 3) for node in each if node != OWN)
        self.others = tuple(others)
        self.ring = ring
        head = (int(self.bucket.id), self.bucket.generation, 0, 5_000)
        self.put_body = encode_put(PutRequest(*head, FLAG_BLIND, 0, 0, 0, 0, bytes(16), self.key, b"", b"v" * 100))
        self.get_body = encode_get(GetRequest(*head, 0, 0, 0, self.key))
        self.absent = encode_reply(ReplicaStatus.ABSENT)

    def place(self) -> None:
        Place(self.bucket, self.key, self.ring)

    def put(self) -> None:
        coordinator = self.coordinator
        put(coordinator, self.session, MessageType.PUT, 1, self.put_body)
        number = coordinator._last_id  # the number that the frames to the others carried
        for node in self.others:
            coordinator.on_replica_put_reply(node, number, APPLIED)
        assert not coordinator.operations

    def get(self) -> None:
        coordinator = self.coordinator
        get(coordinator, self.session, MessageType.GET, 1, self.get_body)
        number = coordinator._last_id
        for node in self.others:
            coordinator.on_replica_get_reply(node, number, self.absent)
        assert not coordinator.operations


def members(count: int) -> list[ProposedMember]:
    return [
        ProposedMember(
            name=f"n{at}", host=f"h{at}", client_address=f"h{at}:1", peer_address=f"h{at}:2", http_address=f"h{at}:3"
        )
        for at in range(1, count + 1)
    ]


def before() -> ClusterMetadata:
    """A cluster of five with a bucket."""
    properties = BucketProperties(id=BucketId(256), name="b", generation=0)
    return found("bench", bytes(16), members(5), partitions=64).create_bucket(
        properties, change_id=bytes(16), exist_ok=False
    )


def in_plan() -> ClusterMetadata:
    """The same while one member leaves for another."""
    staged = stage(stage(before(), Leave(NodeId(5))), Join(replace(members(6)[-1])))
    return commit(staged, propose(staged).id)


def timed(operation: Callable[[], None]) -> float:
    """Microseconds of one operation, over a short round."""
    started = perf_counter()
    for _ in range(ROUND_OPERATIONS):
        operation()
    return (perf_counter() - started) / ROUND_OPERATIONS * 1e6


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS_DEFAULT
    print(f"{platform.python_implementation()} {platform.python_version()}")
    paths = {
        "one set": Path(before(), joint=False),
        "one set, plan": Path(in_plan(), joint=False),
        "two sets": Path(in_plan(), joint=True),
    }
    paths = {name: paths[name] for name in sys.argv[2:] or paths}
    for what in ("place", "put", "get"):
        rounds: dict[str, list[float]] = {name: [] for name in paths}
        until = perf_counter() + seconds / 3
        while perf_counter() < until:
            for name, path in paths.items():
                rounds[name].append(timed(getattr(path, what)))
        first = median(next(iter(rounds.values())))
        for name, each in rounds.items():
            middle = median(each)
            print(f"{what + ', ' + name:24} {middle:6.2f} us   least {min(each):6.2f}   x {middle / first:.2f}")


if __name__ == "__main__":
    main()
