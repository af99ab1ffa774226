"""The hot client messages: put, get and their answers, packed by struct because a CBOR map costs several microseconds.

Bodies (big-endian), drawn with a worked example in docs/formats/wire.md:

    PUT        bucket u32 | generation u32 | epoch u32 | deadline_ms u32 | flags u8 | w u8 | pw u8 | dw u8 |
               ttl_ms u64 | op_id 16 | key length u16 | context length u16 | [floor] | key | context | value
    PUT_REPLY  epoch u32 | acks u8 | primaries u8 | context
    GET        bucket u32 | generation u32 | epoch u32 | deadline_ms u32 | flags u8 | r u8 | pr u8 | [floor] | key
    GET_REPLY  epoch u32 | siblings u16 | context length u16 | context | sibling heads | values
               sibling head: actor 14 | counter u64 | stamp u64 | value length u32

`key` is an encoded key (docs/formats/key.md), `context` a sealed context (docs/formats/context.md) or empty. Quorum
numbers: 0 the bucket's own, 1 to 16 literal, 254 "quorum", 255 "all"; for pw, dw and pr 253 says "none at all".
`epoch` in a request is the newest metadata epoch its sender knows (0: none), in an answer the node's. The floor of a
session (wire/session_floor.py) is there when the flags say so.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from leafdb.errors import ProtocolError
from leafdb.wire.session_floor import decode_floor, encode_floor

FLAG_DELETE: Final = 1
FLAG_SLOPPY: Final = 2
FLAG_STRICT: Final = 4
FLAG_BLIND: Final = 8
FLAG_LOCAL: Final = 16
FLAG_LWW: Final = 32
"""Set by a handle of the wrong or right kind: the node refuses a put whose kind is not the bucket's."""
FLAG_RETRY: Final = 64
"""Of a put: it may have been applied already, under this operation id, by a node that was asked before."""
FLAG_EXPLAIN: Final = 128
"""The answer, an error too, is to carry an explanation (wire/explanations.py)."""
FLAG_FLOOR: Final = 64
"""In a GET: the session's floor comes before the key. Only the encoder sets it; a decoded request has it or not."""
FLAG_FOLLOWS: Final = 16
"""The same in a PUT, which has no use for FLAG_LOCAL."""

QUORUM_DEFAULT: Final = 0
QUORUM_NONE: Final = 253
QUORUM_MAJORITY: Final = 254
QUORUM_ALL: Final = 255

_PUT: Final = struct.Struct(">IIIIBBBBQ16sHH")
_PUT_REPLY: Final = struct.Struct(">IBB")
_GET: Final = struct.Struct(">IIIIBBB")
_GET_REPLY: Final = struct.Struct(">IHH")
_SIBLING: Final = struct.Struct(">14sQQI")
_DEADLINE: Final = struct.Struct(">I")
_DEADLINE_OFFSET: Final = 12


class PutRequest(NamedTuple):
    """A put or delete as a client asks for it."""

    bucket_id: int
    generation: int
    epoch: int
    deadline_ms: int
    flags: int
    w: int
    pw: int
    dw: int
    ttl_ms: int
    op_id: bytes
    key: bytes
    context: bytes
    value: bytes
    floor: tuple[bytes, ...] = ()


class PutReply(NamedTuple):
    """A put that reached its quorum: `acks` replicas hold it, `primaries` of them primaries."""

    epoch: int
    acks: int
    primaries: int
    context: bytes


class GetRequest(NamedTuple):
    """A get as a client asks for it."""

    bucket_id: int
    generation: int
    epoch: int
    deadline_ms: int
    flags: int
    r: int
    pr: int
    key: bytes
    floor: tuple[bytes, ...] = ()


class SiblingReply(NamedTuple):
    """One live value: its dot (actor, counter), its hybrid stamp, its bytes."""

    actor: bytes
    counter: int
    stamp: int
    value: bytes


class GetReply(NamedTuple):
    """The live siblings in dot order (none: missing) and the sealed context that covers what was seen."""

    epoch: int
    context: bytes
    siblings: tuple[SiblingReply, ...]


def encode_put(request: PutRequest) -> bytes:
    """The body of a PUT frame."""
    bucket, generation, epoch, deadline_ms, flags, w, pw, dw, ttl_ms, op_id, key, context, value, floor = request
    floor_bytes = b""
    if floor:
        flags, floor_bytes = flags | FLAG_FOLLOWS, encode_floor(floor)
    head = _PUT.pack(bucket, generation, epoch, deadline_ms, flags, w, pw, dw, ttl_ms, op_id, len(key), len(context))
    return b"".join((head, floor_bytes, key, context, value))


def decode_put(body: bytes) -> PutRequest:
    """The request of a PUT or FORWARD_PUT body; ProtocolError when it is malformed."""
    try:
        bucket, generation, epoch, deadline_ms, flags, w, pw, dw, ttl_ms, op_id, key_length, context_length = (
            _PUT.unpack_from(body)
        )
    except struct.error:
        raise ProtocolError("a put that is too short") from None
    floor: tuple[bytes, ...] = ()
    key_at = _PUT.size
    if flags & FLAG_FOLLOWS:
        flags &= ~FLAG_FOLLOWS
        floor, key_at = decode_floor(body, key_at)
    context_at = key_at + key_length
    value_at = context_at + context_length
    if value_at > len(body):
        raise ProtocolError("a put whose parts are longer than its body")
    return PutRequest(
        bucket, generation, epoch, deadline_ms, flags, w, pw, dw, ttl_ms, op_id,
        body[key_at:context_at], body[context_at:value_at], body[value_at:], floor,
    )  # fmt: skip


def encode_put_reply(epoch: int, acks: int, primaries: int, context: bytes) -> bytes:
    """The body of a PUT_REPLY frame."""
    return _PUT_REPLY.pack(epoch, acks, primaries) + context


def decode_put_reply(body: bytes) -> PutReply:
    """The answer of a PUT_REPLY body; ProtocolError when it is malformed."""
    if len(body) < _PUT_REPLY.size:
        raise ProtocolError("a put reply that is too short")
    epoch, acks, primaries = _PUT_REPLY.unpack_from(body)
    return PutReply(epoch, acks, primaries, body[_PUT_REPLY.size :])


def encode_get(request: GetRequest) -> bytes:
    """The body of a GET frame."""
    bucket, generation, epoch, deadline_ms, flags, r, pr, key, floor = request
    if floor:
        head = _GET.pack(bucket, generation, epoch, deadline_ms, flags | FLAG_FLOOR, r, pr)
        return b"".join((head, encode_floor(floor), key))
    return _GET.pack(bucket, generation, epoch, deadline_ms, flags, r, pr) + key


def decode_get(body: bytes) -> GetRequest:
    """The request of a GET or FORWARD_GET body; ProtocolError when it is malformed."""
    if len(body) < _GET.size:
        raise ProtocolError("a get that is too short")
    bucket, generation, epoch, deadline_ms, flags, r, pr = _GET.unpack_from(body)
    if not flags & FLAG_FLOOR:
        return GetRequest(bucket, generation, epoch, deadline_ms, flags, r, pr, body[_GET.size :])
    floor, key_at = decode_floor(body, _GET.size)
    return GetRequest(bucket, generation, epoch, deadline_ms, flags & ~FLAG_FLOOR, r, pr, body[key_at:], floor)


def encode_get_reply(epoch: int, context: bytes, siblings: Sequence[tuple[bytes, int, int, bytes]]) -> bytes:
    """The body of a GET_REPLY frame; siblings are (actor, counter, stamp, value) in dot order."""
    parts = [_GET_REPLY.pack(epoch, len(siblings), len(context)), context]
    for actor, counter, stamp, value in siblings:
        parts.append(_SIBLING.pack(actor, counter, stamp, len(value)))
    for sibling in siblings:
        parts.append(sibling[3])
    return b"".join(parts)


def decode_get_reply(body: bytes) -> GetReply:
    """The answer of a GET_REPLY body; ProtocolError when it is malformed."""
    try:
        epoch, count, context_length = _GET_REPLY.unpack_from(body)
        position = _GET_REPLY.size + context_length
        context = body[_GET_REPLY.size : position]
        value_at = position + count * _SIBLING.size
        siblings = []
        for _ in range(count):
            actor, counter, stamp, length = _SIBLING.unpack_from(body, position)
            position += _SIBLING.size
            siblings.append(SiblingReply(actor, counter, stamp, body[value_at : value_at + length]))
            value_at += length
    except struct.error:
        raise ProtocolError("a get reply that is too short") from None
    if value_at != len(body):
        raise ProtocolError("a get reply whose parts do not add up")
    return GetReply(epoch, context, tuple(siblings))


def with_deadline(body: bytes, deadline_ms: int) -> bytes:
    """The same PUT or GET body with another remaining deadline: what a forwarding node sends on."""
    return body[:_DEADLINE_OFFSET] + _DEADLINE.pack(deadline_ms) + body[_DEADLINE_OFFSET + 4 :]
