"""The error tree: whose fault it is, whether anything was applied, whether to try again.

    LeafdbError
      ConfigError            a setting, URL, codec or policy that cannot work           (yours, before any I/O)
      ClientMisuse           the API used in a way it refuses                            (yours, before any I/O)
      ContextMismatch        a context of another bucket or key                          (yours, before any I/O)
      DataError              a stored value the codec cannot read, or one it cannot write
      OpenFailed             an embedded node that could not start
      ConnectFailed          no address answered
      NotApplied             provably nothing happened; `.reason` says why
        NotEnoughReplicas    too few replicas alive or complete
        Overloaded           refused at once; `.retry_after` seconds
      OutcomeUnknown         a write that may or may not live on some replicas           (also a TimeoutError)
      DeadlineExceeded       a read, or a request of which nothing was sent              (also a TimeoutError)
      CompareFailed          a compare-and-set that lost
      ServerBug              leafdb itself is wrong

Storage has its own branch, which never crosses the wire as it is: see `StorageError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from leafdb.explanation import Explanation

Outcome = Literal["not_applied", "unknown", "none"]


class Reason(StrEnum):
    """Why a request was refused. The names are public and cross the wire; they never change meaning."""

    OVERLOADED = "overloaded"
    DRAINING = "draining"
    UNAUTHORIZED = "unauthorized"
    TOO_LARGE = "too_large"
    NOT_ENOUGH_REPLICAS = "not_enough_replicas"
    CONFLICT_LIMIT = "conflict_limit"
    NO_SUCH_BUCKET = "no_such_bucket"
    BUCKET_EXISTS = "bucket_exists"
    IMPOSSIBLE_QUORUM = "impossible_quorum"
    BAD_REQUEST = "bad_request"
    CONTEXT_MISMATCH = "context_mismatch"
    WRONG_BUCKET_KIND = "wrong_bucket_kind"
    READ_ONLY = "read_only"
    DISK_FULL = "disk_full"
    STALE_EPOCH = "stale_epoch"
    EXPIRED = "expired"
    NOT_READY = "not_ready"
    NO_QUORUM = "no_quorum"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"
    NO_SUCH_MEMBER = "no_such_member"
    NAME_TAKEN = "name_taken"
    BANNED = "banned"
    NOTHING_STAGED = "nothing_staged"
    NO_PLAN = "no_plan"
    PLAN_STALE = "plan_stale"
    PLAN_IN_PROGRESS = "plan_in_progress"
    WRONG_PHASE = "wrong_phase"
    CONTROL_SET = "control_set"
    UNSAFE = "unsafe"
    NO_SUCH_TASK = "no_such_task"
    NO_SUCH_ACCOUNT = "no_such_account"


RETRYABLE_REASONS = frozenset(
    {Reason.OVERLOADED, Reason.DRAINING, Reason.NOT_ENOUGH_REPLICAS, Reason.STALE_EPOCH, Reason.NOT_READY}
)


class LeafdbError(Exception):
    """Base of everything leafdb raises.

    Attributes: `retryable` whether the same call may succeed later; `node` the name or address of the node that
    answered, if any; `request_id` the request's number on its connection; `outcome` what is known of a write;
    `explanation` how an explained call came to this, if a node could be heard.
    """

    retryable: bool = False
    outcome: Outcome = "none"
    explanation: Explanation | None = None

    def __init__(self, message: str, *, node: str | None = None, request_id: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self.request_id = request_id


class ConfigError(LeafdbError):
    """A setting, URL, codec or policy that cannot work. `problems` lists every one found, with dotted paths."""

    def __init__(self, message: str, *, problems: Sequence[str] = (), node: str | None = None) -> None:
        super().__init__(message, node=node)
        self.problems: tuple[str, ...] = tuple(problems)


class ClientMisuse(LeafdbError):
    """The API was used in a way it refuses; nothing was sent."""


class ContextMismatch(LeafdbError):
    """A context was used on another bucket or key than the one it was read from; nothing was sent."""


class DataError(LeafdbError):
    """A codec could not encode the given value or decode the stored one."""


class OpenFailed(LeafdbError):
    """An embedded node could not start on `path`; `reason` says why."""

    def __init__(self, message: str, *, path: str, reason: str) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


class ConnectFailed(LeafdbError):
    """No address answered; `attempts` maps each address to its reason."""

    retryable = True
    outcome: Outcome = "not_applied"

    def __init__(self, message: str, *, attempts: Mapping[str, str] | None = None, node: str | None = None) -> None:
        super().__init__(message, node=node)
        self.attempts: dict[str, str] = dict(attempts or {})


class NotApplied(LeafdbError):
    """Provably nothing was applied on any replica; `reason` says why."""

    outcome: Outcome = "not_applied"

    def __init__(self, message: str, *, reason: Reason, node: str | None = None, request_id: int | None = None) -> None:
        super().__init__(message, node=node, request_id=request_id)
        self.reason = reason
        self.retryable: bool = reason in RETRYABLE_REASONS


class NotEnoughReplicas(NotApplied):
    """Fewer replicas than the request needs are alive (`alive` of `required`)."""

    def __init__(
        self, message: str, *, alive: int, required: int, node: str | None = None, request_id: int | None = None
    ) -> None:
        super().__init__(message, reason=Reason.NOT_ENOUGH_REPLICAS, node=node, request_id=request_id)
        self.alive = alive
        self.required = required


class Overloaded(NotApplied):
    """Refused before any work was started; try again after `retry_after` seconds."""

    def __init__(
        self, message: str, *, retry_after: float, node: str | None = None, request_id: int | None = None
    ) -> None:
        super().__init__(message, reason=Reason.OVERLOADED, node=node, request_id=request_id)
        self.retry_after = retry_after


class OutcomeUnknown(LeafdbError, TimeoutError):
    """A write whose fate is not known: it may live on some replicas and may surface later.

    Attributes: `acks` acknowledgements seen of `required`; `replicas` names of those that may hold it; `op_id` the
    write's operation id.
    """

    outcome: Outcome = "unknown"

    def __init__(
        self,
        message: str,
        *,
        acks: int,
        required: int,
        replicas: Sequence[str] = (),
        op_id: bytes = b"",
        node: str | None = None,
        request_id: int | None = None,
    ) -> None:
        super().__init__(message, node=node, request_id=request_id)
        self.acks = acks
        self.required = required
        self.replicas: tuple[str, ...] = tuple(replicas)
        self.op_id = op_id


class DeadlineExceeded(LeafdbError, TimeoutError):
    """The deadline passed on a read, or before a byte of a write was sent. `stage` is where the time went."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        stage: str,
        got: int = 0,
        required: int = 0,
        node: str | None = None,
        request_id: int | None = None,
    ) -> None:
        super().__init__(message, node=node, request_id=request_id)
        self.stage = stage
        self.got = got
        self.required = required


class ServerBug(LeafdbError):
    """leafdb broke one of its own rules; please report it with the message."""


class ProtocolError(LeafdbError):
    """The other side of a connection broke the wire protocol; the session closes, the node lives."""


class StorageError(LeafdbError):
    """Base of what the storage engine raises; `path` is the file concerned."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class CorruptionError(StorageError):
    """Bytes on disk are not what was written there. `offset` is where in `path`."""

    def __init__(self, message: str, *, path: str = "", offset: int = 0) -> None:
        super().__init__(message, path=path)
        self.offset = offset


class StoreFailed(StorageError):
    """The store met an error it must not outlive (a failed write or sync): it serves nothing any more."""


class DiskFull(StorageError):
    """The store has no room and takes no new writes; nothing of the refused write was applied."""


class StoreLocked(StorageError):
    """Another process holds the data directory."""


class UnknownFormat(StorageError):
    """A file of a format version this build does not know; it is left alone."""
