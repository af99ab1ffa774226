"""Keys: what users call them and the one byte string that stands for each (docs/formats/key.md).

    encoded key = esc(partition) 00 01 [esc(sort) 00 01]          esc: every 00 becomes 00 FF

The encoding keeps the order of the parts, is self-delimiting (it can be followed by anything), and a plain key never
equals a pair. All rows of one partition key share the prefix `partition_part`, which alone decides their place on the
ring, so they live on the same replicas, adjacent and sorted.
"""

from __future__ import annotations

from typing import Final

from leafdb.errors import ClientMisuse
from leafdb.limits import KEY_BYTES_MAX
from leafdb.types import Key

_END: Final = b"\x00\x01"
_ZERO: Final = b"\x00"
_ESCAPED_ZERO: Final = b"\x00\xff"

ENCODED_KEY_BYTES_MAX: Final = 2 * KEY_BYTES_MAX + 2 * len(_END)
"""Every byte of a key may be a zero and cost two."""


def encode_key(key: Key) -> bytes:
    """The encoding of a key or a pair. Raises ClientMisuse on a wrong type, an empty part or an over-long key."""
    if isinstance(key, tuple):
        if len(key) != 2:
            raise ClientMisuse(f"a pair key has a partition key and a sort key, not {len(key)} parts")
        partition, sort = _part_bytes(key[0]), _part_bytes(key[1])
        _check_size(len(partition) + len(sort))
        return _escape(partition) + _END + _escape(sort) + _END
    partition = _part_bytes(key)
    _check_size(len(partition))
    return _escape(partition) + _END


def decode_key(encoded: bytes) -> bytes | tuple[bytes, bytes]:
    """The key that `encode_key` was given, as bytes. Raises ValueError when it never gave this."""
    head = encoded.find(_END)
    partition = _unescape(encoded, 0, head)
    rest = head + len(_END)
    if rest == len(encoded):
        if len(partition) > KEY_BYTES_MAX:
            raise ValueError("encoded key is too long")
        return partition
    tail = encoded.find(_END, rest)
    sort = _unescape(encoded, rest, tail)
    if tail + len(_END) != len(encoded):
        raise ValueError("bytes after the encoded key")
    if len(partition) + len(sort) > KEY_BYTES_MAX:
        raise ValueError("encoded key is too long")
    return partition, sort


def partition_part(encoded: bytes) -> bytes:
    """The part that decides the place on the ring: the escaped partition key and its end mark.

    Finds the end mark and no more, for it runs on every request; only `decode_key` tells a sound key from another.
    Raises ValueError when there is no end mark or nothing before it.
    """
    stop = encoded.find(_END) + 2
    if stop == len(encoded) and stop > 2:
        return encoded
    if stop <= 2:
        raise ValueError("malformed encoded key")
    return encoded[:stop]


def escaped(part: bytes) -> bytes:
    """How the encoding of every key begins whose partition key begins with `part`; empty for an empty one."""
    return _escape(part)


def _part_bytes(part: object) -> bytes:
    if isinstance(part, str):
        try:
            part = part.encode()
        except UnicodeEncodeError:
            raise ClientMisuse("a key's text holds a lone surrogate, which has no UTF-8 bytes") from None
    elif not isinstance(part, bytes):
        raise ClientMisuse(f"a key is str, bytes or a pair of them, not {type(part).__name__}")
    if not part:
        raise ClientMisuse("a key, and each part of a pair, has at least one byte")
    return part


def _check_size(size: int) -> None:
    if size > KEY_BYTES_MAX:
        raise ClientMisuse(f"a key of {size} bytes is over {KEY_BYTES_MAX}")


def _escape(part: bytes) -> bytes:
    return part.replace(_ZERO, _ESCAPED_ZERO) if _ZERO in part else part


def _unescape(encoded: bytes, start: int, stop: int) -> bytes:
    if stop <= start:
        raise ValueError("malformed encoded key: no end mark, or an empty part")
    part = encoded[start:stop]
    if _ZERO not in part:
        return part
    if part.count(_ZERO) != part.count(_ESCAPED_ZERO):
        raise ValueError("malformed encoded key: a zero byte that is not escaped")
    return part.replace(_ESCAPED_ZERO, _ZERO)
