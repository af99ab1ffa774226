"""What a store remembers of its hash trees (docs/formats/merkle.md): saved ones, and what each logged write replaced.

A tree is saved with a number: it is the tree as of that write of the log. A write is logged with a *mark*, the digest
of the record that it replaced; the digest of the new record follows from its bytes. So a saved tree and all writes with
greater numbers give the tree of now, and a write that the saved tree already has in it is told from one it has not:
XOR would take it out again.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from leafdb.codec.checksum import xxh3_64
from leafdb.merkle.tree import DIGEST_BYTES, Tree, leaf_of
from leafdb.types import BucketId, PartitionId

NOTHING: Final = bytes(DIGEST_BYTES)
"""The mark of a write where nothing was. A record with this digest would be taken for nothing: one of 2^64."""
SAVED_VERSION: Final = 1

_BUCKET_KEY: Final = struct.Struct(">BI")
_BUCKET: Final = struct.Struct(">BI")
_TREE_KEY: Final = struct.Struct(">BIH")
_TREE: Final = struct.Struct(">BQ")
_OF_BUCKET: Final = 1
_OF_TREE: Final = 2


def bucket_key(bucket: BucketId) -> bytes:
    """Where it stands that the trees of a bucket are kept."""
    return _BUCKET_KEY.pack(_OF_BUCKET, bucket)


def encode_bucket(partitions: int) -> bytes:
    """That of so many partitions every tree is kept: one without an entry of its own was empty then."""
    return _BUCKET.pack(SAVED_VERSION, partitions)


def tree_key(bucket: BucketId, partition: PartitionId) -> bytes:
    """Where a tree is saved."""
    return _TREE_KEY.pack(_OF_TREE, bucket, partition)


def encode_tree(lsn: int, tree: Tree | None) -> bytes:
    """A tree as of a write; None: it is not known, and to be rebuilt."""
    head = _TREE.pack(SAVED_VERSION, lsn)
    return head if tree is None else head + tree.encode()


class SavedBucket(NamedTuple):
    """The trees of a bucket with so many partitions are kept."""

    bucket: BucketId
    partitions: int


class SavedTree(NamedTuple):
    """A tree as of a write, None where it is not known."""

    bucket: BucketId
    partition: PartitionId
    lsn: int
    tree: Tree | None


def decode_saved(key: bytes, value: bytes) -> SavedBucket | SavedTree:
    """An entry of the TREES tree. A tree that cannot be read is one that is not known; ValueError for anything else."""
    try:
        if key[:1] == bytes((_OF_BUCKET,)):
            _, bucket = _BUCKET_KEY.unpack(key)
            version, partitions = _BUCKET.unpack(value)
            if version != SAVED_VERSION:
                raise ValueError(f"kept trees of unknown version {version}")
            return SavedBucket(BucketId(bucket), partitions)
        kind, bucket, partition = _TREE_KEY.unpack(key)
    except struct.error:
        raise ValueError("a malformed entry of kept trees") from None
    if kind != _OF_TREE:
        raise ValueError(f"an unknown entry of kept trees: {kind}")
    tree, lsn = None, 0
    try:
        version, lsn = _TREE.unpack_from(value)
        if version == SAVED_VERSION and len(value) > _TREE.size:
            tree = Tree.decode(value[_TREE.size :])
    except (struct.error, ValueError):
        pass
    return SavedTree(BucketId(bucket), PartitionId(partition), lsn, tree)


class LoggedChange(NamedTuple):
    """What one entry of the log did to its tree."""

    lsn: int
    bucket: BucketId
    place: int
    """The first 16 bits of its key: its partition, and more."""
    leaf: int
    delta: int
    keys: int
    known: bool
    """The log says what it replaced."""


class LoggedChanges:
    """What a replay of the log did to trees, in order. A log may hold a million writes: 24 bytes each."""

    def __init__(self) -> None:
        self._lsns = array("Q")
        self._words = array("Q")
        """32 bits bucket, 16 place, 10 leaf, 2 keys + 1, 1 known."""
        self._deltas = array("Q")

    def __len__(self) -> int:
        return len(self._lsns)

    def add(self, lsn: int, bucket: int, key: bytes, record: bytes | None, mark: bytes) -> None:
        """An entry of the log, of a bucket's tree."""
        before = int.from_bytes(mark, "big")
        keys = 1 + (record is not None) - (before != 0)
        place = int.from_bytes(key[:2], "big")
        self._lsns.append(lsn)
        self._words.append(bucket << 29 | place << 13 | leaf_of(key) << 3 | keys << 1 | (mark != b""))
        self._deltas.append(before if record is None else before ^ xxh3_64(key + record))

    def __iter__(self) -> Iterator[LoggedChange]:
        for lsn, word, delta in zip(self._lsns, self._words, self._deltas, strict=True):
            bucket, place, leaf = BucketId(word >> 29), word >> 13 & 0xFFFF, word >> 3 & 0x3FF
            yield LoggedChange(lsn, bucket, place, leaf, delta, (word >> 1 & 3) - 1, bool(word & 1))
