"""Tokens: a key's place on the ring, and what of a storage tree belongs to a partition.

    token        = XXH3_64(partition part of the encoded key, seed = bucket id)
    storage key  = token as 8 bytes, big-endian ‖ encoded key
    partition    = the top k bits of the token, when there are 2^k partitions
    operation id = token as 8 bytes, big-endian ‖ 8 bytes of chance

All rows of one partition key share a token, so they share replicas and lie adjacent in the tree. The bucket id is the
seed, so that one key in two buckets does not load the same nodes twice. A partition is a contiguous range of storage
keys: scanning one is a range scan.

Persisted and on the wire: neither function nor seed may ever change.
"""

from __future__ import annotations

from typing import Final

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import KEY_BYTES_MAX, PARTITIONS_MAX
from leafdb.model.key import partition_part
from leafdb.types import BucketId, PartitionId, Token

TOKEN_BITS: Final = 64
TOKEN_BYTES: Final = 8
OPERATION_CHANCE_BYTES: Final = 8

STORAGE_KEY_END: Final = b"\xff" * (TOKEN_BYTES + KEY_BYTES_MAX + 1)
"""Above every storage key: an encoded key never starts with more than KEY_BYTES_MAX bytes of FF."""


def token_of(bucket_id: BucketId, partition_part: bytes) -> Token:
    """The token of every key that starts with this partition part (`model.key.partition_part`)."""
    return Token(xxh3_64(partition_part, bucket_id))


def storage_key(bucket_id: BucketId, encoded_key: bytes) -> bytes:
    """The key under which storage keeps an encoded key. ValueError when that is malformed."""
    return xxh3_64(partition_part(encoded_key), bucket_id).to_bytes(TOKEN_BYTES, "big") + encoded_key


def storage_key_at(token: Token, encoded_key: bytes) -> bytes:
    """As `storage_key`, when the token is known already."""
    return token.to_bytes(TOKEN_BYTES, "big") + encoded_key


def operation_id(token: Token, chance: bytes) -> bytes:
    """The id of a write of a key with this token: whoever has the id knows in which range to ask for it."""
    assert len(chance) == OPERATION_CHANCE_BYTES
    return token.to_bytes(TOKEN_BYTES, "big") + chance


def split_storage_key(key: bytes) -> tuple[Token, bytes]:
    """The token and the encoded key of a storage key. ValueError when it is too short to be one."""
    if len(key) <= TOKEN_BYTES:
        raise ValueError("storage key is too short")
    return Token(int.from_bytes(key[:TOKEN_BYTES], "big")), key[TOKEN_BYTES:]


def partition_bits(partitions: int) -> int:
    """k, when there are 2^k partitions. ValueError for a count that is no power of two or out of bounds."""
    if not 1 <= partitions <= PARTITIONS_MAX or partitions & (partitions - 1):
        raise ValueError(f"partitions must be a power of two from 1 to {PARTITIONS_MAX}, not {partitions}")
    return partitions.bit_length() - 1


def partition_of(token: Token, partitions: int) -> PartitionId:
    """The partition a token falls in. `partitions` is a power of two."""
    return PartitionId(token >> (TOKEN_BITS - partition_bits(partitions)))


def partition_range(partition: PartitionId, partitions: int) -> tuple[bytes, bytes]:
    """The storage keys of a partition: from the first (in) to the second (out)."""
    shift = TOKEN_BITS - partition_bits(partitions)
    assert 0 <= partition < partitions, f"partition {partition} of {partitions}"
    start = (partition << shift).to_bytes(TOKEN_BYTES, "big")
    if partition + 1 == partitions:
        return start, STORAGE_KEY_END
    return start, ((partition + 1) << shift).to_bytes(TOKEN_BYTES, "big")
