"""Checksums: CRC32C finds damage (frames, WAL records, blocks); XXH3 spreads keys and compares content.

Neither is a defence against an adversary: what must not be forged is sealed with a key (`model/context.py`).
"""

from __future__ import annotations

from typing import Final, Protocol

import google_crc32c
import xxhash


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC32C (Castagnoli) of `data`; `crc` is the checksum of what came before it, so that parts can be chained."""
    result: int = google_crc32c.extend(crc, data) if crc else google_crc32c.value(data)
    return result


class Hash(Protocol):
    """A hash of bytes under a seed."""

    def __call__(self, data: bytes, seed: int = 0, /) -> int: ...


xxh3_64: Final[Hash] = xxhash.xxh3_64_intdigest
"""XXH3, 64 bits. Placement depends on it: the function and its seeds never change. Called several times for each
record that is written, so without a frame of ours around it."""
