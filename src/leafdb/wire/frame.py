"""A frame: header, checksum, body. Drawn in docs/formats/wire.md.

    body length u32 | crc32c u32 | type u8 | flags u8 | request id u64 | body

The checksum covers everything behind itself. It is there because these bytes become somebody's only copy: TCP's own
sum misses one error in some tens of thousands, and a proxy or a bad bus adds its own. A frame is encoded once however
many peers it goes to, so the sum is paid once.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from leafdb.codec.checksum import crc32c
from leafdb.errors import ProtocolError
from leafdb.wire.registry import KNOWN_TYPES

_PREFIX: Final = struct.Struct(">II")
_TAIL: Final = struct.Struct(">BBQ")
_HEADER: Final = struct.Struct(">IIBBQ")
HEADER_BYTES: Final = _HEADER.size


class Frame(NamedTuple):
    """One message as it came: its number, the request it belongs to, its undecoded body."""

    type: int
    request_id: int
    body: bytes


def encode_frame(message_type: int, request_id: int, body: bytes) -> bytes:
    """The bytes of one frame. The caller keeps the body within the receiver's frame bound."""
    rest = _TAIL.pack(message_type, 0, request_id) + body
    return _PREFIX.pack(len(body), crc32c(rest)) + rest


class FrameReader:
    """Cuts a byte stream into frames; keeps what is incomplete; refuses at the header what can never be valid.

    `body_bytes_max` may be raised once the peer has authenticated. After a ProtocolError the stream is unusable.
    """

    __slots__ = ("_buffer", "body_bytes_max")

    def __init__(self, body_bytes_max: int) -> None:
        self.body_bytes_max = body_bytes_max
        self._buffer = b""

    @property
    def buffered_bytes(self) -> int:
        """Bytes kept for a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes, return the frames they complete, in order.

        Raises ProtocolError on an over-long frame, an unknown type, nonzero flags or a wrong checksum. Frames before the
        bad one are lost with it: the session closes anyway.
        """
        if self._buffer:
            data = self._buffer + data
        frames: list[Frame] = []
        append = frames.append
        unpack = _HEADER.unpack_from
        position = 0
        end = len(data)
        while end - position >= HEADER_BYTES:
            length, checksum, message_type, flags, request_id = unpack(data, position)
            if length > self.body_bytes_max:
                raise ProtocolError(f"a frame of {length} bytes is over the bound of {self.body_bytes_max}")
            if message_type not in KNOWN_TYPES or flags:
                raise ProtocolError(f"unknown message type {message_type:#04x} or flags {flags:#04x}")
            stop = position + HEADER_BYTES + length
            if stop > end:
                break
            if crc32c(data[position + 8 : stop]) != checksum:
                raise ProtocolError("a frame with a wrong checksum")
            append(Frame(message_type, request_id, data[position + HEADER_BYTES : stop]))
            position = stop
        self._buffer = data[position:] if position < end else b""
        return frames

    def check(self) -> None:
        """The kept bytes never hold a whole frame."""
        if len(self._buffer) >= HEADER_BYTES:
            length = _HEADER.unpack_from(self._buffer)[0]
            assert len(self._buffer) < HEADER_BYTES + length
