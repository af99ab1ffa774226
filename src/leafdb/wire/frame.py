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
from leafdb.wire.registry import KNOWN_TYPES, MessageType

_PREFIX: Final = struct.Struct(">II")
_TAIL: Final = struct.Struct(">BBQ")
_HEADER: Final = struct.Struct(">IIBBQ")
HEADER_BYTES: Final = _HEADER.size
_unpack: Final = _HEADER.unpack_from


class Frame(NamedTuple):
    """One message as it came: its number, the request it belongs to, its undecoded body."""

    type: int
    request_id: int
    body: bytes


_new_frame: Final = tuple.__new__
"""Frame(...) costs 0.1 us more: it goes through a Python function."""


def encode_frame(message_type: int, request_id: int, body: bytes) -> bytes:
    """The bytes of one frame. The caller keeps the body within the receiver's frame bound."""
    rest = _TAIL.pack(message_type, 0, request_id) + body
    return _PREFIX.pack(len(body), crc32c(rest)) + rest


class FrameReader:
    """Cuts a byte stream into frames; keeps what is incomplete; refuses at the header what can never be valid.

    Kept bytes gather in one bytearray, so a large frame that comes in small pieces costs each byte two copies, not one
    copy per piece, and no object per piece. `body_bytes_max` and `allowed_types` may be widened once the other side has
    authenticated. After a ProtocolError the stream is unusable.
    """

    __slots__ = ("_buffer", "allowed_types", "body_bytes_max", "wanted_bytes")

    def __init__(self, body_bytes_max: int, allowed_types: frozenset[int] = KNOWN_TYPES) -> None:
        self.body_bytes_max: int = body_bytes_max
        self.allowed_types: frozenset[int] = allowed_types
        self._buffer = bytearray()
        self.wanted_bytes: int = 0
        """Size of the frame that is arriving, as far as it is known; 0 when nothing is kept."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes kept for a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes, return the frames they complete, in order.

        Raises ProtocolError on an over-long frame, a type that is unknown or not allowed here, nonzero flags or a wrong
        checksum. Frames before the bad one are lost with it: the session closes anyway.
        """
        if self._buffer:
            buffer = self._buffer
            buffer += data
            if len(buffer) < self.wanted_bytes:
                return []
            data = bytes(buffer)
            self._buffer = bytearray()
            self.wanted_bytes = 0
        frames: list[Frame] = []
        position = 0
        end = len(data)
        while end - position >= HEADER_BYTES:
            length, checksum, message_type, flags, request_id = _unpack(data, position)
            if length > self.body_bytes_max or message_type not in self.allowed_types or flags:
                raise self._refusal(length, message_type, flags)
            stop = position + HEADER_BYTES + length
            if stop > end:
                break
            if crc32c(data[position + 8 : stop]) != checksum:
                raise ProtocolError("a frame with a wrong checksum")
            frames.append(_new_frame(Frame, (message_type, request_id, data[position + HEADER_BYTES : stop])))
            position = stop
        if position < end:
            self._keep(data, position)
        return frames

    def feed_one(self, data: bytes) -> Frame | None:
        """As `feed`, but cuts one frame at most and keeps the rest: what follows a handshake's last frame is to be read
        under other bounds. Call again with b"" for the next."""
        data = bytes(self._buffer) + data
        self._buffer = bytearray()
        self.wanted_bytes = 0
        size = HEADER_BYTES
        if len(data) >= HEADER_BYTES:
            length, _checksum, message_type, flags, _request_id = _unpack(data, 0)
            if length > self.body_bytes_max or message_type not in self.allowed_types or flags:
                raise self._refusal(length, message_type, flags)
            size += length
            if len(data) >= size:
                (frame,) = self.feed(data[:size])
                if len(data) > size:
                    self._keep_unread(data[size:])
                return frame
        if data:
            self._buffer = bytearray(data)
            self.wanted_bytes = size
        return None

    def _keep(self, data: bytes, position: int) -> None:
        """Keep the tail of `data`, less than one frame; a header that is there has been found valid."""
        self._buffer = bytearray(data[position:])
        self.wanted_bytes = HEADER_BYTES
        if len(self._buffer) >= HEADER_BYTES:
            self.wanted_bytes += _unpack(data, position)[0]

    def _keep_unread(self, data: bytes) -> None:
        """Keep bytes nobody has looked at: the next call looks at them at once, whatever it brings."""
        self._buffer = bytearray(data)
        self.wanted_bytes = 0

    def _refusal(self, length: int, message_type: int, flags: int) -> ProtocolError:
        if length > self.body_bytes_max:
            return ProtocolError(f"a frame of {length} bytes is over the bound of {self.body_bytes_max}")
        if message_type in KNOWN_TYPES and not flags:
            return ProtocolError(f"message type {MessageType(message_type).name} is not allowed here")
        return ProtocolError(f"unknown message type {message_type:#04x} or flags {flags:#04x}")

    def check(self) -> None:
        """The kept bytes never hold a whole frame, except unread ones behind a handshake (`wanted_bytes` 0)."""
        if self._buffer and self.wanted_bytes:
            assert len(self._buffer) < self.wanted_bytes
        if not self._buffer:
            assert self.wanted_bytes == 0
