"""The bytes of the cluster metadata: what is inside the canonical CBOR map (docs/formats/metadata.md).

The two per-partition tables are byte strings: as CBOR lists, those of 65,536 partitions would be more items than the
decoder accepts. Owners are u16 big-endian, one per partition: nearly random, so nothing shorter pays. Range epochs are
runs of varint pairs (length, epoch): most partitions last changed in the same few epochs.

Reading checks types and bounds; whether the parts make sense together is for `ClusterMetadata.check`. Fields that are
not known are refused, unlike in messages: this value is written back by whoever changes it, and what it did not
understand would be lost.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from leafdb.codec.fields import as_bytes, as_int, as_list, as_map, bytes_field, int_field, list_field
from leafdb.codec.varint import decode_varint, encode_varint
from leafdb.limits import BUCKETS_MAX, METADATA_RECENT_MAX, NODE_ID_MAX, NODES_MAX, PARTITIONS_MAX
from leafdb.model.bucket import BUCKET_ID_MAX, BucketProperties
from leafdb.ring.member import Member
from leafdb.ring.token import partition_bits
from leafdb.types import BucketId, Epoch, NodeId

FORMAT: Final = 1
CLUSTER_ID_BYTES: Final = 16
CHANGE_ID_BYTES: Final = 16
CONTROL_MAX: Final = 5
EPOCH_MAX: Final = (1 << 32) - 1

FIELDS: Final = frozenset(
    (
        *("format", "cluster_id", "cluster_number", "cluster_name", "generation", "epoch", "feature_level"),
        *("partitions", "members", "owners", "range_epochs", "control", "buckets", "next_bucket_id", "next_node_id"),
        *("bans", "horizons", "plan", "recent"),
    )
)


def pack_owners(owners: Sequence[NodeId]) -> bytes:
    """Two bytes per partition."""
    return struct.pack(f">{len(owners)}H", *owners)


def unpack_owners(data: bytes, partitions: int) -> tuple[NodeId, ...]:
    """The owners of `partitions` partitions. ValueError when the length is another."""
    if len(data) != 2 * partitions:
        raise ValueError(f"owners are {len(data)} bytes, not {2 * partitions}")
    return tuple(map(NodeId, struct.unpack(f">{partitions}H", data)))


def pack_epochs(epochs: Sequence[Epoch]) -> bytes:
    """Runs of (length, epoch), both varints."""
    return b"".join(encode_varint(len(list(run))) + encode_varint(epoch) for epoch, run in groupby(epochs))


def unpack_epochs(data: bytes, partitions: int) -> tuple[Epoch, ...]:
    """The epochs of `partitions` partitions. ValueError when the runs do not add up to that."""
    epochs: list[Epoch] = []
    offset = 0
    while offset < len(data):
        length, offset = decode_varint(data, offset)
        epoch, offset = decode_varint(data, offset)
        if not 1 <= length <= partitions - len(epochs):
            raise ValueError(f"a run of {length} partitions where {partitions - len(epochs)} are left")
        epochs.extend([Epoch(epoch)] * length)
    if len(epochs) != partitions:
        raise ValueError(f"epochs of {len(epochs)} partitions, not {partitions}")
    return tuple(epochs)


def read_fields(value: object) -> dict[str, Any]:
    """The constructor arguments of ClusterMetadata from its decoded map. Raises ValueError."""
    fields = as_map(value, "cluster metadata")
    if fields.get("format") != FORMAT:
        raise ValueError("not cluster metadata of a format this build knows")
    if odd := fields.keys() ^ FIELDS:
        raise ValueError(f"fields missing or unknown: {sorted(map(str, odd))}")
    if fields["horizons"] != {} or fields["plan"] is not None:
        raise ValueError("purge horizons and plans are not known to this build")
    if not isinstance(fields["cluster_name"], str):
        raise ValueError("cluster_name is not text")
    partitions = int_field(fields, "partitions", low=1, high=PARTITIONS_MAX)
    partition_bits(partitions)
    members = [Member.from_wire(member) for member in list_field(fields, "members", items_max=NODES_MAX)]
    buckets = [BucketProperties.from_wire(bucket) for bucket in list_field(fields, "buckets", items_max=BUCKETS_MAX)]
    return {
        "format": FORMAT,
        "cluster_id": bytes_field(fields, "cluster_id", low=CLUSTER_ID_BYTES, high=CLUSTER_ID_BYTES),
        "cluster_number": int_field(fields, "cluster_number", high=NODE_ID_MAX),
        "cluster_name": fields["cluster_name"],
        "generation": int_field(fields, "generation", high=EPOCH_MAX),
        "epoch": Epoch(int_field(fields, "epoch", high=EPOCH_MAX)),
        "feature_level": int_field(fields, "feature_level"),
        "partitions": partitions,
        "members": {member.id: member for member in members},
        "owners": unpack_owners(bytes_field(fields, "owners", high=2 * PARTITIONS_MAX), partitions),
        "range_epochs": unpack_epochs(bytes_field(fields, "range_epochs", high=20 * PARTITIONS_MAX), partitions),
        "control": _nodes(list_field(fields, "control", items_max=CONTROL_MAX), "control"),
        "buckets": {bucket.id: bucket for bucket in buckets},
        "next_bucket_id": BucketId(int_field(fields, "next_bucket_id", high=BUCKET_ID_MAX + 1)),
        "next_node_id": NodeId(int_field(fields, "next_node_id", high=NODE_ID_MAX + 1)),
        "bans": _nodes(list_field(fields, "bans", items_max=NODE_ID_MAX), "bans"),
        "recent": tuple(_change(item) for item in list_field(fields, "recent", items_max=METADATA_RECENT_MAX)),
    }


def _nodes(items: Sequence[Any], what: str) -> tuple[NodeId, ...]:
    return tuple(NodeId(as_int(item, what, low=1, high=NODE_ID_MAX)) for item in items)


def _change(item: object) -> tuple[bytes, Epoch]:
    pair = as_list(item, "recent", items_max=2)
    if len(pair) != 2:
        raise ValueError("a recent change is no pair of id and epoch")
    change_id = as_bytes(pair[0], "change id", low=CHANGE_ID_BYTES, high=CHANGE_ID_BYTES)
    return change_id, Epoch(as_int(pair[1], "change epoch", low=1, high=EPOCH_MAX))
