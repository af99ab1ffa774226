"""ERROR bodies: how an exception crosses the wire and becomes the same exception on the other side.

    {"kind": which class, "reason": Reason, "message": text, "outcome": "not_applied" | "unknown" | "none", "node":
     text, ... and what that class carries: alive required retry_after acks replicas op_id stage got problems refusal}

Rules:

- Only the public tree of errors.py crosses, and only its declared attributes. Anything else (a storage error with a
  path in it, a ValueError with half a value in its text) crosses as a bare "internal error" of class ServerBug: what an
  exception of ours may quote is nobody's business.
- `outcome` is what matters most to whoever reads it: a decoder that knows neither `kind` nor `reason` still keeps it.
- Reading never fails with anything but ProtocolError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from leafdb.codec.fields import bytes_field, int_field, list_field
from leafdb.errors import (
    ClientMisuse,
    ConfigError,
    ConnectFailed,
    ContextMismatch,
    DataError,
    DeadlineExceeded,
    DiskFull,
    LeafdbError,
    NotApplied,
    NotEnoughReplicas,
    Outcome,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Reason,
    ServerBug,
)
from leafdb.limits import NODES_MAX
from leafdb.quorum.messages import MalformedMessage
from leafdb.wire import explanations
from leafdb.wire.body import decode_map, encode_map, refusing, text_field

PEER_FAULTS: Final = (ProtocolError, MalformedMessage)
"""What a handler raises when the other side sent what it may not: the session ends, the node does not."""
MESSAGE_CHARS_MAX: Final = 1_000
PROBLEMS_MAX: Final = 100
_REASONS: Final[Mapping[str, Reason]] = {reason.value: reason for reason in Reason}
_OUTCOMES: Final[Mapping[str, Outcome]] = {"not_applied": "not_applied", "unknown": "unknown", "none": "none"}


class HandshakeRefused(ProtocolError):
    """One side would not have the other. `refusal` says why: a `hello.Refusal`, or what the node's `admit` said."""

    def __init__(self, message: str, *, refusal: str, node: str | None = None) -> None:
        super().__init__(message, node=node)
        self.refusal = refusal


def encode_error(error: BaseException, *, node: str = "") -> bytes:
    """The body of an ERROR frame that tells `error` and nothing it should not tell."""
    if isinstance(error, DiskFull):
        error = NotApplied("the node's disk is full", reason=Reason.DISK_FULL)
    kind, reason, extra = _describe(error)
    public = isinstance(error, LeafdbError) and kind != "server_bug"
    message = str(error) if public or isinstance(error, ServerBug) else f"internal error: {type(error).__name__}"
    outcome = error.outcome if isinstance(error, LeafdbError) else "none"
    return encode_map(
        {
            "kind": kind,
            "reason": reason.value,
            "message": message[:MESSAGE_CHARS_MAX],
            "outcome": outcome,
            "node": (error.node if isinstance(error, LeafdbError) else None) or node,
            **extra,
        }
    )


def _describe(error: BaseException) -> tuple[str, Reason, dict[str, object]]:
    """(kind, reason, what the class carries). More derived classes come first."""
    match error:
        case NotEnoughReplicas():
            return "not_enough_replicas", error.reason, {"alive": error.alive, "required": error.required}
        case Overloaded():
            return "overloaded", error.reason, {"retry_after": float(error.retry_after)}
        case NotApplied():
            return "not_applied", error.reason, {}
        case OutcomeUnknown():
            return (
                "outcome_unknown",
                Reason.FAILED,
                {
                    "acks": error.acks,
                    "required": error.required,
                    "replicas": list(error.replicas),
                    "op_id": error.op_id,
                },
            )
        case DeadlineExceeded():
            return (
                "deadline_exceeded",
                Reason.EXPIRED,
                {"stage": error.stage, "got": error.got, "required": error.required},
            )
        case ConfigError():
            return "config_error", Reason.UNSUPPORTED, {"problems": [text[:200] for text in error.problems]}
        case ContextMismatch():
            return "context_mismatch", Reason.CONTEXT_MISMATCH, {}
        case ClientMisuse():
            return "client_misuse", Reason.BAD_REQUEST, {}
        case DataError():
            return "data_error", Reason.BAD_REQUEST, {}
        case HandshakeRefused():
            return "handshake_refused", Reason.UNAUTHORIZED, {"refusal": error.refusal}
        case ProtocolError():
            return "protocol_error", Reason.BAD_REQUEST, {}
        case ConnectFailed():
            return "connect_failed", Reason.NOT_READY, {}
        case _:
            return "server_bug", Reason.FAILED, {}


@refusing("an error")
def decode_error(body: bytes, *, request_id: int | None = None) -> LeafdbError:
    """The exception an ERROR body tells of, to be raised or handed on. A class or reason this build does not know
    becomes a ServerBug that keeps the message and the outcome."""
    fields = decode_map(body, "an error")
    kind = text_field(fields, "kind", chars_max=64) if "kind" in fields else ""
    reason = text_field(fields, "reason", chars_max=64)
    message = text_field(fields, "message", chars_max=MESSAGE_CHARS_MAX)
    outcome = _OUTCOMES.get(text_field(fields, "outcome", chars_max=16))
    if outcome is None:
        raise ValueError("outcome is not one of the three")
    node = text_field(fields, "node", chars_max=256) or None
    error = _build(kind or _kind_of(reason, outcome, fields), reason, message, fields)
    error.outcome = outcome
    error.node = node
    error.request_id = request_id
    if explanations.FIELD in fields:
        error.explanation = explanations.readable(fields[explanations.FIELD])
    return error


def _kind_of(reason: str, outcome: Outcome, fields: Mapping[str, Any]) -> str:
    """The class a sender meant who named none."""
    if outcome == "unknown":
        return "outcome_unknown"
    if outcome == "not_applied":
        return reason if reason in ("not_enough_replicas", "overloaded") else "not_applied"
    return "deadline_exceeded" if "stage" in fields else "server_bug"


def _build(kind: str, reason: str, message: str, fields: Mapping[str, Any]) -> LeafdbError:
    match kind:
        case "not_enough_replicas":
            return NotEnoughReplicas(message, alive=_count(fields, "alive"), required=_count(fields, "required"))
        case "overloaded":
            return Overloaded(message, retry_after=_seconds(fields, "retry_after"))
        case "not_applied" if reason in _REASONS:
            return NotApplied(message, reason=_REASONS[reason])
        case "outcome_unknown":
            return OutcomeUnknown(
                message,
                acks=_count(fields, "acks"),
                required=_count(fields, "required"),
                replicas=_texts(fields, "replicas", items_max=NODES_MAX),
                op_id=bytes_field(fields, "op_id", high=16) if "op_id" in fields else b"",
            )
        case "deadline_exceeded":
            stage = text_field(fields, "stage", chars_max=256) if "stage" in fields else ""
            return DeadlineExceeded(
                message, stage=stage, got=_count(fields, "got"), required=_count(fields, "required")
            )
        case "config_error":
            return ConfigError(message, problems=_texts(fields, "problems", items_max=PROBLEMS_MAX))
        case "handshake_refused":
            return HandshakeRefused(message, refusal=text_field(fields, "refusal", chars_max=64))
        case "connect_failed":
            return ConnectFailed(message)
        case _ if kind in _PLAIN:
            return _PLAIN[kind](message)
        case "server_bug":
            return ServerBug(message)
        case _:
            return ServerBug(f"{message} (reason {reason!r})")


_PLAIN: Final[Mapping[str, type[LeafdbError]]] = {
    "context_mismatch": ContextMismatch,
    "client_misuse": ClientMisuse,
    "data_error": DataError,
    "protocol_error": ProtocolError,
}


def _count(fields: Mapping[str, Any], name: str) -> int:
    return int_field(fields, name, high=1 << 32) if name in fields else 0


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name, 0.0)
    if type(value) not in (int, float) or not 0.0 <= value <= 86_400.0:
        raise ValueError(f"{name} is not a number of seconds")
    return float(value)


def _texts(fields: Mapping[str, Any], name: str, *, items_max: int) -> Sequence[str]:
    if name not in fields:
        return ()
    items = list_field(fields, name, items_max=items_max)
    if not all(type(item) is str for item in items):
        raise ValueError(f"{name} is not a list of texts")
    return items
