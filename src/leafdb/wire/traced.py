"""A put or a get that belongs to a trace: where in which trace it was made goes before it.

    TRACED     trace id 16 | span id 8 | trace flags u8 | type u8 (PUT or GET) | body of that type

The ids are those of W3C Trace Context, in their binary form. A client sends one only to a node whose WELCOME said that
it takes them; the answer is that of the request inside. Requests without a trace pay nothing for this: they are other
messages.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from leafdb.errors import ProtocolError
from leafdb.wire.registry import MessageType

_HEAD: Final = struct.Struct(">16s8sBB")
INSIDE: Final = frozenset({int(MessageType.PUT), int(MessageType.GET)})
"""What can be traced."""


class TraceContext(NamedTuple):
    """Where a request was made: the trace, the span in it, and whether it is sampled (bit 0 of the flags)."""

    trace_id: bytes
    span_id: bytes
    flags: int


def encode_traced(trace: TraceContext, message_type: int, body: bytes) -> bytes:
    """The body of a TRACED frame."""
    assert message_type in INSIDE
    return _HEAD.pack(trace.trace_id, trace.span_id, trace.flags, message_type) + body


def decode_traced(body: bytes) -> tuple[TraceContext, int, bytes]:
    """The trace, the type of the request inside and its body; ProtocolError when it is malformed."""
    if len(body) < _HEAD.size:
        raise ProtocolError("a traced request that is too short")
    trace_id, span_id, flags, message_type = _HEAD.unpack_from(body)
    if message_type not in INSIDE:
        raise ProtocolError(f"message type {message_type:#04x} cannot be traced")
    return TraceContext(trace_id, span_id, flags), message_type, body[_HEAD.size :]
