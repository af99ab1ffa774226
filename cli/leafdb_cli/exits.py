"""From an error to an exit code and the lines a person reads: the one place where that is decided.

    0 ok                                         5 unavailable: connect, replicas, overloaded, deadline
    1 failed, bad configuration too              6 unauthorized
    2 usage                                      7 unhealthy (status --check, damaged files)
    3 no such bucket, key or node                8 plan is stale
    4 conflict, context mismatch                 9 outcome unknown
                                               130 interrupted

Scripts branch on these numbers, so none ever changes its meaning. Two commands add codes that are no errors: a missing
key is 3, and a conflict that was shown is 4 (`Quit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

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


ADVICE: Final[Mapping[Reason, str]] = {
    Reason.UNAUTHORIZED: "LEAFDB_USER with LEAFDB_PASSWORD_FILE, or LEAFDB_TOKEN_FILE, say who you are; leafdb user "
    "show USER tells an administrator what somebody may do",
    Reason.NO_SUCH_ACCOUNT: "leafdb user list, role list and token list name those there are",
    Reason.NO_SUCH_MEMBER: "leafdb node list names the members",
    Reason.NO_SUCH_TASK: "leafdb repair status lists the tasks; one that has ended needs no cancelling",
    Reason.BANNED: "who was removed never comes back as it was: start it with an empty directory and let it join",
    Reason.NOTHING_STAGED: "stage a change first: leafdb cluster stage --help",
    Reason.NO_PLAN: "leafdb ring history shows how the last one ended",
    Reason.PLAN_STALE: "look at what is staged now and commit that: leafdb cluster plan",
    Reason.PLAN_IN_PROGRESS: "follow it with leafdb transfer list --watch, or give it up with leafdb cluster abort",
    Reason.UNSAFE: "bring the owners of those ranges back first; or --force, and what they alone hold is lost",
    Reason.NO_QUORUM: "leafdb cluster status names the control set: bring a majority of it back. Keys are served "
    "meanwhile. If it is lost for good: leafdb cluster recover",
}
"""What to do about a refusal, where that is not what its message says."""


class Quit(Exception):
    """A command ends here with this code; `message`, when there is one, goes to stderr."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


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
    """What went wrong, where, and what is known of a write, for a person."""
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
    elif isinstance(error, NotApplied):
        if error.retryable:
            lines.append("  nothing was applied; trying again may help")
        if (advice := ADVICE.get(error.reason)) is not None:
            lines.append(f"  {advice}")
    if error.explanation is not None:
        lines.append(str(error.explanation))
    return "\n".join(lines)
