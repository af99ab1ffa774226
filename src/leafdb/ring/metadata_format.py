"""The bytes of the cluster metadata: what is inside the canonical CBOR map (docs/formats/metadata.md).

A value is written in the oldest format that can say it: format 1 until somebody stages a change of the ring or of the
control set, a purge horizon is proved, or there are accounts. So nodes of builds that know no other follow as long as
they can, and equal values have equal bytes.

Reading checks types and bounds; whether the parts make sense together is for `ClusterMetadata.check`. Fields that are
not known are refused, unlike in messages: this value is written back by whoever changes it, and what it did not
understand would be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from leafdb.codec.fields import as_bytes, as_int, as_list, as_map, bytes_field, int_field, list_field
from leafdb.limits import BUCKETS_MAX, METADATA_RECENT_MAX, NODE_ID_MAX, NODES_MAX, PARTITIONS_MAX
from leafdb.model.bucket import BUCKET_ID_MAX, BucketProperties
from leafdb.ring import staging
from leafdb.ring.accounts import Accounts
from leafdb.ring.horizons import RUN_BYTES_MAX, unpack_horizons
from leafdb.ring.member import Member
from leafdb.ring.packing import EPOCH_MAX, unpack_epochs, unpack_owners
from leafdb.ring.plan import Plan
from leafdb.ring.token import partition_bits
from leafdb.types import BucketId, Epoch, NodeId

FORMAT_STILL: Final = 1
"""Says nothing of changes under way."""
FORMAT_CHANGING: Final = 2
"""Staged changes, a plan, a control set that changes or has changed."""
FORMAT_PURGING: Final = 3
"""As the one before, with purge horizons."""
FORMAT_ACCOUNTS: Final = 4
"""As the one before, with users, roles and tokens."""
CLUSTER_ID_BYTES: Final = 16
CHANGE_ID_BYTES: Final = 16
CONTROL_MAX: Final = 5

FIELDS: Final = frozenset(
    (
        *("format", "cluster_id", "cluster_number", "cluster_name", "generation", "epoch", "feature_level"),
        *("partitions", "members", "owners", "range_epochs", "control", "buckets", "next_bucket_id", "next_node_id"),
        *("bans", "horizons", "plan", "recent"),
    )
)
CHANGING_FIELDS: Final = FIELDS | {"staged", "control_next", "control_epoch"}
ACCOUNTS_FIELDS: Final = CHANGING_FIELDS | {"accounts"}
FIELDS_OF: Final[dict[int, frozenset[str]]] = {
    FORMAT_STILL: FIELDS,
    FORMAT_CHANGING: CHANGING_FIELDS,
    FORMAT_PURGING: CHANGING_FIELDS,
    FORMAT_ACCOUNTS: ACCOUNTS_FIELDS,
}


def read_fields(value: object) -> dict[str, Any]:
    """The constructor arguments of ClusterMetadata from its decoded map. Raises ValueError."""
    fields = as_map(value, "cluster metadata")
    written = fields.get("format")
    if type(written) is not int or written not in FIELDS_OF:
        raise ValueError("not cluster metadata of a format this build knows")
    if odd := fields.keys() ^ FIELDS_OF[written]:
        raise ValueError(f"fields missing or unknown: {sorted(map(str, odd))}")
    if written < FORMAT_PURGING and fields["horizons"] != {}:
        raise ValueError("purge horizons in a format that has none")
    if not isinstance(fields["cluster_name"], str):
        raise ValueError("cluster_name is not text")
    partitions = int_field(fields, "partitions", low=1, high=PARTITIONS_MAX)
    partition_bits(partitions)
    members = [Member.from_wire(member) for member in list_field(fields, "members", items_max=NODES_MAX)]
    buckets = [BucketProperties.from_wire(bucket) for bucket in list_field(fields, "buckets", items_max=BUCKETS_MAX)]
    made = {
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
    if fields["plan"] is not None:
        made["plan"] = Plan.from_wire(fields["plan"], partitions)
    if written == FORMAT_PURGING or fields["horizons"] != {}:
        packed = bytes_field(fields, "horizons", low=1, high=RUN_BYTES_MAX * PARTITIONS_MAX)
        made["horizons"] = unpack_horizons(packed, partitions)
    if written != FORMAT_STILL:
        made["staged"] = tuple(map(staging.from_wire, list_field(fields, "staged", items_max=2 * NODES_MAX)))
        made["control_next"] = _nodes(list_field(fields, "control_next", items_max=CONTROL_MAX), "control_next")
        made["control_epoch"] = Epoch(int_field(fields, "control_epoch", low=1, high=EPOCH_MAX))
    if written == FORMAT_ACCOUNTS:
        made["accounts"] = Accounts.from_wire(fields["accounts"])
    return made


def _nodes(items: Sequence[Any], what: str) -> tuple[NodeId, ...]:
    return tuple(NodeId(as_int(item, what, low=1, high=NODE_ID_MAX)) for item in items)


def _change(item: object) -> tuple[bytes, Epoch]:
    pair = as_list(item, "recent", items_max=2)
    if len(pair) != 2:
        raise ValueError("a recent change is no pair of id and epoch")
    change_id = as_bytes(pair[0], "change id", low=CHANGE_ID_BYTES, high=CHANGE_ID_BYTES)
    return change_id, Epoch(as_int(pair[1], "change epoch", low=1, high=EPOCH_MAX))
