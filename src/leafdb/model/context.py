"""Sealed contexts: what a client holds of the causal past, opaque to it and unforgeable (docs/formats/context.md).

    sealed = version u8 | encoded clock | 12-byte keyed BLAKE2b over (bucket id, encoded key, version, clock)

A forged clock that claimed a counter of 2^60 would dominate every later write of its actor; a context used on another
key would make dots of one key cover those of another. So every node seals with one key, derived from the cluster
secret, and the seal covers bucket and key. Nothing is encrypted: a clock holds node numbers and counts, no data.
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct
from typing import Final

from leafdb.model.clock import COUNTS, CausalClock, ClockError
from leafdb.types import BucketId

CONTEXT_VERSION: Final = 1
SEAL_BYTES: Final = 12
EMPTY_CONTEXT_BYTES: Final = 1 + COUNTS.size + SEAL_BYTES
"""A sealed clock without dots: all others are longer."""

_VERSION: Final = bytes((CONTEXT_VERSION,))
_SCOPE: Final = Struct(">IH")
"""Bucket id, length of the encoded key: what follows the key cannot be taken for a part of it."""


class ContextError(ValueError):
    """The bytes are no context that this cluster sealed for this bucket and key."""


def clock_in(sealed: bytes) -> CausalClock:
    """The clock in a sealed context, for who has no key: the seal is not looked at. Raises ContextError."""
    if sealed[:1] != _VERSION or len(sealed) <= SEAL_BYTES:
        raise ContextError("no context, or one of an unknown version")
    try:
        return CausalClock.decode(sealed[1:-SEAL_BYTES])
    except ClockError as error:
        raise ContextError(str(error)) from None


class ContextSealer:
    """Seals and opens contexts with one key of 16 to 64 bytes, the same on every node of a cluster."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError("a sealing key has 16 to 64 bytes")
        self._keyed = hashlib.blake2b(digest_size=SEAL_BYTES, key=key, person=b"leafdb context")

    def seal(self, clock: CausalClock, bucket_id: BucketId, encoded_key: bytes) -> bytes:
        """The sealed form of `clock` for this bucket and key."""
        payload = _VERSION + clock.encode()
        return payload + self._mac(payload, bucket_id, encoded_key)

    def open(self, sealed: bytes, bucket_id: BucketId, encoded_key: bytes) -> CausalClock:
        """The clock in `sealed`. Raises ContextError when it was not sealed here for this bucket and key."""
        payload, seal = sealed[:-SEAL_BYTES], sealed[-SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._mac(payload, bucket_id, encoded_key)):
            raise ContextError("not a context of this key in this bucket of this cluster")
        if payload[:1] != _VERSION:
            raise ContextError(f"unknown context version {payload[:1].hex()}")
        try:
            return CausalClock.decode(payload[1:])
        except ClockError as error:
            raise ContextError(str(error)) from None

    def _mac(self, payload: bytes, bucket_id: BucketId, encoded_key: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(_SCOPE.pack(bucket_id, len(encoded_key)) + encoded_key + payload)
        return mac.digest()
