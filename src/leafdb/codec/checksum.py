"""Checksums: CRC32C finds damage (frames, WAL records, blocks); XXH3 spreads keys and compares content.

Neither is a defence against an adversary: what must not be forged is sealed with a key (`model/context.py`).
"""

from __future__ import annotations

import google_crc32c
import xxhash


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC32C (Castagnoli) of `data`; `crc` is the checksum of what came before it, so that parts can be chained."""
    result: int = google_crc32c.extend(crc, data) if crc else google_crc32c.value(data)
    return result


def xxh3_64(data: bytes, seed: int = 0) -> int:
    """XXH3, 64 bits, of `data`. Placement depends on it: the function and its seeds never change."""
    return xxhash.xxh3_64_intdigest(data, seed)
