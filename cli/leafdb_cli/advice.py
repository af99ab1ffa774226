"""What to do about an error, in a line: a tired person reads what happened, and then what to type.

Every reason for which a node may refuse has a line here, and so has every kind of error that a client raises; a new
one fails a test until somebody has thought about it. A message that is made in one place for one cause carries its
own advice (`Quit`), and so does a refusal whose message already says what to do: its line here is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from leafdb.errors import (
    ClientMisuse,
    ConfigError,
    ConnectFailed,
    ContextMismatch,
    DataError,
    DeadlineExceeded,
    LeafdbError,
    NotApplied,
    OpenFailed,
    OutcomeUnknown,
    ProtocolError,
    Reason,
    ServerBug,
)

AGAIN: Final = "nothing was applied; trying again may help"

BY_REASON: Final[Mapping[Reason, str]] = {
    Reason.OVERLOADED: f"{AGAIN}. leafdb top shows which node is busy, and with what",
    Reason.DRAINING: f"{AGAIN}, at another node: --node takes several with commas",
    Reason.UNAUTHORIZED: "LEAFDB_USER with LEAFDB_PASSWORD_FILE, or LEAFDB_TOKEN_FILE, say who you are; leafdb user "
    "show USER tells an administrator what somebody may do",
    Reason.NO_SUCH_ACCOUNT: "leafdb user list, role list and token list name those there are",
    Reason.TOO_LARGE: "split the value, or keep it elsewhere and its address here",
    Reason.NOT_ENOUGH_REPLICAS: f"{AGAIN}. leafdb status says who is away; a smaller --r or --w waits for fewer",
    Reason.CONFLICT_LIMIT: "merge them: leafdb kv siblings shows them, leafdb kv put --after CTX replaces them",
    Reason.NO_SUCH_BUCKET: "leafdb bucket list names the buckets, leafdb bucket create makes one",
    Reason.BUCKET_EXISTS: "leafdb bucket show says what it is like; --exist-ok takes one with equal properties",
    Reason.IMPOSSIBLE_QUORUM: "leafdb bucket show says how many replicas it has: none of r, w, pr, pw, dw may be more",
    Reason.BAD_REQUEST: "put it in another way: --help behind the command says what it takes",
    Reason.CONTEXT_MISMATCH: "read the key again (leafdb kv siblings) and give that context",
    Reason.WRONG_BUCKET_KIND: "leafdb bucket show says of which kind the bucket is: siblings or lww",
    Reason.READ_ONLY: "leafdb status says why; reads are answered meanwhile",
    Reason.DISK_FULL: "make room on that disk, or add a node: leafdb storage stats says how full each is",
    Reason.STALE_EPOCH: AGAIN,
    Reason.EXPIRED: "the time was over before it was begun: a longer --timeout, or leafdb top for who is slow",
    Reason.NOT_READY: f"{AGAIN} in a moment. A node that is in no cluster yet: leafdb cluster init, or stage join",
    Reason.NO_QUORUM: "leafdb cluster status names the control set: bring a majority of it back. Keys are served "
    "meanwhile. If it is lost for good: leafdb cluster recover",
    Reason.UNSUPPORTED: "leafdb node list says which version each node has, leafdb version which this is",
    Reason.FAILED: "the node's log says more, and leafdb doctor may say why",
    Reason.NO_SUCH_MEMBER: "leafdb node list names the members",
    Reason.NAME_TAKEN: "give the newcomer another node.name: leafdb node list has those that are taken",
    Reason.BANNED: "who was removed never comes back as it was: start it with an empty directory and let it join",
    Reason.NOTHING_STAGED: "stage a change first: leafdb cluster stage --help",
    Reason.NO_PLAN: "leafdb ring history shows how the last one ended",
    Reason.PLAN_STALE: "look at what is staged now and commit that: leafdb cluster plan",
    Reason.PLAN_IN_PROGRESS: "follow it with leafdb transfer list --watch, or give it up with leafdb cluster abort",
    Reason.WRONG_PHASE: "leafdb transfer list says how far the plan is",
    Reason.CONTROL_SET: "leafdb cluster status names the control set",
    Reason.UNSAFE: "bring the owners of those ranges back first; or --force, and what they alone hold is lost",
    Reason.NO_SUCH_TASK: "leafdb task list names the tasks; one that has ended needs no cancelling",
}
"""What to do about a refusal."""


def advice_of(error: LeafdbError) -> str:
    """What to do next; empty where the message says it, as those about a setting or a URL do."""
    match error:
        case OutcomeUnknown():
            if not error.op_id:
                return "read the key before you write it again"
            return f"leafdb kv outcome {error.op_id.hex()} says what became of it"
        case NotApplied():
            return BY_REASON[error.reason]
        case ConnectFailed():
            return "is leafdbd running there? leafdb context show says what gave this address; --node names another"
        case DeadlineExceeded():
            return "leafdb status says who is away, leafdb top who is slow; --timeout gives it longer"
        case ContextMismatch():
            return "read the key again (leafdb kv siblings) and give that context"
        case ProtocolError():
            return (
                "does a leafdbd of a like version listen there, at its client port? leafdb version says which this is"
            )
        case ServerBug():
            return "please report it with this message and the log of that node"
        case DataError():
            return "nothing was changed; mend that data, and run the same command again"
        case OpenFailed():
            return "no other process may have that directory open, and it must be yours to write"
        case ConfigError() | ClientMisuse():
            return ""
        case _:
            return "leafdb doctor may say why"
