"""One node's request path with everything around it made of paper: what it sends to whom, and what it answers.

Members are 1 to 6; 1 to 5 own the ring, and a plan lets 5 leave and 6 have what it had. Disk and peers do nothing by
themselves: tests answer for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, cast

from leafdb.errors import DiskFull, LeafdbError
from leafdb.explanation import Explanation
from leafdb.model.clock import Dot
from leafdb.model.context import ContextSealer
from leafdb.model.key import encode_key
from leafdb.node.catch_up import CatchUp
from leafdb.node.completeness import Completeness
from leafdb.node.coordinator import Coordinator, Place
from leafdb.node.get_driver import get
from leafdb.node.hint_keeper import HintKeeper
from leafdb.node.memory import MemoryLedger
from leafdb.node.metrics import Metrics
from leafdb.node.put_driver import put
from leafdb.node.timers import TimingWheel
from leafdb.node.view import BucketView, ClusterView
from leafdb.quorum.messages import ReplicaStatus, decode_replica_put, encode_reply
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.placement import claim
from leafdb.ring.staging import Leave
from leafdb.ring.transitions import abort, finish
from leafdb.types import NodeId
from leafdb.wire import explanations
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame, FrameReader
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    FLAG_STRICT,
    GetReply,
    GetRequest,
    PutReply,
    PutRequest,
    decode_get_reply,
    decode_put_reply,
    encode_get,
    encode_put,
)
from support.clusters import bucket, cluster
from support.repairs import WRITER, record_of
from support.ring_changes import advanced, committed, plan_of

NODES = tuple(map(NodeId, range(1, 7)))
LEAVES, COMES = NODES[4], NODES[5]
RECORD = record_of(1)
DOT: Dot = (WRITER.actor(1), 1)


class Phase(Enum):
    """Where the plan is."""

    BEFORE = "before"
    READ_OLD = "read old"
    READ_NEW = "read new"
    RETREAT = "retreat"
    DONE = "done"


@cache
def ring_in(phase: Phase) -> ClusterMetadata:
    """The metadata in that phase of the plan, with a bucket "carts" of n = 3."""
    made = cluster(6)
    owners = claim([made.members[node] for node in NODES[:5]], made.partitions)
    before = replace(made, owners=owners).create_bucket(bucket(), change_id=b"b" * 16, exist_ok=False)
    changes = (Leave(LEAVES),)
    match phase:
        case Phase.BEFORE:
            return before
        case Phase.READ_OLD:
            return committed(before, *changes)
        case Phase.READ_NEW:
            return advanced(before, *changes)
        case Phase.RETREAT:
            under_way = advanced(before, *changes)
            return abort(under_way, plan_of(under_way).id)
        case Phase.DONE:
            under_way = advanced(before, *changes)
            return finish(under_way, plan_of(under_way).id)


class Key(NamedTuple):
    """A key with the old owners `a`, `b`, `c` and the new ones `b`, `c`, `d`; `e` and `f` own other things."""

    encoded: bytes
    a: NodeId
    b: NodeId
    c: NodeId
    d: NodeId
    e: NodeId
    f: NodeId


def changing_key() -> Key:
    """Such a key; `a` is who leaves and `d` who comes."""
    view = ClusterView()
    view.install(NODES[0], ring_in(Phase.READ_OLD))
    carts = view.bucket_named("carts")
    assert carts is not None
    assert view.ring is not None
    for number in range(10_000):
        encoded = encode_key(f"key {number}")
        joint = Place(carts, encoded, view.ring).joint
        if joint is not None and {*joint.old} - {*joint.new} == {LEAVES} and {*joint.new} - {*joint.old} == {COMES}:
            b, c = (node for node in joint.old if node in joint.new)
            e, f = (node for node in NODES if node not in (*joint.old, *joint.new))
            return Key(encoded, LEAVES, b, c, COMES, e, f)
    raise AssertionError("no key changes its owners like that")


class Lane:
    """What was sent to one peer; `full` refuses everything."""

    def __init__(self) -> None:
        self.reader = FrameReader(1 << 20)
        self.frames: list[Frame] = []
        self.full = False

    def send(self, frame: bytes) -> bool:
        if not self.full:
            self.frames += self.reader.feed(frame)
        return not self.full


class Hints(HintKeeper):
    """Hints that are only noted."""

    def __init__(self, view: ClusterView) -> None:
        nothing = cast(Any, None)
        super().__init__(
            engine=nothing, view=view, replica=nothing, ledger=nothing, metrics=nothing,
            now_ms=nothing, mark=nothing, kept=nothing,
        )  # fmt: skip
        self.owed: list[NodeId] = []
        self.kept: list[NodeId] = []
        self.coordinated: list[NodeId] = []
        self.kept_here: bytes | None = None

    def owe(self, target: NodeId, *_: Any) -> None:
        self.owed.append(target)

    def keep(self, target: NodeId, *args: Any) -> None:
        self.kept.append(target)
        args[-1](None)

    def coordinate(self, target: NodeId, operation: Any) -> None:
        self.coordinated.append(target)
        operation.minted(RECORD, DOT)
        operation.committed(None)

    def read_fallback(self, *args: Any) -> None:
        args[-1](self.kept_here, None)


class Lone:
    """A node `own` in a phase of the plan, from which every other member but the `away` ones can be reached."""

    def __init__(self, own: NodeId, phase: Phase = Phase.READ_OLD, *, away: Collection[NodeId] = ()) -> None:
        self.own = own
        self.away = away
        self.now_s = 100.0
        self.view = ClusterView()
        self.view.install(own, ring_in(phase))
        for node in NODES:
            if node != own and node not in away:
                self.view.connected(node)
        self.session = Lane()
        self.lanes = {node: Lane() for node in NODES if node != own and node not in away}
        self.hints = Hints(self.view)
        self.fetches: list[Callable[[], None]] = []
        self.coordinated = 0
        self.merged = 0
        self.stored: bytes | None = None
        self.disk_full = False
        self.horizon = 0
        self.uncommitted: Any = None
        """The put whose local commit is awaited, while `slow`."""
        self.slow = False
        self.completeness = Completeness(cast(Any, None), cast(Any, None), self.view)
        self.coordinator = Coordinator(
            view=self.view, replica=cast(Any, self), hints=self.hints, lanes=self.lanes,
            sealer=ContextSealer(bytes(32)), wheel=TimingWheel(self.now), catch_up=CatchUp(self.fetches.append),
            completeness=self.completeness, memory=MemoryLedger(1 << 40), metrics=Metrics(), now=self.now,
            now_ms=lambda: 1_700_000_000_000,
        )  # fmt: skip

    def now(self) -> float:
        return self.now_s

    @property
    def bucket(self) -> BucketView:
        found = self.view.bucket_named("carts")
        assert found is not None
        return found

    def learns(self, phase: Phase) -> None:
        """The node's metadata are those of a later phase, and what waits for news goes on."""
        self.view.install(self.own, ring_in(phase))
        while self.fetches:
            self.fetches.pop()()

    # -- what stands for the replica

    def admit(self) -> None:
        if self.disk_full:
            raise DiskFull("no room")

    def coordinate(self, operation: Any) -> None:
        self.coordinated += 1
        operation.minted(RECORD, DOT)
        if self.slow:
            self.uncommitted = operation
        else:
            operation.committed(None)

    def horizon_at(self, key: bytes) -> int:
        return self.horizon

    def show(self, *args: Any) -> None:
        args[-1](self.stored, None)

    def merge(self, *args: Any) -> None:
        self.merged += 1
        args[-1](None)

    # -- requests

    def put(
        self, key: Key, *, w: int = 2, pw: int = 0, strict: bool = False, forwarded: bool = False, flags: int = 0
    ) -> None:
        """A blind put comes in."""
        flags |= FLAG_BLIND | (FLAG_STRICT if strict else 0)
        head = (int(self.bucket.id), self.bucket.generation, 0, 5_000)
        body = encode_put(PutRequest(*head, flags, w, pw, 0, 0, bytes(16), key.encoded, b"", b"v"))
        number = MessageType.FORWARD_PUT if forwarded else MessageType.PUT
        put(self.coordinator, self.session, number, 7, body)

    def get(self, key: Key, *, r: int = 2, flags: int = 0, forwarded: bool = False) -> None:
        """A get comes in."""
        body = encode_get(GetRequest(int(self.bucket.id), self.bucket.generation, 0, 5_000, flags, r, 0, key.encoded))
        number = MessageType.FORWARD_GET if forwarded else MessageType.GET
        get(self.coordinator, self.session, number, 7, body)

    # -- what it sent, and what peers answer

    def sent(self, message_type: MessageType) -> list[NodeId]:
        """To whom such frames were sent, ascending."""
        return sorted(node for node, lane in self.lanes.items() if any(f.type == message_type for f in lane.frames))

    def stand_ins(self) -> dict[NodeId, NodeId]:
        """Copies sent as hints: to whom, and for whom."""
        found = {}
        for node, lane in self.lanes.items():
            for frame in lane.frames:
                if frame.type == MessageType.REPLICA_PUT:
                    target = decode_replica_put(frame.body).hint_target
                    if target:
                        found[node] = NodeId(target)
        return found

    def forget_frames(self) -> None:
        """From here on look at new frames only."""
        for lane in self.lanes.values():
            lane.frames.clear()

    def answer(self, *nodes: NodeId, status: ReplicaStatus = ReplicaStatus.APPLIED, record: bytes = b"") -> None:
        """These peers answer what they were sent last, all alike."""
        for node in nodes:
            frame = self.lanes[node].frames[-1]
            body = encode_reply(status, record)
            if frame.type == MessageType.REPLICA_PUT:
                self.coordinator.on_replica_put_reply(node, frame.request_id, body)
            else:
                assert frame.type == MessageType.REPLICA_GET
                self.coordinator.on_replica_get_reply(node, frame.request_id, body)

    def reply(self) -> PutReply | GetReply | LeafdbError | None:
        """What the client was told; None: nothing yet."""
        if not self.session.frames:
            return None
        (frame,) = self.session.frames
        if frame.type == MessageType.PUT_REPLY:
            return decode_put_reply(frame.body)
        if frame.type == MessageType.GET_REPLY:
            return decode_get_reply(frame.body)
        return decode_error(frame.body)

    def explained(self) -> Explanation:
        """How what the client was told has come about."""
        (frame,) = self.session.frames
        if frame.type == MessageType.ERROR:
            found = decode_error(frame.body).explanation
            assert found is not None
            return found
        assert frame.type in (MessageType.PUT_EXPLAINED, MessageType.GET_EXPLAINED)
        return explanations.decode(explanations.split(frame.body)[0])
