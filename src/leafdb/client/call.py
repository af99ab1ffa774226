"""One call: pick a node, exchange, and decide what a failure means and whether to try again.

Repeating is safe, and done, for

- any request of which nothing was sent: the next node is asked at once; when none could be reached, all again
  later;
- an answer that proves nothing was applied, for a reason that may pass (`Reason` says which);
- a read, whatever became of it.

Never after OutcomeUnknown. A write whose bytes may have gone out and that got no answer *is* OutcomeUnknown. A read
gives one node half of the time that is left, so that a node which hangs does not cost the whole deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from leafdb.client.core import Core
from leafdb.client.effects import Exchange, Expired, Operation, Severed, Sleep, Unsent
from leafdb.client.retry import RETRIES_MAX, pause_s
from leafdb.client.routing import NodeState, Place
from leafdb.errors import (
    ConnectFailed,
    DeadlineExceeded,
    LeafdbError,
    NotApplied,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    ServerBug,
)
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType

MARGIN_SHARE: Final = 0.05
MARGIN_S_MAX: Final = 0.1
"""The node is told a little less than what is left, so that its answer, which knows more, comes before our own."""
ATTEMPT_S_MIN: Final = 0.1


class Write(NamedTuple):
    """What an unknown outcome is reported with."""

    op_id: bytes
    required: int


class Request(NamedTuple):
    """A request before a node is picked. `build` makes its body, given the milliseconds that are left."""

    message_type: int
    reply_type: int
    build: Callable[[int], bytes]
    place: Place | None = None
    write: Write | None = None
    once: bool = False
    """A refusal is final: the caller asked this node, not the cluster."""
    required: int = 0
    """Replicas a read needs, for the report of a deadline that passed."""


def call(core: Core, request: Request, deadline: float) -> Operation[Frame]:
    """The frame that answers `request`; raises what became of it otherwise."""
    core.budget.pay_in()
    tried: list[NodeState] = []
    unreached: dict[str, str] = {}
    retries = 0
    while True:
        now = core.clock()
        if now >= deadline:
            raise _out_of_time(core, request, unreached)
        node = core.router.pick(request.place, now, tried)
        if node is None and not unreached:
            node = core.router.pick(request.place, now, ())
        error: LeafdbError
        if node is None:
            error = _none_reached(unreached)
        else:
            until = deadline if request.write is not None else _attempt_until(core, now, deadline)
            try:
                frame = yield Exchange(node, request.message_type, request.build(_wire_ms(until - now)), until)
            except Unsent as failure:
                node.failed(core.clock())
                unreached[str(node.address)] = failure.reason
                tried.append(node)
                continue
            except Severed as failure:
                node.failed(core.clock())
                error = _severed(request, node, failure)
            except Expired as failure:
                node.failed(core.clock())
                error = _expired(request, node, failure)
            else:
                assert frame is not None
                node.answered()
                if frame.type == request.reply_type:
                    return frame
                error = _refusal(request, node, frame)
        pause = pause_before_retry(core, error, retries, deadline) if _safe_to_repeat(request, error) else None
        if pause is None:
            raise error
        retries += 1
        tried = [] if node is None else [node]
        unreached = {}
        yield Sleep(pause)


def _attempt_until(core: Core, now: float, deadline: float) -> float:
    left = deadline - now
    if left <= ATTEMPT_S_MIN or len(core.router.nodes()) < 2:
        return deadline
    return now + max(ATTEMPT_S_MIN, left / 2)


def _wire_ms(left_s: float) -> int:
    return max(1, int((left_s - min(MARGIN_S_MAX, left_s * MARGIN_SHARE)) * 1000))


def _safe_to_repeat(request: Request, error: LeafdbError) -> bool:
    if isinstance(error, NotApplied):
        return error.retryable and not request.once
    if isinstance(error, DeadlineExceeded):
        return request.write is None
    return isinstance(error, ConnectFailed)


def pause_before_retry(core: Core, error: LeafdbError, retries: int, deadline: float) -> float | None:
    """How long to wait before trying again what is safe to repeat; None when it was tried often enough."""
    if retries >= RETRIES_MAX:
        return None
    at_least = error.retry_after if isinstance(error, Overloaded) else 0.0
    pause = pause_s(retries, core.rng, at_least=at_least)
    if core.clock() + pause >= deadline or not core.budget.take():
        return None
    return pause


def _out_of_time(core: Core, request: Request, unreached: Mapping[str, str]) -> LeafdbError:
    if unreached and len(unreached) == len(core.router.nodes()):
        return _none_reached(unreached)
    stage = "connect" if unreached else "queue"
    return DeadlineExceeded(
        f"the deadline passed in stage {stage}; nothing was sent", stage=stage, required=request.required
    )


def _none_reached(unreached: Mapping[str, str]) -> ConnectFailed:
    listing = "; ".join(f"{address}: {reason}" for address, reason in unreached.items())
    return ConnectFailed(f"no node could be reached ({listing})", attempts=unreached)


def _severed(request: Request, node: NodeState, failure: Severed) -> LeafdbError:
    address = str(node.address)
    if request.write is None:
        return ConnectFailed(
            f"the connection to {address} was lost: {failure.reason}", attempts={address: failure.reason}, node=address
        )
    return _unknown(request.write, node, f"the connection to {address} was lost before it answered: {failure.reason}")


def _expired(request: Request, node: NodeState, failure: Expired) -> LeafdbError:
    address = str(node.address)
    if request.write is not None and failure.sent:
        return _unknown(request.write, node, f"{address} did not answer before the deadline")
    note = "" if failure.sent else "; nothing was sent"
    return DeadlineExceeded(
        f"the deadline passed in stage {failure.stage} at {address}{note}",
        stage=failure.stage,
        required=request.required,
        node=address,
    )


def _unknown(write: Write, node: NodeState, message: str) -> OutcomeUnknown:
    return OutcomeUnknown(message, acks=0, required=write.required, op_id=write.op_id, node=str(node.address))


def _refusal(request: Request, node: NodeState, frame: Frame) -> LeafdbError:
    """The error a node answered with, or what is wrong with its answer."""
    address = str(node.address)
    if frame.type != MessageType.ERROR:
        message = f"{address} answered with message type {frame.type:#04x}"
        if request.write is not None:
            return _unknown(request.write, node, message)
        return ServerBug(message, node=address, request_id=frame.request_id)
    try:
        error = decode_error(frame.body, request_id=frame.request_id)
    except ProtocolError as failure:
        error = ServerBug(f"{address} answered with an error that cannot be read: {failure}")
    if isinstance(error, ProtocolError):
        error = ServerBug(f"{address} did not understand this client: {error}", request_id=frame.request_id)
    if request.write is not None:
        if isinstance(error, OutcomeUnknown) and not error.op_id:
            error.op_id = request.write.op_id
        if isinstance(error, ServerBug) and error.outcome == "none":
            error.outcome = "unknown"
    if error.node is None:
        error.node = address
    return error
