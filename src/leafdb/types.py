"""Identifiers and small enums that every package knows. They know nobody."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NewType

NodeId = NewType("NodeId", int)
"""A node number, 1 to 65535: assigned once by the metadata register and never reused."""

BucketId = NewType("BucketId", int)
"""A bucket number, 32 bits, from FIRST_BUCKET_ID up: assigned once, never reused; also its storage tree's number."""

TreeId = NewType("TreeId", int)
"""A storage tree: internal ones are below FIRST_BUCKET_ID, each bucket has the one of its own number."""

PartitionId = NewType("PartitionId", int)
"""Index of one of the 2^k equal parts of the token space."""

Token = NewType("Token", int)
"""A place on the ring, 0 to 2^64 - 1."""

Epoch = NewType("Epoch", int)
"""Number of a version of the cluster metadata; 0 means none known."""

Key = str | bytes | tuple[str | bytes, str | bytes]
"""What a user calls a key: one partition key, or a pair of partition key and sort key. A str is its UTF-8 bytes."""

FIRST_BUCKET_ID = 256

NODE_MARK = "urn:leafdb:node:"
CLIENT_MARK = "urn:leafdb:client:"
"""How a certificate says what its holder is: a URI among its subject's alternative names. The CA writes it there, so
that a client's certificate does not open a session between nodes."""


class Durability(IntEnum):
    """When a write may be acknowledged. The numbers are persisted and cross the wire."""

    ALWAYS = 1
    """After the fdatasync that covers it."""
    PERIODIC = 2
    """After write(), before the sync that follows every `wal_sync_interval_ms`."""


class Conflict(IntEnum):
    """What a bucket does with concurrent values. The numbers are persisted and cross the wire."""

    SIBLINGS = 1
    LWW = 2


class Liveness(Enum):
    """What the failure detector believes of a node."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
