"""Tokens and storage keys: persisted, so pinned; ranges that cover every key once."""

from __future__ import annotations

from itertools import pairwise

import pytest

from leafdb.limits import KEY_BYTES_MAX, PARTITIONS_MAX
from leafdb.model.key import encode_key, partition_part
from leafdb.ring.token import (
    partition_bits,
    partition_of,
    partition_range,
    split_storage_key,
    storage_key,
    storage_key_at,
    token_of,
)
from leafdb.types import BucketId, PartitionId, Token

BUCKET = BucketId(256)


def test_the_token_function_never_changes() -> None:
    assert token_of(BUCKET, partition_part(encode_key("alice"))) == 2345231509087218844


def test_buckets_spread_one_key_differently() -> None:
    part = partition_part(encode_key("alice"))
    assert token_of(BucketId(256), part) != token_of(BucketId(257), part)


def test_rows_of_one_partition_key_share_a_token_and_lie_together() -> None:
    plain, first, second = (storage_key(BUCKET, encode_key(key)) for key in ("a", ("a", "1"), ("a", "2")))
    assert plain[:8] == first[:8] == second[:8]
    assert plain < first < second


def test_a_storage_key_splits_again() -> None:
    encoded = encode_key("alice")
    token = token_of(BUCKET, partition_part(encoded))
    key = storage_key(BUCKET, encoded)
    assert key == storage_key_at(token, encoded)
    assert split_storage_key(key) == (token, encoded)
    with pytest.raises(ValueError, match="too short"):
        split_storage_key(b"12345678")


@pytest.mark.parametrize("partitions", [1, 2, 64, 256, PARTITIONS_MAX])
def test_ranges_meet_without_gap_and_hold_their_tokens(partitions: int) -> None:
    ranges = [partition_range(PartitionId(p), partitions) for p in range(partitions)]
    assert ranges[0][0] == bytes(8)
    assert all(earlier[1] == later[0] for earlier, later in pairwise(ranges))
    for token in (0, 1, 2**63 - 1, 2**63, 2**64 - 1):
        start, stop = ranges[partition_of(Token(token), partitions)]
        assert start <= storage_key_at(Token(token), b"\x00") < stop


def test_the_last_range_holds_the_greatest_key_there_can_be() -> None:
    greatest = storage_key_at(Token(2**64 - 1), encode_key(b"\xff" * KEY_BYTES_MAX))
    assert greatest < partition_range(PartitionId(255), 256)[1]


@pytest.mark.parametrize("partitions", [0, 3, 255, 2 * PARTITIONS_MAX, -4])
def test_partitions_are_powers_of_two_within_bounds(partitions: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        partition_bits(partitions)
