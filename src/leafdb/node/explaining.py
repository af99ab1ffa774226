"""Explanations on the node: who collects what happens to one request, and puts it into the answer.

An `Explaining` stands between a request and its session. It exists only for requests with FLAG_EXPLAIN, so others pay
nothing for it: whatever is sent to the session passes through `send`, which adds the explanation, be it a reply, an
error of any stage or what another node answered to the request that was handed on. What the operations of explained_get
and explained_put report between those two moments is noted in one `Part` for each replica. After the answer nothing
is noted any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from leafdb.errors import LeafdbError, ProtocolError
from leafdb.explanation import Cause, Explanation, Follows, Policy, Replica, Status, Version, WriteBack
from leafdb.limits import EXPLAINED_NOTES_MAX, FRAME_BYTES_MAX
from leafdb.model.record import RecordError
from leafdb.node.coordinator import Coordinator, Place, Requester
from leafdb.node.outcomes import status_of
from leafdb.node.roles import FALLBACK, PRIMARY, role_in_plan
from leafdb.node.versions import version_of
from leafdb.quorum.get_operation import GetOperation
from leafdb.quorum.messages import ReplicaStatus
from leafdb.quorum.put_operation import PutOperation
from leafdb.types import NodeId
from leafdb.wire import explanations
from leafdb.wire.frame import FrameReader, encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_LOCAL, FLAG_SLOPPY, FLAG_STRICT, GetRequest, PutRequest

STATUSES = {
    ReplicaStatus.APPLIED: Status.APPLIED,
    ReplicaStatus.FOUND: Status.FOUND,
    ReplicaStatus.ABSENT: Status.ABSENT,
    ReplicaStatus.UNKNOWN: Status.UNKNOWN,
    ReplicaStatus.REFUSED_OVERLOADED: Status.OVERLOADED,
    ReplicaStatus.REFUSED_STALE_EPOCH: Status.STALE_EPOCH,
    ReplicaStatus.REFUSED_EXPIRED: Status.EXPIRED,
    ReplicaStatus.REFUSED_NO_BUCKET: Status.NO_SUCH_BUCKET,
    ReplicaStatus.REFUSED_NOT_REPLICA: Status.NOT_A_REPLICA,
    ReplicaStatus.REFUSED_DISK_FULL: Status.DISK_FULL,
    ReplicaStatus.FAILED: Status.FAILED,
}
EXPLAINED = {
    int(MessageType.PUT_REPLY): MessageType.PUT_EXPLAINED,
    int(MessageType.GET_REPLY): MessageType.GET_EXPLAINED,
}


class Part:
    """What is known of one replica so far. Times are seconds on the node's clock."""

    __slots__ = ("answered_s", "asked_s", "cause", "counted", "follows", "record", "stands_for", "status", "write_back")

    def __init__(self) -> None:
        self.status: Status = Status.NOT_ASKED
        self.stands_for: NodeId = NodeId(0)
        self.cause: Cause = ""
        self.asked_s: float = 0.0
        self.answered_s: float | None = None
        self.counted: bool = False
        self.record: bytes | None = None
        self.write_back: WriteBack = ""
        self.follows: Follows = ""


class Explaining:
    """The requester of an explained request. Implements coordinator.Requester."""

    def __init__(self, coordinator: Coordinator, session: Requester, request: PutRequest | GetRequest) -> None:
        self._coordinator = coordinator
        self._session = session
        self._request = request
        self._began_s = coordinator.now()
        self._place: Place | None = None
        self._machine: GetOperation | PutOperation | None = None
        self._parts: dict[NodeId, Part] = {}
        self._record: bytes | None = None
        """What was written, or read from one store alone."""
        self._forwarded_to = NodeId(0)
        self._notes: list[str] = []
        self._versions: dict[bytes, Version] = {}
        """By record: mostly all replicas have the same."""
        self._late = False
        """The deadline has passed."""
        self._done = False

    # -- what the operation tells

    def begins(self, place: Place, machine: GetOperation | PutOperation) -> None:
        """The operation is under way; or, a put under a newer ring, all over again."""
        if self._place is not None:
            self.begins_anew(f"the ring changed: everybody was asked anew under range epoch {place.range_epoch}")
        self._place = place
        self._machine = machine

    def begins_anew(self, why: str) -> None:
        """What was answered so far is void."""
        self.note(why)
        self._parts.clear()

    def forwarded(self, node: NodeId) -> None:
        """The request was handed on to `node`."""
        self._forwarded_to = node

    def asked(self, node: NodeId, cause: Cause, stands_for: NodeId | None = None) -> None:
        """`node` is asked; as a fallback, it stands for that owner."""
        part = self._part(node)
        if part.counted:
            return  # what it said stands until it says something newer
        part.status = Status.UNANSWERED
        part.cause = cause
        part.asked_s = self._coordinator.now()
        part.answered_s = None  # it may have refused before, and is asked again
        if stands_for is not None and stands_for != node:
            part.stands_for = stands_for

    def answered(self, node: NodeId, status: ReplicaStatus, record: bytes | None, *, counted: bool) -> None:
        """`node` said so."""
        part = self._part(node)
        part.status = STATUSES[status]
        part.answered_s = self._coordinator.now()
        part.record = record
        part.counted = counted

    def lost(self, node: NodeId) -> None:
        """The connection to `node` broke."""
        part = self._part(node)
        if part.status is Status.UNANSWERED:
            part.status = Status.LOST
        if part.write_back == "waiting":
            part.write_back = "failed"

    def out_of_time(self) -> None:
        """Nobody is waited for any longer."""
        self._late = True

    def repairs(self, nodes: Iterable[NodeId], *, waited_for: bool) -> None:
        """These are sent the merge; before the answer, or beside it."""
        for node in nodes:
            if waited_for:
                self._part(node).write_back = "waiting"
            else:
                self._part(node).follows = "read repair"

    def written_back(self, node: NodeId, *, confirmed: bool) -> None:
        """Whether `node` holds what it was sent."""
        part = self._part(node)
        if part.write_back == "waiting":
            part.write_back = "confirmed" if confirmed else "failed"

    def owes(self, nodes: Iterable[NodeId]) -> None:
        """A hint is kept for each of these."""
        for node in nodes:
            self._part(node).follows = "hint"

    def wrote(self, record: bytes) -> None:
        """The record that the write made."""
        self._record = record

    def read_alone(self, own: NodeId, record: bytes | None, *, definitive: bool, error: Exception | None) -> None:
        """What this node's own replica says, which is all that was asked for."""
        self.asked(own, "first")
        if error is not None:
            self.answered(own, status_of(error), None, counted=False)
        elif record is None:
            self.answered(own, ReplicaStatus.ABSENT if definitive else ReplicaStatus.UNKNOWN, None, counted=definitive)
        else:
            self.answered(own, ReplicaStatus.FOUND, record, counted=True)
        self._record = record

    def note(self, text: str) -> None:
        """Something that people should know of."""
        if len(self._notes) < EXPLAINED_NOTES_MAX:
            self._notes.append(text)

    # -- coordinator.Requester

    def send(self, frame: bytes) -> bool:
        """Pass the answer on, with its explanation."""
        (answer,) = FrameReader(FRAME_BYTES_MAX).feed(frame)
        number, body = answer.type, answer.body
        if number in EXPLAINED:
            body = explanations.join(explanations.encode(self.explanation(answered=True)), body)
            number = EXPLAINED[number]
        elif number == MessageType.ERROR:
            told = explanations.of_error(body)
            mine = explanations.encode(self.explanation(answered=False)) if told is None else self._passed_on(told)
            body = explanations.into_error(mine, body)
        else:
            told, reply = explanations.split(body)
            body = explanations.join(self._passed_on(told), reply)
        self._done = True
        return self._session.send(encode_frame(number, answer.request_id, body))

    def _passed_on(self, explanation: bytes) -> bytes:
        """With this node in it; as it came, where a newer build wrote what this one cannot read."""
        view = self._coordinator.view
        try:
            return explanations.passed_on(explanation, view.name_of(view.self_id), self._ms(self._coordinator.now()))
        except ProtocolError:
            return explanation

    # -- the explanation

    def explanation(self, *, answered: bool) -> Explanation:
        """What is known now."""
        view = self._coordinator.view
        place = self._place or self._looked_up()
        policy, other = (None, None) if place is None else self._policies(place)
        machine = self._machine
        found = self._record if not isinstance(machine, GetOperation) else machine.merged
        return Explanation(
            operation="get" if isinstance(self._request, GetRequest) else "put",
            answered=answered,
            bucket="" if place is None else place.bucket.properties.name,
            node=view.name_of(view.self_id),
            forwarded_by=(),
            forwarded_to=view.name_of(self._forwarded_to) if self._forwarded_to else "",
            epoch=view.epoch,
            range_epoch=0 if place is None else place.range_epoch,
            partition=None if place is None else int(place.partition),
            policy=policy,
            other_policy=other,
            replicas=() if place is None else self._replicas(place),
            more_replicas=0,
            merged=None if place is None else self._version(place, found),
            decided_ms=self._ms(self._coordinator.now()),
            notes=tuple(self._notes),
        )

    def _looked_up(self) -> Place | None:
        """The key's place, for a request that was over before it had one."""
        view, request = self._coordinator.view, self._request
        bucket = view.buckets.get(request.bucket_id)
        if bucket is None or view.ring is None:
            return None
        try:
            return Place(bucket, request.key, view.ring)
        except ValueError:
            return None

    def _policies(self, place: Place) -> tuple[Policy | None, Policy | None]:
        """What is needed of the owners, and in a plan of the other ones; nothing for what no cluster can give."""
        request, bucket, joint = self._request, place.bucket, place.joint
        try:
            if isinstance(request, PutRequest):
                counts = (request.w, request.pw, request.dw, request.flags)
                if joint is None:
                    writes = [bucket.write_policy(*counts)]
                else:
                    writes = [*bucket.joint_write_policy(*counts, len(joint.old), len(joint.new))]
                both = [Policy(n, w=w, pw=pw, durable=durable, sloppy=sloppy) for n, w, pw, durable, sloppy in writes]
            elif request.flags & FLAG_LOCAL:
                return None, None
            else:
                asked = place.primaries
                if joint is None:
                    reads = [bucket.read_policy(request.r, request.pr)]
                else:
                    sizes = len(asked), len(joint.other(asked))
                    reads = [*bucket.joint_read_policy(request.r, request.pr, *sizes)]
                chosen = request.flags & (FLAG_SLOPPY | FLAG_STRICT)
                sloppy = bool(chosen & FLAG_SLOPPY) if chosen else bucket.properties.sloppy
                both = [Policy(n, r=r, pr=pr, sloppy=sloppy) for n, r, pr in reads]
        except LeafdbError:
            return None, None
        return both[0], both[1] if len(both) > 1 else None

    def _replicas(self, place: Place) -> tuple[Replica, ...]:
        view = self._coordinator.view
        nodes = dict.fromkeys((*place.holders, *self._parts))
        if self._request.flags & FLAG_LOCAL:
            nodes = dict.fromkeys((view.self_id,))
        return tuple(self._replica(place, node, self._parts.get(node) or Part()) for node in nodes)

    def _replica(self, place: Place, node: NodeId, part: Part) -> Replica:
        view = self._coordinator.view
        return Replica(
            node=view.name_of(node),
            role=_role(place, node),
            status=self._status(node, part),
            stands_for=view.name_of(part.stands_for) if part.stands_for else "",
            cause=part.cause,
            asked_ms=self._ms(part.asked_s) if part.cause else None,
            answered_ms=None if part.answered_s is None else self._ms(part.answered_s),
            counted=part.counted,
            behind=self._behind(part),
            write_back=self._write_back(node, part),
            follows=part.follows,
            version=self._version(place, part.record),
        )

    def _write_back(self, node: NodeId, part: Part) -> WriteBack:
        machine = self._machine
        if part.write_back == "waiting" and not self._late and isinstance(machine, GetOperation):
            # Who confirms, is lost or runs out of time is told of before the machine is; so nothing went out.
            return "waiting" if machine.writing_back and node in machine.writing_back else "failed"
        return part.write_back

    def _behind(self, part: Part) -> bool:
        """Whether a replica lacks something of what was read; one that was heard late may even have more."""
        machine = self._machine
        if not isinstance(machine, GetOperation) or machine.merged is None:
            return False
        if part.record is None:
            return part.status is Status.ABSENT
        try:
            return machine.merge(part.record, machine.merged) != part.record
        except RecordError:
            return False

    def _version(self, place: Place, record: bytes | None) -> Version | None:
        if record is None:
            return None
        found = self._versions.get(record)
        if found is None:
            try:
                found = version_of(record, self._coordinator.now_ms(), place.bucket.conflict)
            except RecordError:
                return None  # the request fails of it, and its error says so
            self._versions[record] = found
        return found

    def _status(self, node: NodeId, part: Part) -> Status:
        view, machine = self._coordinator.view, self._machine
        if part.status is Status.NOT_ASKED:
            return part.status if node == view.self_id or node in view.usable else Status.AWAY
        if part.status is Status.UNANSWERED and not self._late and machine is not None and node not in machine.waiting:
            # Whoever answers, is lost or runs out of time is told of before the machine is; so nothing went out.
            return Status.UNSENT
        return part.status

    def _part(self, node: NodeId) -> Part:
        if self._done:
            return Part()  # the answer is out: nobody will look
        part = self._parts.get(node)
        if part is None:
            part = self._parts[node] = Part()
        return part

    def _ms(self, at_s: float) -> float:
        return (at_s - self._began_s) * 1000


def _role(place: Place, node: NodeId) -> str:
    if node not in place.holders:
        return FALLBACK
    joint = place.joint
    return PRIMARY if joint is None else role_in_plan(node, joint.old, joint.new, joint.copying)


def on_forwarding(session: Requester) -> Callable[[NodeId], None] | None:
    """Who is to know where a request that came on `session` is handed on to, if anybody is."""
    return session.forwarded if isinstance(session, Explaining) else None


def explaining(coordinator: Coordinator, session: Requester, request: PutRequest | GetRequest) -> Explaining:
    """Who stands for the session of an explained request; the same one when the request had to wait."""
    return session if isinstance(session, Explaining) else Explaining(coordinator, session, request)
