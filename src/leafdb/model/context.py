"""Sealed contexts: what a client holds of the causal past, opaque to it and unforgeable (docs/formats/context.md).

    sealed = version u8 | stamp u64 | encoded clock |
             12-byte keyed BLAKE2b over (bucket id, encoded key, version, stamp, clock)

The stamp is no less than that of any write the clock covers: of what a read returns the newest in the record, of what a
write returns the newer of its own and its context's. What is written over the context goes above it (`put.py`), however
slow the clock of the node that mints it.

A forged clock that claimed a counter of 2^60 would dominate every later write of its actor; a context used on another
key would make dots of one key cover those of another. So every node seals with one key, derived from the cluster
secret, and the seal covers bucket and key. Nothing is encrypted: a clock holds node numbers and counts, no data.
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct
from typing import Final, NamedTuple

from leafdb.model.clock import COUNTS, CausalClock, ClockError, parse
from leafdb.model.hlc import STAMP_MAX
from leafdb.types import BucketId

CONTEXT_VERSION: Final = 1
SEAL_BYTES: Final = 12
_HEAD: Final = Struct(">BQ")
CLOCK_AT: Final = _HEAD.size
"""Where a sealed context has its clock, behind the stamp."""
STAMP_BYTES: Final = 8
EMPTY_CONTEXT_BYTES: Final = CLOCK_AT + COUNTS.size + SEAL_BYTES
"""A sealed clock without dots: all others are longer."""

_SCOPE: Final = Struct(">IH")
"""Bucket id, length of the encoded key: what follows the key cannot be taken for a part of it."""
_NAME_SCOPE: Final = _SCOPE.pack(0xFFFF_FFFF, 0xFFFF)
"""Begins nothing that a seal covers: no bucket has this id, no key this length."""
KEY_HASH_DIGITS: Final = 16


class ContextError(ValueError):
    """The bytes are no context that this cluster sealed for this bucket and key."""


class Past(NamedTuple):
    """What a context stands for."""

    clock: CausalClock
    stamp: int
    """No less than that of any write the clock covers; 0 where it covers none."""


def past_in(sealed: bytes) -> Past:
    """What a sealed context says, for who has no key: the seal is not looked at. Raises ContextError."""
    return _past(sealed[:-SEAL_BYTES])


class ContextSealer:
    """Seals and opens contexts with one key of 16 to 64 bytes, the same on every node of a cluster."""

    __slots__ = ("_keyed",)

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
            raise ValueError("a sealing key has 16 to 64 bytes")
        self._keyed = hashlib.blake2b(digest_size=SEAL_BYTES, key=key, person=b"leafdb context")

    def seal(self, clock: CausalClock, stamp: int, bucket_id: BucketId, encoded_key: bytes) -> bytes:
        """The sealed form of `Past(clock, stamp)` for this bucket and key."""
        payload = _HEAD.pack(CONTEXT_VERSION, stamp) + clock.encode()
        return payload + self._mac(payload, bucket_id, encoded_key)

    def open(self, sealed: bytes, bucket_id: BucketId, encoded_key: bytes) -> Past:
        """What `sealed` says. Raises ContextError when it was not sealed here for this bucket and key."""
        payload, seal = sealed[:-SEAL_BYTES], sealed[-SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._mac(payload, bucket_id, encoded_key)):
            raise ContextError("not a context of this key in this bucket of this cluster")
        return _past(payload)

    def key_hash(self, encoded_key: bytes) -> str:
        """A name for a key in logs, in hex: only who has the sealing key can tell whose it is."""
        keyed = self._keyed.copy()
        keyed.update(_NAME_SCOPE + encoded_key)
        return keyed.hexdigest()[:KEY_HASH_DIGITS]

    def _mac(self, payload: bytes, bucket_id: BucketId, encoded_key: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(_SCOPE.pack(bucket_id, len(encoded_key)) + encoded_key + payload)
        return mac.digest()


def _past(payload: bytes) -> Past:
    if len(payload) < CLOCK_AT:
        raise ContextError("no context, or one of an unknown version")
    version, stamp = _HEAD.unpack_from(payload)
    if version != CONTEXT_VERSION or stamp > STAMP_MAX:
        raise ContextError("no context, or one of an unknown version" if version != CONTEXT_VERSION else "no stamp")
    try:
        clock, end = parse(payload, CLOCK_AT)
    except ClockError as error:
        raise ContextError(str(error)) from None
    if end != len(payload):
        raise ContextError("bytes after the clock")
    return Past(clock, stamp)
