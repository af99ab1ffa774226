"""A get, from the client's frame to the moment it is under way: where it goes, whom it may ask, what it is refused for.

The local replica and R-1 others are asked at once, the other replicas that could be are its spares. A node that is no
primary forwards the request once. What happens then is in get_under_way.

A range in a plan has two sets of owners (decision 0007). The one that the phase reads is asked as ever, those first
that are in the other as well: what R of these agree on needs no write-back. The other set must hold what is shown, so
the operation also knows whom of it a write-back can go to.
"""

from __future__ import annotations

from functools import partial

from leafdb.errors import DeadlineExceeded, LeafdbError, NotApplied, ProtocolError, Reason
from leafdb.model.record import RecordError
from leafdb.node.coordinator import Coordinator, Joint, Place, Requester, not_enough
from leafdb.node.explained_get import ExplainedGet, ExplainedSessionGet
from leafdb.node.explaining import Explaining, explaining, on_forwarding
from leafdb.node.get_under_way import MERGES, CoordinatedGet, get_reply_body
from leafdb.node.outcomes import refusal_of
from leafdb.node.session_get import SessionGet, open_floor
from leafdb.node.view import BucketView
from leafdb.quorum.get_operation import Floor, GetOperation
from leafdb.quorum.joint_get_operation import JointGetOperation
from leafdb.quorum.owner_set import OwnerSet, appoint
from leafdb.quorum.policy import JointReadPolicy
from leafdb.types import Conflict, NodeId
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import (
    FLAG_EXPLAIN,
    FLAG_LOCAL,
    FLAG_LWW,
    FLAG_SLOPPY,
    FLAG_STRICT,
    GetRequest,
    decode_get,
)


def get(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    deadline: float | None = None,
) -> None:
    """Handle a GET of a client or a FORWARD_GET of a peer. One that has waited for metadata keeps its `deadline`."""
    request = decode_get(body)
    if request.flags & FLAG_EXPLAIN:
        session = explaining(coordinator, session, request)
    if deadline is None:
        deadline = coordinator.deadline(request.deadline_ms)
    try:
        retry = partial(get, coordinator, session, message_type, request_id, body, deadline)
        place = coordinator.locate(request.bucket_id, request.generation, request.key, retry)
        if place is None:
            return
        if bool(request.flags & FLAG_LWW) != (place.bucket.conflict is Conflict.LWW):
            raise NotApplied(
                f"bucket {place.bucket.properties.name!r} keeps {place.bucket.conflict.name.lower()}: "
                "use the other kind of handle",
                reason=Reason.WRONG_BUCKET_KIND,
            )
        if coordinator.now() >= deadline:
            raise DeadlineExceeded("the deadline had passed before the read could begin", stage="queue")
        if request.flags & FLAG_LOCAL:
            _get_local(coordinator, session, request_id, place)
        else:
            _begin(coordinator, session, message_type, request_id, body, request, place, deadline)
    except LeafdbError as error:
        if isinstance(error, ProtocolError):
            raise
        coordinator.refuse(session, request_id, error, "get")


def _begin(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    request: GetRequest,
    place: Place,
    deadline: float,
) -> None:
    bucket = place.bucket
    joint = place.joint
    primaries = place.primaries
    if joint is None:
        both = None
        policy = bucket.read_policy(request.r, request.pr)
    else:
        both = bucket.joint_read_policy(request.r, request.pr, len(primaries), len(joint.other(primaries)))
        policy = both.asked
    own = coordinator.view.self_id
    usable = coordinator.view.usable
    if own in primaries:
        candidates = [own]
    else:
        if message_type != MessageType.FORWARD_GET and coordinator.forward(
            session, request_id, MessageType.FORWARD_GET, body, place, deadline, sent=on_forwarding(session)
        ):
            return
        candidates = []
    others = [node for node in primaries if node != own and node in usable]
    if len(others) > 1:
        turn = coordinator.turn(len(others))
        others = others[turn:] + others[:turn]
    candidates += others
    if len(candidates) < policy.pr:
        raise not_enough(len(candidates), policy.pr, "primaries")
    if joint is not None:
        candidates = joint.inner_first(candidates)
    if len(candidates) < len(primaries) and _sloppy(request, bucket):
        candidates += coordinator.hints.fallbacks(place.partition, bucket, candidates)
    if len(candidates) < policy.r:
        raise not_enough(len(candidates), policy.r, "replicas")
    floor = open_floor(coordinator, place, request.floor) if request.floor else None
    if joint is None or both is None:
        machine = GetOperation(
            r=policy.r,
            pr=policy.pr,
            asked=set(candidates[: policy.r]),
            spares=candidates[policy.r :],
            primaries=primaries,
            merge=MERGES[bucket.conflict],
            floor=floor,
        )
    else:
        machine = _two_sets(coordinator, place, joint, both, candidates, floor, sloppy=_sloppy(request, bucket))
    explained = request.flags & FLAG_EXPLAIN
    if floor is None:
        plain = ExplainedGet if explained else CoordinatedGet
        operation = plain(coordinator, session, request_id, place, deadline, machine)
    else:
        floored = ExplainedSessionGet if explained else SessionGet
        sloppy = _sloppy(request, bucket)
        operation = floored(coordinator, session, request_id, place, deadline, machine, sloppy=sloppy)
    slow = coordinator.latency.slow_after_s(candidates[: policy.r], own)
    operation.id = coordinator.register(operation, min(deadline, operation.started + slow))
    operation.begin()


def _two_sets(
    coordinator: Coordinator,
    place: Place,
    joint: Joint,
    policy: JointReadPolicy,
    candidates: list[NodeId],
    floor: Floor | None,
    *,
    sloppy: bool,
) -> JointGetOperation:
    """The operation of a range in a plan. `candidates` are whom it asks, in order.

    Who is away of the other set gets a fallback to be written back to, as a put would find one: for values only, so
    that it is not refused here when there are too few.
    """
    primaries = place.primaries
    view = coordinator.view
    asked = OwnerSet(primaries, w=policy.asked.r, pw=policy.asked.pr)
    other = OwnerSet(joint.other(primaries), w=policy.other.r, pw=policy.other.pr)
    targets = {node: node for node in place.holders if node == view.self_id or node in view.usable}
    absent = [node for node in place.holders if node not in targets]
    if absent and sloppy:
        spares = coordinator.hints.fallbacks(place.partition, place.bucket, targets)
        appoint(targets, absent, spares, (asked, other))
    return JointGetOperation(
        r=policy.asked.r,
        pr=policy.asked.pr,
        asked=set(candidates[: policy.asked.r]),
        spares=candidates[policy.asked.r :],
        primaries=primaries,
        merge=MERGES[place.bucket.conflict],
        other=other,
        others={node: primary for node, primary in targets.items() if primary in other.primaries},
        floor=floor,
    )


def _sloppy(request: GetRequest, bucket: BucketView) -> bool:
    """Whether fallbacks are asked for what primaries that are away may have left with them."""
    asked = request.flags & (FLAG_SLOPPY | FLAG_STRICT)
    return bool(asked & FLAG_SLOPPY) if asked else bucket.properties.sloppy


def _get_local(coordinator: Coordinator, session: Requester, request_id: int, place: Place) -> None:
    """Answer from this node's own replica only: no forwarding, hedging, merging or repair."""
    bucket = place.bucket
    # Asked before the read: what becomes complete meanwhile may have been read before it was.
    definitive = coordinator.completeness.definitive(bucket, place.partition)
    if coordinator.view.self_id not in place.primaries:
        raise not_enough(0, 1, "local replicas (this node does not hold the key)")

    def shown(value: bytes | None, error: Exception | None) -> None:
        if isinstance(session, Explaining):
            session.read_alone(coordinator.view.self_id, value, definitive=definitive, error=error)
        if error is None and value is None and not definitive:
            error = not_enough(0, 1, "complete local replicas (this node is resynchronising)")
        if error is None:
            try:
                body = get_reply_body(coordinator, place, value)
            except RecordError as problem:
                error = problem
            else:
                session.send(encode_frame(MessageType.GET_REPLY, request_id, body))
                return
        coordinator.refuse(session, request_id, refusal_of(error), "get")

    coordinator.replica.show(bucket.tree, place.storage_key, bucket.durability, 0, shown)
