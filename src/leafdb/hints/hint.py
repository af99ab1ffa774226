"""One hint: a record kept for a node that could not take it (bytes: docs/formats/hints.md).

Hints live in a tree of their own, never in the bucket's:

    key     target node id u16 | bucket id u32 | storage key        all hints for a target are one range, in token order
    value   version u8 = 1 | kind u8 | created_ms u64 | record

There is one hint per (target, bucket, key): a later one merges its record into it, keeps the earlier creation time, and
is a FALLBACK if either was. Kinds, never to be confused (2-semantics section 3):

    MINTED        a fallback copy into which this node has minted a dot: its record knows all that this node ever minted
                  under the newest of its own epochs there, and the next dot may follow. Of any other hint that cannot
                  be said: earlier copies have gone home, with dots that are not in this one.
    FALLBACK      the copy of a write that counted to its W, on a node that is no primary. It may be all that is left
                  of an acknowledged write: nothing but its target's acknowledgement removes it, whatever its age.
    COORDINATOR   a note that a write missed one primary; never counted. The same record stands in the bucket's tree
                  here or on other primaries, so it may expire, if its range is marked for anti-entropy first.

The version of a hint is a digest of its value: what was acknowledged is removed only while the digest is unchanged.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import NODE_ID_MAX
from leafdb.types import BucketId, NodeId, PartitionId

FORMAT_VERSION: Final = 1
_KEY: Final = struct.Struct(">HI")
_HEADER: Final = struct.Struct(">BBQ")
KEY_PREFIX_BYTES: Final = _KEY.size
HEADER_BYTES: Final = _HEADER.size
TOKEN_BYTES: Final = 8
BUCKET_ID_MAX: Final = (1 << 32) - 1


class Kind(IntEnum):
    """What a hint is worth. The numbers are persisted and never change."""

    MINTED = 0
    FALLBACK = 1
    COORDINATOR = 2


class HintKey(NamedTuple):
    """Whose hint it is."""

    target: NodeId
    bucket: BucketId
    storage_key: bytes

    def partition(self, partitions: int) -> PartitionId:
        """The partition of the key, of `partitions` (a power of two): the top bits of its token."""
        token = int.from_bytes(self.storage_key[:TOKEN_BYTES], "big")
        return PartitionId(token * partitions >> 64)


class Hint(NamedTuple):
    """What is kept."""

    kind: Kind
    created_ms: int
    record: bytes


def encode_key(target: NodeId, bucket: BucketId, storage_key: bytes) -> bytes:
    """The key of the hint for `target`."""
    assert bucket < BUCKET_ID_MAX, "the greatest number ends the range of the last target"
    assert len(storage_key) > TOKEN_BYTES
    return _KEY.pack(target, bucket) + storage_key


def prefix(target: NodeId, bucket: BucketId) -> bytes:
    """What the keys of all hints for `target` in a bucket begin with; the storage key follows."""
    return _KEY.pack(target, bucket)


def decode_key(key: bytes) -> HintKey:
    """The parts of a hint's key; ValueError when it is malformed."""
    if len(key) <= KEY_PREFIX_BYTES + TOKEN_BYTES:
        raise ValueError("hint key too short")
    target, bucket = _KEY.unpack_from(key)
    return HintKey(NodeId(target), BucketId(bucket), key[KEY_PREFIX_BYTES:])


def target_range(target: NodeId) -> tuple[bytes, bytes]:
    """The keys of all hints for `target`: from the first, up to and without the second."""
    stop = _KEY.pack(target + 1, 0) if target < NODE_ID_MAX else _KEY.pack(target, BUCKET_ID_MAX)
    return _KEY.pack(target, 0), stop


def encode(hint: Hint) -> bytes:
    """The value of a hint."""
    return _HEADER.pack(FORMAT_VERSION, hint.kind, hint.created_ms) + hint.record


def decode(value: bytes) -> Hint:
    """What a hint's value says; ValueError when it is malformed or of a version unknown here."""
    if len(value) <= HEADER_BYTES:
        raise ValueError("hint too short")
    version, kind, created_ms = _HEADER.unpack_from(value)
    if version != FORMAT_VERSION:
        raise ValueError(f"hint of unknown version {version}")
    return Hint(Kind(kind), created_ms, value[HEADER_BYTES:])


def with_record(old: bytes | None, kind: Kind, now_ms: int, merged: bytes) -> bytes:
    """The value that replaces `old` (None: none) when a hint of `kind` comes and the records merge to `merged`.

    If nothing changes, the very object `old` is returned, so that the driver need not write.
    """
    if old is None:
        return encode(Hint(kind, now_ms, merged))
    before = decode(old)
    after = Hint(min(before.kind, kind), min(before.created_ms, now_ms), merged)
    return old if after == before else encode(after)


def version_of(value: bytes) -> int:
    """The version of a hint: equal for equal bytes."""
    return xxh3_64(value)


assert Kind.MINTED < Kind.FALLBACK < Kind.COORDINATOR, "with_record keeps the smaller kind: the one that says more"
