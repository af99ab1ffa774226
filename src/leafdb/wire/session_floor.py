"""The floor of a session inside a PUT or a GET: what its client has seen of the key, as the nodes sealed it.

    contexts u8 | per context: length u16, sealed context

Usually one. A session that wrote several times without having seen what is there holds a context of each write: only a
node can seal their union, and an answer that covers all of them replaces them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from leafdb.errors import ProtocolError
from leafdb.limits import CONTEXT_BYTES_MAX, FLOOR_CONTEXTS_MAX

_LENGTH: Final = struct.Struct(">H")


def encode_floor(contexts: Sequence[bytes]) -> bytes:
    """The bytes of a floor; at least one context and at most FLOOR_CONTEXTS_MAX."""
    parts = [bytes((len(contexts),))]
    for sealed in contexts:
        parts += (_LENGTH.pack(len(sealed)), sealed)
    return b"".join(parts)


def decode_floor(body: bytes, start: int) -> tuple[tuple[bytes, ...], int]:
    """The contexts of the floor at `start`, and the offset behind it. Raises ProtocolError."""
    count = body[start] if start < len(body) else 0
    if not 1 <= count <= FLOOR_CONTEXTS_MAX:
        raise ProtocolError(f"a floor of {count} contexts")
    contexts = []
    at = start + 1
    for _ in range(count):
        if at + _LENGTH.size > len(body):
            raise ProtocolError("a floor that is cut off")
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        if length > CONTEXT_BYTES_MAX or at + length > len(body):
            raise ProtocolError("a floor whose contexts are longer than they may be")
        contexts.append(body[at : at + length])
        at += length
    return tuple(contexts), at
