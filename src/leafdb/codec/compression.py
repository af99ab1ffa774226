"""lz4 blocks behind a length header of our own.

The header is the decompressed size as a varint: it is checked against the caller's bound before a byte is allocated,
and lz4 is then told exactly that size, so that a hostile block costs at most `size_max` bytes of memory. lz4's own
header is not used: it is trusted unread.
"""

from __future__ import annotations

import lz4.block

from leafdb.codec.varint import decode_varint, encode_varint


def compress(data: bytes) -> bytes:
    """The compressed form of `data`; it may be longer (by about 1/255): the caller keeps whichever it prefers."""
    block: bytes = lz4.block.compress(data, store_size=False)
    return encode_varint(len(data)) + block


def decompress(data: bytes, size_max: int) -> bytes:
    """What was compressed. Raises ValueError when damaged or when the result would be over `size_max` bytes."""
    size, offset = decode_varint(data, 0)
    if size > size_max:
        raise ValueError(f"decompressed size {size} is over {size_max}")
    try:
        result: bytes = lz4.block.decompress(data[offset:], uncompressed_size=size)
    except (lz4.block.LZ4BlockError, OverflowError, MemoryError) as error:
        raise ValueError(f"damaged lz4 block: {error}") from None
    if len(result) != size:
        raise ValueError(f"lz4 block holds {len(result)} bytes, its header says {size}")
    return result
