"""The hot messages between coordinator and replicas, packed by struct (docs/formats/wire.md).

    REPLICA_PUT        bucket u32 | generation u32 | range epoch u32 | deadline_ms u32 | flags u8 | hint target u16 |
                       key length u16 | key | record
    REPLICA_PUT_REPLY  status u8 | detail (utf-8, mostly empty)
    REPLICA_GET        bucket u32 | generation u32 | range epoch u32 | deadline_ms u32 | flags u8 | key
                       with FLAG_OPERATION an operation id of 16 bytes stands before the key, with FLAG_HORIZON a
                       stamp u64
    REPLICA_GET_REPLY  status u8 | record (when FOUND) or detail; when NEWER_HORIZON: stamp u64; when REPLACED:
                       actor 14 | counter u64 | record, if any

A put carries the merged record, never the client's put: minting a dot is the coordinator's alone. The same bytes go to
every primary, so the frame is built once; a fallback's copy names the absent primary in `hint target`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple


class ReplicaStatus(IntEnum):
    """How a replica answers. The numbers cross the wire."""

    APPLIED = 1
    """A put: the record is merged and as durable as its bucket promises."""
    FOUND = 2
    """A get: the record follows, from a complete primary or a fallback. It counts. A primary that says so vouches for
    what lies below the horizon that was named; of a fallback only what lies above is shown."""
    ABSENT = 3
    """A get: this replica is complete for the range, vouches for what lies below the horizon that was named, and holds
    nothing. Definitive."""
    UNKNOWN = 4
    """A get: this replica may have forgotten something, or is a fallback without a copy. Never counted; the record
    that follows, if one does, is merged all the same. If it does not vouch it shows only what lies above the
    horizon."""
    REFUSED_OVERLOADED = 5
    REFUSED_STALE_EPOCH = 6
    """The sender's epoch of the range is behind the replica's: nothing was applied."""
    REFUSED_EXPIRED = 7
    REFUSED_NO_BUCKET = 8
    REFUSED_NOT_REPLICA = 9
    REFUSED_DISK_FULL = 10
    FAILED = 11
    """The replica cannot say whether it was applied."""
    REPLACED = 12
    """A get that asked about an operation: it was here, under the dot that follows, and was replaced since. The record
    follows after that, if there is one. It does not count."""
    NEWER_HORIZON = 13
    """A get: this replica has heard of a newer horizon of the partition than the get names, which follows. What others
    say counts only when they have been asked by that one, and so does what this one has."""


NOT_APPLIED_STATUSES: Final = frozenset(
    {
        ReplicaStatus.REFUSED_OVERLOADED,
        ReplicaStatus.REFUSED_STALE_EPOCH,
        ReplicaStatus.REFUSED_EXPIRED,
        ReplicaStatus.REFUSED_NO_BUCKET,
        ReplicaStatus.REFUSED_NOT_REPLICA,
        ReplicaStatus.REFUSED_DISK_FULL,
    }
)

FLAG_REPAIR: Final = 1
"""The put is a read repair or a write-back: lower priority under load."""
FLAG_DURABLE: Final = 2
"""Acknowledge after the sync, even where the bucket is periodic."""
FLAG_OPERATION: Final = 4
"""Of a get: it asks for the record because of an operation, which it names."""
FLAG_HORIZON: Final = 8
"""Of a get: it names the newest horizon of the partition that its coordinator knows. Without it there is none. Not with
FLAG_OPERATION: such a get names none, and is told of none."""
OP_ID_BYTES: Final = 16

_PUT: Final = struct.Struct(">IIIIBHH")
_GET: Final = struct.Struct(">IIIIB")
_STAMP: Final = struct.Struct(">Q")
_DOT: Final = struct.Struct(">14sQ")


class ReplicaPut(NamedTuple):
    """A merged record for a replica to merge in; `hint_target` is 0 for a primary's own copy."""

    bucket_id: int
    generation: int
    range_epoch: int
    deadline_ms: int
    flags: int
    hint_target: int
    key: bytes
    record: bytes


class ReplicaGet(NamedTuple):
    """A request for one replica's record of a key."""

    bucket_id: int
    generation: int
    range_epoch: int
    deadline_ms: int
    flags: int
    key: bytes
    op_id: bytes = b""
    horizon: int = 0


class MalformedMessage(ValueError):
    """A body that is not what its type says."""


def encode_replica_put(
    bucket_id: int,
    generation: int,
    range_epoch: int,
    deadline_ms: int,
    flags: int,
    hint_target: int,
    key: bytes,
    record: bytes,
) -> bytes:
    """The body of a REPLICA_PUT frame."""
    head = _PUT.pack(bucket_id, generation, range_epoch, deadline_ms, flags, hint_target, len(key))
    return b"".join((head, key, record))


def decode_replica_put(body: bytes) -> ReplicaPut:
    """The put of a REPLICA_PUT body; MalformedMessage when it is not one."""
    if len(body) < _PUT.size:
        raise MalformedMessage("a replica put that is too short")
    bucket_id, generation, range_epoch, deadline_ms, flags, hint_target, key_length = _PUT.unpack_from(body)
    record_at = _PUT.size + key_length
    if record_at >= len(body):
        raise MalformedMessage("a replica put without a record")
    return ReplicaPut(
        bucket_id,
        generation,
        range_epoch,
        deadline_ms,
        flags,
        hint_target,
        body[_PUT.size : record_at],
        body[record_at:],
    )


def encode_replica_get(
    bucket_id: int,
    generation: int,
    range_epoch: int,
    deadline_ms: int,
    flags: int,
    key: bytes,
    op_id: bytes = b"",
    horizon: int = 0,
) -> bytes:
    """The body of a REPLICA_GET frame. `op_id` and `horizon` are what is asked about, if `flags` say so."""
    head = _GET.pack(bucket_id, generation, range_epoch, deadline_ms, flags)
    return head + (_STAMP.pack(horizon) if horizon else op_id) + key


def decode_replica_get(body: bytes) -> ReplicaGet:
    """The get of a REPLICA_GET body; MalformedMessage when it is not one."""
    if len(body) < _GET.size:
        raise MalformedMessage("a replica get that is too short")
    bucket_id, generation, range_epoch, deadline_ms, flags = _GET.unpack_from(body)
    key_at = _GET.size
    if flags & (FLAG_OPERATION | FLAG_HORIZON):
        if flags & FLAG_OPERATION and flags & FLAG_HORIZON:
            raise MalformedMessage("a replica get that asks about two things")
        key_at += OP_ID_BYTES if flags & FLAG_OPERATION else _STAMP.size
    if len(body) <= key_at:
        raise MalformedMessage("a replica get without a key")
    about = body[_GET.size : key_at]
    if flags & FLAG_HORIZON:
        (horizon,) = _STAMP.unpack(about)
        if not horizon:
            raise MalformedMessage("a replica get about no horizon")
        return ReplicaGet(bucket_id, generation, range_epoch, deadline_ms, flags, body[key_at:], horizon=horizon)
    return ReplicaGet(bucket_id, generation, range_epoch, deadline_ms, flags, body[key_at:], about)


def encode_reply(status: ReplicaStatus, rest: bytes = b"") -> bytes:
    """The body of a REPLICA_PUT_REPLY or REPLICA_GET_REPLY frame."""
    return _STATUS_BYTES[status] + rest


def decode_reply(body: bytes) -> tuple[ReplicaStatus, bytes]:
    """(status, rest) of a reply body; MalformedMessage when it is not one."""
    if not body or body[0] not in _STATUS_OF:
        raise MalformedMessage("a replica reply without a known status")
    return _STATUS_OF[body[0]], body[1:]


def encode_replaced(actor: bytes, counter: int, record: bytes) -> bytes:
    """The rest of a REPLACED reply: the dot that the operation had, and the record there is now (empty: none)."""
    return _DOT.pack(actor, counter) + record


def decode_replaced(rest: bytes) -> tuple[bytes, int, bytes]:
    """(actor, counter, record) of such a rest; MalformedMessage when it is none."""
    if len(rest) < _DOT.size:
        raise MalformedMessage("a reply about an operation that is too short")
    actor, counter = _DOT.unpack_from(rest)
    return actor, counter, rest[_DOT.size :]


def encode_newer_horizon(stamp: int) -> bytes:
    """The rest of a NEWER_HORIZON reply."""
    return _STAMP.pack(stamp)


def decode_newer_horizon(rest: bytes) -> int:
    """The stamp in such a rest; MalformedMessage when it is none."""
    if len(rest) != _STAMP.size or not any(rest):
        raise MalformedMessage("a reply that names no horizon")
    return int.from_bytes(rest, "big")


_STATUS_BYTES: Final = {status: bytes((status,)) for status in ReplicaStatus}
_STATUS_OF: Final = {int(status): status for status in ReplicaStatus}
