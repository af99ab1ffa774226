"""From an error to an exit code and the lines a person reads: the one place where that is decided.

    0 ok                                         5 unavailable: connect, replicas, overloaded, deadline
    1 failed, bad configuration too              6 unauthorized
    2 usage                                      7 unhealthy (status --check, doctor, damaged files)
    3 no such bucket, key or node                8 plan is stale
    4 conflict, context mismatch                 9 outcome unknown
                                               130 interrupted

Scripts branch on these numbers, so none ever changes its meaning. Two commands add codes that are no errors: a missing
key is 3, and a conflict that was shown is 4 (`Quit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from leafdb.errors import (
    ClientMisuse,
    ConnectFailed,
    ContextMismatch,
    DeadlineExceeded,
    LeafdbError,
    NotApplied,
    OutcomeUnknown,
    Reason,
)
from leafdb_cli.advice import advice_of

API_VERSION: Final = "leafdb/v1"

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
CONFLICT: Final = 4
UNAVAILABLE: Final = 5
UNAUTHORIZED: Final = 6
UNHEALTHY: Final = 7
STALE: Final = 8
OUTCOME_UNKNOWN: Final = 9
INTERRUPTED: Final = 130

WHEN_BACK: Final = "run it again when they are back: leafdb node list says who is away"
"""What to do when some members could not be told."""

BY_REASON: Final[Mapping[Reason, int]] = {
    Reason.OVERLOADED: UNAVAILABLE,
    Reason.DRAINING: UNAVAILABLE,
    Reason.UNAUTHORIZED: UNAUTHORIZED,
    Reason.TOO_LARGE: FAILED,
    Reason.NOT_ENOUGH_REPLICAS: UNAVAILABLE,
    Reason.CONFLICT_LIMIT: CONFLICT,
    Reason.NO_SUCH_BUCKET: NOT_FOUND,
    Reason.BUCKET_EXISTS: FAILED,
    Reason.IMPOSSIBLE_QUORUM: USAGE,
    Reason.BAD_REQUEST: USAGE,
    Reason.CONTEXT_MISMATCH: CONFLICT,
    Reason.WRONG_BUCKET_KIND: USAGE,
    Reason.READ_ONLY: UNAVAILABLE,
    Reason.DISK_FULL: UNAVAILABLE,
    Reason.STALE_EPOCH: UNAVAILABLE,
    Reason.EXPIRED: UNAVAILABLE,
    Reason.NOT_READY: UNAVAILABLE,
    Reason.NO_QUORUM: UNAVAILABLE,
    Reason.UNSUPPORTED: FAILED,
    Reason.FAILED: FAILED,
    Reason.NO_SUCH_MEMBER: NOT_FOUND,
    Reason.NAME_TAKEN: FAILED,
    Reason.BANNED: FAILED,
    Reason.NOTHING_STAGED: FAILED,
    Reason.NO_PLAN: FAILED,
    Reason.PLAN_STALE: STALE,
    Reason.PLAN_IN_PROGRESS: FAILED,
    Reason.WRONG_PHASE: FAILED,
    Reason.CONTROL_SET: FAILED,
    Reason.UNSAFE: FAILED,
    Reason.NO_SUCH_TASK: NOT_FOUND,
    Reason.NO_SUCH_ACCOUNT: NOT_FOUND,
}
"""Every reason has a code: a new one fails a test until somebody has decided."""


class Quit(Exception):
    """A command ends here with this code. `message` says what happened, `hint` what to do next; both go to stderr."""

    def __init__(self, code: int, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def exit_code(error: LeafdbError) -> int:
    """The code a command ends with when this error ends it."""
    match error:
        case OutcomeUnknown():
            return OUTCOME_UNKNOWN
        case NotApplied():
            return BY_REASON[error.reason]
        case ConnectFailed() | DeadlineExceeded():
            return UNAVAILABLE
        case ContextMismatch():
            return CONFLICT
        case ClientMisuse():
            return USAGE
        case _:
            return FAILED


def explanation(error: LeafdbError) -> str:
    """What went wrong, where, what is known of a write, what to do next, and how it came to it, for a person."""
    advice = advice_of(error)
    return "\n".join(
        [account(error), *([f"  {advice}"] if advice else []), *([str(error.explanation)] if error.explanation else [])]
    )


def account(error: LeafdbError) -> str:
    """What went wrong, where, and what is known of a write."""
    lines = [error.message]
    problems = getattr(error, "problems", ())
    if len(problems) > 1:
        lines = [f"{len(problems)} problems:", *(f"  {problem}" for problem in problems)]
    if error.node and error.node not in error.message:
        lines[0] += f" (says {error.node})"
    if isinstance(error, OutcomeUnknown):
        held = f" on {', '.join(error.replicas)}" if error.replicas else ""
        lines.append(f"  the write may or may not live{held}; {error.acks} of {error.required} acknowledged it")
        if error.op_id:
            lines.append(f"  operation id {error.op_id.hex()}")
    return "\n".join(lines)


def error_document(code: int, message: str, hint: str, error: LeafdbError | None = None) -> dict[str, Any]:
    """The same as JSON, which is an interface: the last line of stderr with -o json or jsonl."""
    about: dict[str, Any] = {"code": code, "message": message, "hint": hint}
    if error is not None:
        about |= {
            "type": type(error).__name__,
            "reason": str(error.reason) if isinstance(error, NotApplied) else None,
            "node": error.node,
            "retryable": error.retryable,
            "outcome": error.outcome,
            "op_id": error.op_id.hex() if isinstance(error, OutcomeUnknown) else None,
            "explanation": error.explanation.to_json() if error.explanation is not None else None,
        }
    return {"apiVersion": API_VERSION, "kind": "Error", "error": about}
