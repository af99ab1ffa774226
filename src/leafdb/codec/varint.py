"""Unsigned LEB128: seven bits a byte, low group first, the high bit says "more follows"; at most ten bytes, 64 bits.

One number has one encoding: a padded form (a last byte of zero after the first) is refused, so that equal values have
equal bytes wherever bytes are compared or hashed.
"""

from __future__ import annotations

from typing import Final

VARINT_BYTES_MAX: Final = 10
_LIMIT: Final = 1 << 64
_SHORT: Final = tuple(bytes((n,)) for n in range(128))


def encode_varint(n: int) -> bytes:
    """The encoding of `n`, 0 to 2^64 - 1. Raises ValueError outside."""
    if 0 <= n < 128:
        return _SHORT[n]
    if not 0 <= n < _LIMIT:
        raise ValueError(f"{n} is no unsigned 64-bit number")
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def decode_varint(buf: bytes, offset: int) -> tuple[int, int]:
    """The number at `offset` and the offset after it. Raises ValueError when cut off, padded or too long."""
    end = len(buf)
    if not 0 <= offset < end:
        raise ValueError("varint cut off")
    byte = buf[offset]
    if byte < 128:
        return byte, offset + 1
    value = byte & 127
    shift = 7
    for at in range(offset + 1, min(end, offset + VARINT_BYTES_MAX)):
        byte = buf[at]
        value |= (byte & 127) << shift
        if byte < 128:
            if byte == 0:
                raise ValueError("varint is padded")
            if value >= _LIMIT:
                raise ValueError("varint is over 64 bits")
            return value, at + 1
        shift += 7
    raise ValueError("varint cut off" if end - offset < VARINT_BYTES_MAX else "varint is over ten bytes")
