"""One call: pick a node, exchange, and decide what a failure means and whether to try again.

Repeating is safe, and done, for

- any request of which nothing was sent: the next node is asked at once; when none could be reached, all again
  later;
- an answer that proves nothing was applied, for a reason that may pass (`Reason` says which);
- a read, whatever became of it; one whose connection was lost moves on to the next node at once;
- a write whose outcome is unknown, if it has an operation id: sent again under the same id and marked as a retry, it is
  recognised where it was applied, and answered without being written twice.

A write whose bytes may have gone out and that got no answer *is* OutcomeUnknown. Once it may have been applied, no
refusal of a later try proves that it was not: if none succeeds, the call ends as it stood then, unknown. Changes
without an operation id (verbs) are never sent twice. A read gives one node half of the time that is left, so that a
node which hangs does not cost the whole deadline; and when that node is slow, another is asked beside it (`hedging`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol, TypeVar

from leafdb.client.core import Core
from leafdb.client.effects import Denied, Exchange, ExchangeFailed, Expired, Operation, Severed, Sleep, Unsent
from leafdb.client.retry import RETRIES_MAX, pause_s
from leafdb.client.routing import NodeState, Place
from leafdb.errors import (
    ClientMisuse,
    ConnectFailed,
    DeadlineExceeded,
    LeafdbError,
    NotApplied,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Reason,
    ServerBug,
)
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType

T_co = TypeVar("T_co", covariant=True)

_new: Final = tuple.__new__
"""Exchange(...) goes through a Python function, which every request would pay for."""
MARGIN_SHARE: Final = 0.05
MARGIN_S_MAX: Final = 0.1
"""The node is told a little less than what is left, so that its answer, which knows more, comes before our own."""
_MARGIN_WHOLE_S: Final = MARGIN_S_MAX / MARGIN_SHARE
ATTEMPT_S_MIN: Final = 0.1
"""With less time no attempt is worth it: that of a write would only leave a second copy of it."""


class Request(Protocol):
    """A request before a node is picked."""

    @property
    def message_type(self) -> int:
        """What it is sent as."""

    @property
    def reply_type(self) -> int:
        """What answers it."""

    @property
    def place(self) -> Place | None:
        """Where its key lies, if it has one and there is a ring."""

    @property
    def op_id(self) -> bytes | None:
        """None for a read. Anything else may change something, and is reported as unknown under this id; empty: nodes
        would not recognise it if it came twice."""

    @property
    def once(self) -> bool:
        """A refusal is final: the caller asked this node, not the cluster."""

    @property
    def patient(self) -> bool:
        """One node may take all the time there is: its work is long, and another would be no quicker."""

    def body(self, deadline_ms: int, again: bool) -> bytes:
        """Its body, given the milliseconds that are left; `again`: it may have been applied already."""

    def required(self) -> int:
        """Replicas it needs, for the report of a failure."""


class KeyCall(Protocol[T_co]):
    """A call that can be run by its first exchange alone, when that is all it needs, and by its steps always."""

    @property
    def reply_type(self) -> int:
        """What answers it."""

    def begin(self) -> Exchange | None:
        """The first exchange; None when something has to be fetched before it."""

    def finish(self, frame: Frame, /) -> T_co:
        """The result that an answer of `reply_type` is."""

    def steps(self, begun: Begun | None = None, /) -> Operation[T_co]:
        """All of it; with `begun`, what is left to do after that first exchange."""


class Begun(NamedTuple):
    """A first exchange that a driver has performed already, on its fast path."""

    node: NodeState
    outcome: Frame | ExchangeFailed


def call(core: Core, request: Request, deadline: float, begun: Begun | None = None) -> Operation[Frame]:
    """The frame that answers `request`; raises what became of it otherwise. `begun` is its first exchange, if made."""
    core.budget.earn()
    shunned: list[NodeState] = []
    unreached: dict[NodeState, str] = {}
    retries = 0
    refused: LeafdbError | None = None
    unknown: OutcomeUnknown | None = None
    leaving: LeafdbError | None = None
    while True:
        error: LeafdbError
        node: NodeState | None
        outcome: Frame | ExchangeFailed | None
        if begun is not None:
            (node, outcome), begun = begun, None
        else:
            now = core.clock()
            if now >= deadline:
                raise unknown or refused or _out_of_time(core, request, unreached)
            node = core.router.pick(request.place, now, [*shunned, *unreached])
            if node is None and shunned:
                node = core.router.pick(request.place, now, unreached)
            if node is not None:
                try:
                    outcome = yield attempt(core, request, node, now, deadline, again=unknown is not None)
                except ExchangeFailed as failure:
                    outcome = failure
        if node is None:
            error = leaving or _none_reached(unreached)
        elif isinstance(outcome, Denied):
            raise unknown or outcome.told_by(str(node.address))
        elif isinstance(outcome, Unsent) or (isinstance(outcome, Severed) and request.op_id is None):
            # A read that lost its connection goes on to the next node as if it had not been sent: many are lost at once
            # when a node dies, and they are no sign of overload, so they do not draw on the retry budget.
            node.failed(core.clock())
            unreached[node] = outcome.reason
            continue
        elif isinstance(outcome, ExchangeFailed):
            node.failed(core.clock())
            error = _broken(request, node, outcome)
            if isinstance(error, DeadlineExceeded) and isinstance(refused, DeadlineExceeded):
                error = refused  # where a node's time went tells more than that ours is over
        else:
            assert outcome is not None
            if outcome.type == request.reply_type:
                node.answered()
                return outcome
            error = _refusal(request, node, outcome)
            if isinstance(error, NotApplied) and error.reason is Reason.DRAINING and not request.once:
                # It has begun nothing and will not: as good as never sent, and no sign of overload.
                node.failed(core.clock())
                unreached[node] = str(error)
                leaving = error
                continue
            if isinstance(error, NotApplied) and error.retryable and not request.once:
                # It is busy, leaving, just starting or cut off from its peers: let others be asked for a moment.
                node.failed(core.clock())
            else:
                node.answered()
        until = deadline
        if isinstance(error, OutcomeUnknown):
            unknown = error if unknown is None or error.acks >= unknown.acks else unknown
            until -= ATTEMPT_S_MIN
        again = _safe_to_repeat(request, error, unknown is not None)
        pause = pause_before_retry(core, error, retries, until) if again else None
        if pause is None:
            if unknown is None or unknown is error:
                raise error
            raise unknown from error
        retries += 1
        refused = error
        shunned, unreached, leaving = [] if node is None else [node], {}, None
        yield from _rest(pause, unknown)


def _rest(pause: float, unknown: OutcomeUnknown | None) -> Operation[None]:
    """Wait before another try. A client that was closed meanwhile makes none: a write may be there all the same."""
    try:
        yield Sleep(pause)
    except ClientMisuse as closed:
        if unknown is None:
            raise
        raise unknown from closed


def attempt(
    core: Core, request: Request, node: NodeState, now: float, deadline: float, *, again: bool = False
) -> Exchange:
    """What to ask of `node` now; `again`: the request may have been applied already."""
    until, hedge_at = deadline, 0.0
    if core.router.alone is None:
        until = _attempt_until(request, now, deadline)
        hedge_at = _hedge_at(core, request, now, until)
    left_s = until - now
    margin_s = MARGIN_S_MAX if left_s > _MARGIN_WHOLE_S else left_s * MARGIN_SHARE
    body = request.body(int((left_s - margin_s) * 1000) or 1, again)
    return _new(Exchange, (node, request.message_type, body, until, hedge_at, request.place))


def _attempt_until(request: Request, now: float, deadline: float) -> float:
    left = deadline - now
    if request.op_id is not None or request.patient or left <= ATTEMPT_S_MIN:
        return deadline
    return now + max(ATTEMPT_S_MIN, left / 2)


def _hedge_at(core: Core, request: Request, now: float, until: float) -> float:
    """When to ask another node beside this one: for plain reads of a key; 0 when there is no time."""
    if request.message_type is not MessageType.GET or request.once:
        return 0.0
    at = now + core.hedging.after_s
    return at if at < until else 0.0


def _safe_to_repeat(request: Request, error: LeafdbError, unknown: bool) -> bool:
    if isinstance(error, NotApplied):
        return error.retryable and (unknown or not request.once)
    if isinstance(error, OutcomeUnknown):
        return bool(request.op_id)
    if isinstance(error, DeadlineExceeded):
        return request.op_id is None
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


def _out_of_time(core: Core, request: Request, unreached: Mapping[NodeState, str]) -> LeafdbError:
    if unreached and len(unreached) == len(core.router.nodes()):
        return _none_reached(unreached)
    stage = "connect" if unreached else "queue"
    return DeadlineExceeded(
        f"the deadline passed in stage {stage}; nothing was sent", stage=stage, required=request.required()
    )


def _none_reached(unreached: Mapping[NodeState, str]) -> ConnectFailed:
    attempts = {str(node.address): reason for node, reason in unreached.items()}
    listing = "; ".join(f"{address}: {reason}" for address, reason in attempts.items())
    return ConnectFailed(f"no node could be reached ({listing})", attempts=attempts)


def _broken(request: Request, node: NodeState, failure: ExchangeFailed) -> LeafdbError:
    """What an exchange that got no answer means."""
    address = str(node.address)
    if isinstance(failure, Expired):
        if request.op_id is not None and failure.sent:
            return _unknown(request, node, f"{address} did not answer before the deadline")
        note = "" if failure.sent else "; nothing was sent"
        return DeadlineExceeded(
            f"the deadline passed in stage {failure.stage} at {address}{note}",
            stage=failure.stage,
            required=request.required(),
            node=address,
        )
    return _unknown(request, node, f"the connection to {address} was lost before it answered: {failure.reason}")


def _unknown(request: Request, node: NodeState, message: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        message, acks=0, required=request.required(), op_id=request.op_id or b"", node=str(node.address)
    )


def _refusal(request: Request, node: NodeState, frame: Frame) -> LeafdbError:
    """The error a node answered with, or what is wrong with its answer."""
    address = str(node.address)
    if frame.type != MessageType.ERROR:
        message = f"{address} answered with message type {frame.type:#04x}"
        if request.op_id is not None:
            return _unknown(request, node, message)
        return ServerBug(message, node=address, request_id=frame.request_id)
    try:
        error = decode_error(frame.body, request_id=frame.request_id)
    except ProtocolError as failure:
        error = ServerBug(f"{address} answered with an error that cannot be read: {failure}")
    if isinstance(error, ProtocolError):
        error = ServerBug(f"{address} did not understand this client: {error}", request_id=frame.request_id)
    if request.op_id is not None:
        if isinstance(error, OutcomeUnknown) and not error.op_id:
            error.op_id = request.op_id
        if isinstance(error, ServerBug) and error.outcome == "none":
            error.outcome = "unknown"
    if error.node is None:
        error.node = address
    return error
