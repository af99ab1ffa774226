"""The bytes of a session: what it has seen, carried to another client (docs/formats/session.md).

    version u8 (1) | cluster id: length u8, bytes | given up to a majority: 256 bits | given up to all: 256 bits |
    entries u16 | per entry: bucket u32 | key length u16 | bits u8 | contexts u8 | key |
                             per context: length u16, bytes

A part of the token space that was given up (256 parts, by the first byte of a key's token) is one of which the session
has forgotten what it had seen: it is read from a majority of primaries, or from all, by every reader that has to cover
it. An entry that is *whole* says all that is known of its key, whatever was given up around it.

Only the contexts are sealed, and only nodes can tell whether rightly: who forges a token makes its own reads wait.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from leafdb.errors import ClientMisuse, DataError
from leafdb.limits import CONTEXT_BYTES_MAX, FLOOR_CONTEXTS_MAX, SESSION_TOKEN_BYTES_MAX
from leafdb.model.key import ENCODED_KEY_BYTES_MAX, partition_part
from leafdb.wire.hello import CLUSTER_ID_BYTES

VERSION: Final = 1
PARTS: Final = 256
_BITS_BYTES: Final = PARTS // 8
_COUNT: Final = struct.Struct(">H")
_ENTRY: Final = struct.Struct(">IHBB")
_HELD_MAX: Final = 2

Place = tuple[int, bytes]
"""(bucket id, encoded key): what an entry is about."""


class Seen(NamedTuple):
    """What a session has seen of one key."""

    contexts: tuple[bytes, ...]
    """Sealed. Usually one: several when none of them covers the others."""
    whole: bool
    """It is all that the session has seen of the key."""
    held: int
    """0: a majority of the key's primaries surely has it, 1: some of them, 2: maybe none."""
    closed: bool
    """The contexts cover all that their writes follow."""


class TokenParts(NamedTuple):
    """What a token says. The two integers are sets of parts, as bits."""

    cluster_id: bytes
    majority: int
    every: int
    entries: Mapping[Place, Seen]


class SessionToken(bytes):
    """What one client has written and read, for another to see no less: `other.observe(token)`.

    Opaque bytes, at most 32 KiB; `bytes(token)` and `SessionToken.from_bytes` carry it. Raises DataError for bytes that
    are no token.
    """

    __slots__ = ()

    def __new__(cls, data: bytes | bytearray | memoryview) -> SessionToken:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ClientMisuse(f"a session token is carried as bytes, not {type(data).__name__}")
        token = super().__new__(cls, data)
        parse(token)
        return token

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> SessionToken:
        """The token that `bytes(token)` gave. Raises DataError when these bytes are none."""
        return cls(data)

    @classmethod
    def trusted(cls, data: bytes) -> SessionToken:
        """One that was just made here."""
        return super().__new__(cls, data)

    def __repr__(self) -> str:
        return f"<SessionToken, {len(self)} bytes>"


def entry_bytes(place: Place, seen: Seen) -> bytes:
    """One entry as it stands in a token."""
    bucket_id, key = place
    bits = seen.whole | seen.closed << 1 | seen.held << 2
    parts = [_ENTRY.pack(bucket_id, len(key), bits, len(seen.contexts)), key]
    for sealed in seen.contexts:
        parts += (_COUNT.pack(len(sealed)), sealed)
    return b"".join(parts)


def head_bytes(cluster_id: bytes, majority: int, every: int, entries: int) -> bytes:
    """What a token begins with."""
    bits = majority.to_bytes(_BITS_BYTES, "big") + every.to_bytes(_BITS_BYTES, "big")
    return b"".join((bytes((VERSION, len(cluster_id))), cluster_id, bits, _COUNT.pack(entries)))


def parse(data: bytes) -> TokenParts:
    """What the token says. Raises DataError for anything that no client made."""
    try:
        return _parse(bytes(data))
    except (struct.error, IndexError, ValueError):  # the last: no key
        raise DataError("a session token that is cut off, or has parts that are none") from None


def _parse(data: bytes) -> TokenParts:
    if not data or data[0] != VERSION or len(data) > SESSION_TOKEN_BYTES_MAX:
        raise DataError("these bytes are not a session token, or one of a newer version")
    bits_at = 2 + data[1]
    middle, count_at = bits_at + _BITS_BYTES, bits_at + 2 * _BITS_BYTES
    if data[1] not in (0, CLUSTER_ID_BYTES):
        raise DataError("a session token without the id of a cluster")
    (count,) = _COUNT.unpack_from(data, count_at)
    at = count_at + _COUNT.size
    entries: dict[Place, Seen] = {}
    for _ in range(count):
        bucket_id, key_length, bits, contexts = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        key = _slice(data, at, key_length, ENCODED_KEY_BYTES_MAX)
        at += key_length
        if bits >> 2 > _HELD_MAX or contexts > FLOOR_CONTEXTS_MAX or (bucket_id, key) in entries:
            raise DataError("a session token with an entry that is none")
        partition_part(key)
        sealed = []
        for _ in range(contexts):
            (length,) = _COUNT.unpack_from(data, at)
            at += _COUNT.size
            sealed.append(_slice(data, at, length, CONTEXT_BYTES_MAX))
            at += length
        entries[bucket_id, key] = Seen(tuple(sealed), bits & 1 == 1, bits >> 2, bits & 2 == 2)
    if at != len(data):
        raise DataError("a session token with bytes behind it")
    every = int.from_bytes(data[middle:count_at], "big")
    return TokenParts(data[2:bits_at], int.from_bytes(data[bits_at:middle], "big"), every, entries)


def _slice(data: bytes, at: int, length: int, most: int) -> bytes:
    if length > most or at + length > len(data):
        raise DataError("a session token whose parts do not add up")
    return data[at : at + length]
