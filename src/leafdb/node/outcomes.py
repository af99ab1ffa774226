"""From what a replica or the engine says to what a client or a coordinator is told. One table, both directions."""

from __future__ import annotations

from leafdb.errors import DiskFull, LeafdbError, NotApplied, OutcomeUnknown, Overloaded, Reason, ServerBug, StorageError
from leafdb.model.hlc import LeaseExhausted
from leafdb.model.record import ConflictLimit, RecordError, RecordTooLarge
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.left_out import LeftOut
from leafdb.node.op_memory import OperationForgotten
from leafdb.quorum.messages import ReplicaStatus
from leafdb.storage.reads import ReadsOverloaded


def refusal_of(error: Exception) -> LeafdbError:
    """The typed error for a local write or read that changed nothing."""
    match error:
        case ReplicaOverloaded(retry_after_s=retry_after_s):
            return Overloaded("this node has too much to do", retry_after=retry_after_s)
        case LeaseExhausted() | ReadsOverloaded():
            return Overloaded("this node has too much to do", retry_after=0.05)
        case ConflictLimit():
            return NotApplied(str(error), reason=Reason.CONFLICT_LIMIT)
        case RecordTooLarge():
            return NotApplied(str(error), reason=Reason.TOO_LARGE)
        case DiskFull():
            return NotApplied(str(error), reason=Reason.DISK_FULL)
        case LeftOut():
            return NotApplied(str(error), reason=Reason.STALE_EPOCH)
        case OperationForgotten(op_id=op_id):
            return OutcomeUnknown(str(error), acks=0, required=1, op_id=op_id)
        case RecordError() | ValueError():
            return ServerBug(f"a record here cannot be read: {error}")
        case StorageError():
            return NotApplied(str(error), reason=Reason.FAILED)
        case LeafdbError():
            return error
        case _:
            raise error


def status_of(error: Exception) -> ReplicaStatus:
    """What a replica tells its coordinator about a merge that did not happen, or may not have."""
    match error:
        case ReplicaOverloaded() | LeaseExhausted() | ReadsOverloaded():
            return ReplicaStatus.REFUSED_OVERLOADED
        case DiskFull():
            return ReplicaStatus.REFUSED_DISK_FULL
        case LeftOut():
            return ReplicaStatus.REFUSED_STALE_EPOCH
        case _:
            return ReplicaStatus.FAILED
