"""What a reader saw of a key: handed back with the next write, so that the write replaces exactly that.

    bytes(context) = version u8 (1) | tag 8 | sealed context, opaque to the client (docs/formats/context.md)
    tag            = XXH3-64 of (bucket name in utf-8 | 00 | encoded key), big-endian

The server's seal already refuses a context on another key; the tag lets the client say so before any I/O, and while
the mistake is still in the caller's stack trace. A tag is a guard against mistakes, not against forgers.

It is made when a context leaves the process, or is compared with one that came from elsewhere. Most contexts are of no
further use, or come back with their own key: then what would be hashed says as much.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from leafdb.codec.checksum import xxh3_64
from leafdb.errors import ClientMisuse, ContextMismatch, DataError
from leafdb.limits import CONTEXT_BYTES_MAX

_VERSION: Final = 1
_TAG_BYTES: Final = 8
_HEAD_BYTES: Final = 1 + _TAG_BYTES


class Blind(Enum):
    """The type of BLIND: a write that has seen nothing and therefore replaces nothing."""

    BLIND = "blind"

    def __repr__(self) -> str:
        return "BLIND"


BLIND: Final = Blind.BLIND
"""`after=BLIND`: write without having read. Whatever is there stays beside it as a sibling."""


class Context:
    """What one read, or one write, knew of one key. Opaque; `bytes(context)` and `from_bytes` carry it elsewhere."""

    __slots__ = ("_sealed", "_whose")

    def __init__(self, whose: bytes | int, sealed: bytes) -> None:
        """`whose`: what the tag is a hash of, or the tag."""
        self._whose = whose
        self._sealed = sealed

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Context:
        """The context that `bytes(context)` gave. Raises DataError when these bytes are none."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise ClientMisuse(f"a context is carried as bytes, not {type(data).__name__}")
        data = bytes(data)
        if len(data) < _HEAD_BYTES or len(data) > CONTEXT_BYTES_MAX + _HEAD_BYTES or data[0] != _VERSION:
            raise DataError("these bytes are not a context, or one of a newer version")
        return cls(int.from_bytes(data[1:_HEAD_BYTES], "big"), data[_HEAD_BYTES:])

    def __bytes__(self) -> bytes:
        return bytes((_VERSION,)) + self._tag().to_bytes(_TAG_BYTES, "big") + self._sealed

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Context):
            return NotImplemented
        return self._sealed == other._sealed and self._tag() == other._tag()

    def __hash__(self) -> int:
        return hash((self._tag(), self._sealed))

    def __repr__(self) -> str:
        return f"<Context {self._tag():016x}, {len(self._sealed)} bytes>"

    def _tag(self) -> int:
        whose = self._whose
        return xxh3_64(whose) if isinstance(whose, bytes) else whose

    def sealed_for(self, whose: bytes) -> bytes:
        """What goes on the wire for this bucket and key. Raises ContextMismatch when it is another's."""
        if whose != self._whose and xxh3_64(whose) != self._tag():
            raise ContextMismatch("this context was read from another bucket or key")
        return self._sealed


def tag_prefix(bucket_name: str) -> bytes:
    """The constant beginning of what is hashed for every tag of a bucket: an encoded key follows."""
    return bucket_name.encode() + b"\x00"


def tag_of(prefix: bytes, encoded_key: bytes) -> int:
    """The tag of a key; `prefix` is the bucket's `tag_prefix`."""
    return xxh3_64(prefix + encoded_key)
