"""A put, from the client's frame to the moment it is under way: who takes it, what it is refused for.

The local replica goes first, in the same call: it mints the dot and merges. A node that may not do that forwards the
request once. What happens from there on is in put_under_way.

A put that is marked as a retry, because it may have been applied before, first asks the others whether it was
(retried_put.py), and then begins like any other.

A range in a plan has two sets of owners and a machine of its own (put_targets), chosen here; all that follows is the
same. A new owner whose copy is being made is a target, but it coordinates only when nobody else is there: it would mint
over a record it may not have.
"""

from __future__ import annotations

from functools import partial

from leafdb.errors import DiskFull, LeafdbError, NotApplied, ProtocolError, Reason, StorageError
from leafdb.limits import TTL_S_MAX, VALUE_BYTES_MAX
from leafdb.model.clock import CausalClock
from leafdb.model.context import ContextError
from leafdb.model.key import decode_key
from leafdb.model.live import NO_OPERATION
from leafdb.node.coordinator import Coordinator, Place, Requester, not_enough
from leafdb.node.explained_put import ExplainedPut
from leafdb.node.explaining import explaining, on_forwarding
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.outcomes import refusal_of
from leafdb.node.put_follows import follow
from leafdb.node.put_targets import enough_without, one_set, two_sets
from leafdb.node.put_under_way import CoordinatedPut
from leafdb.node.retried_put import RetriedPut
from leafdb.node.session_get import open_floor
from leafdb.quorum.put_operation import PutOperation
from leafdb.types import Conflict, Durability, NodeId
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_BLIND, FLAG_EXPLAIN, FLAG_LWW, FLAG_RETRY, PutRequest, decode_put


def put(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    deadline: float | None = None,
    asked: bool = False,
) -> None:
    """Handle a PUT of a client or a FORWARD_PUT of a peer. One that has waited for metadata keeps its `deadline`; a
    retry for which others have been `asked` about what was before does not ask again."""
    request = decode_put(body)
    if request.flags & FLAG_EXPLAIN:
        session = explaining(coordinator, session, request)
    if deadline is None:
        deadline = coordinator.deadline(request.deadline_ms)
    try:
        retry = partial(put, coordinator, session, message_type, request_id, body, deadline, asked)
        place = coordinator.locate(request.bucket_id, request.generation, request.key, retry)
        if place is not None:
            _begin(coordinator, session, message_type, request_id, body, request, place, deadline, asked)
    except LeafdbError as error:
        if isinstance(error, ProtocolError):
            raise
        coordinator.refuse(session, request_id, error, "put")


def _begin(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    request: PutRequest,
    place: Place,
    deadline: float,
    asked: bool,
) -> None:
    bucket = place.bucket
    context, seen = _validated(coordinator, request, place, deadline)
    joint = place.joint
    if joint is None:
        both = None
        policy = bucket.write_policy(request.w, request.pw, request.dw, request.flags)
    else:
        sizes = (len(joint.old), len(joint.new))
        both = bucket.joint_write_policy(request.w, request.pw, request.dw, request.flags, *sizes)
        policy = both.old  # the sets agree in all but the counts, which are not asked for here
    own = coordinator.view.self_id
    usable = coordinator.view.usable
    targets: dict[NodeId, NodeId] = {}
    absent: list[NodeId] = []
    for node in place.holders:
        if node == own or node in usable:
            targets[node] = node
        else:
            absent.append(node)
    if own not in targets or (joint is not None and own in joint.copying):
        if message_type == MessageType.FORWARD_PUT:
            raise NotApplied("the nodes disagree about who holds the key", reason=Reason.STALE_EPOCH)
        number, op_id, sent = MessageType.FORWARD_PUT, request.op_id, on_forwarding(session)
        if coordinator.forward(session, request_id, number, body, place, deadline, op_id, sent):
            return
        if not policy.sloppy:
            raise not_enough(0, policy.w, "primaries")
        if joint is None:
            absent.remove(place.primaries[0])
            targets[own] = place.primaries[0]
    if joint is None or both is None:
        machine = one_set(coordinator, place, policy, targets, absent)
    else:
        machine = two_sets(coordinator, place, joint, both, targets, absent, stands_in=own not in targets)
    if not _has_room(coordinator, session, message_type, request_id, body, request, place, deadline, machine):
        return
    if request.flags & FLAG_RETRY and not asked:
        then = partial(put, coordinator, session, message_type, request_id, body, deadline, True)
        RetriedPut(coordinator, place, targets[own], request.op_id, deadline, then).ask()
        return
    durability = Durability.ALWAYS if policy.durable else bucket.durability
    floor = open_floor(coordinator, place, request.floor) if request.floor else None
    if floor is not None:
        seen = max(seen, floor.stamp)
    kind = ExplainedPut if request.flags & FLAG_EXPLAIN else CoordinatedPut
    operation = kind(coordinator, session, request_id, request, place, deadline, context, seen, machine, durability)
    operation.sloppy = policy.sloppy and not absent
    operation.id = coordinator.register(operation, deadline)
    if context is None:
        coordinator.metrics.blind_writes_total += 1
    if targets[own] == own:
        mint = partial(coordinator.replica.coordinate, operation)
    else:
        coordinator.metrics.fallback_writes_total += 1
        mint = partial(coordinator.hints.coordinate, targets[own], operation)
    if floor is None:
        mint()
    else:
        follow(coordinator, session, place, operation, targets[own], deadline, floor, mint)


def _has_room(
    coordinator: Coordinator,
    session: Requester,
    message_type: int,
    request_id: int,
    body: bytes,
    request: PutRequest,
    place: Place,
    deadline: float,
    machine: PutOperation,
) -> bool:
    """Whether this node can take its copy; False when the put was passed on to one that can. Raises NotApplied."""
    try:
        coordinator.replica.admit()
    except DiskFull as error:
        # Any node takes any request: the others may do without the copy of one that has no room.
        forward = partial(coordinator.forward, session, request_id, MessageType.FORWARD_PUT, body, place, deadline)
        if (
            message_type == MessageType.PUT
            and enough_without(coordinator.view.self_id, machine)
            and forward(request.op_id, on_forwarding(session))
        ):
            return False
        raise refusal_of(error) from None
    except (ReplicaOverloaded, StorageError) as error:
        raise refusal_of(error) from None
    return True


def _validated(
    coordinator: Coordinator, request: PutRequest, place: Place, deadline: float
) -> tuple[CausalClock | None, int]:
    """The opened context: clock (None when blind) and stamp. Raises NotApplied for whatever the client got wrong.

    In an lww bucket it says only what the write has to be newer than: there coverage decides nothing.
    """
    bucket = place.bucket
    if bool(request.flags & FLAG_LWW) != (bucket.conflict is Conflict.LWW):
        raise NotApplied(
            f"bucket {bucket.properties.name!r} keeps {bucket.conflict.name.lower()}: use the other kind of handle",
            reason=Reason.WRONG_BUCKET_KIND,
        )
    if len(request.value) > VALUE_BYTES_MAX:
        raise NotApplied(f"a value of {len(request.value)} bytes is over {VALUE_BYTES_MAX}", reason=Reason.TOO_LARGE)
    if request.ttl_ms > TTL_S_MAX * 1000:
        raise NotApplied("a bad ttl", reason=Reason.BAD_REQUEST)
    if request.op_id[:8] != place.storage_key[:8] and request.op_id != NO_OPERATION:
        raise NotApplied("an operation id begins with the token of its key", reason=Reason.BAD_REQUEST)
    if request.flags & FLAG_RETRY and request.op_id == NO_OPERATION:
        raise NotApplied("a write without an operation id cannot be tried again", reason=Reason.BAD_REQUEST)
    if coordinator.now() >= deadline:
        raise NotApplied("the deadline had passed before the write could begin", reason=Reason.EXPIRED)
    try:
        decode_key(place.key)
    except ValueError as error:
        raise NotApplied(f"malformed key: {error}", reason=Reason.BAD_REQUEST) from None
    if request.flags & FLAG_BLIND or not request.context:
        return None, 0
    try:
        clock, stamp = coordinator.sealer.open(request.context, bucket.id, place.key)
    except ContextError as error:
        raise NotApplied(str(error), reason=Reason.CONTEXT_MISMATCH) from None
    return (None if bucket.conflict is Conflict.LWW else clock), stamp
