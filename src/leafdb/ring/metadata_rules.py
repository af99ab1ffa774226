"""What makes cluster metadata sound, part by part. Each rule answers the problems it found, for people to read.

Checked on everything decoded and on everything a transition makes, so that an unsound value neither enters nor leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from leafdb.limits import BUCKETS_MAX, METADATA_RECENT_MAX, NODE_ID_MAX, NODES_MAX
from leafdb.model import bucket as bucket_model
from leafdb.model.bucket import BUCKET_ID_MAX, BucketProperties
from leafdb.ring.member import LABEL_BYTES_MAX, Member
from leafdb.ring.metadata_format import CHANGE_ID_BYTES, CLUSTER_ID_BYTES, CONTROL_MAX, EPOCH_MAX, FORMAT
from leafdb.ring.token import partition_bits
from leafdb.types import FIRST_BUCKET_ID, BucketId, Epoch, NodeId

CONTROL_SIZES: Final = (1, 3, 5)

assert max(CONTROL_SIZES) == CONTROL_MAX


def check_head(
    *, format_number: int, cluster_id: bytes, cluster_number: int, cluster_name: str, generation: int, epoch: Epoch
) -> list[str]:
    """The numbers and names of the whole."""
    bounds = (
        ("cluster number", cluster_number, NODE_ID_MAX),
        ("generation", generation, EPOCH_MAX),
        ("epoch", epoch, EPOCH_MAX),
    )
    problems = [f"{name} {number} is not 1 to {high}" for name, number, high in bounds if not 1 <= number <= high]
    if format_number != FORMAT:
        problems.append(f"format {format_number} is unknown")
    if len(cluster_id) != CLUSTER_ID_BYTES:
        problems.append(f"the cluster id has {len(cluster_id)} bytes, not {CLUSTER_ID_BYTES}")
    if not cluster_name or not cluster_name.isprintable() or len(cluster_name.encode()) > LABEL_BYTES_MAX:
        problems.append(f"cluster name {cluster_name!r} is empty, unprintable or over {LABEL_BYTES_MAX} bytes")
    return problems


def check_members(
    members: Mapping[NodeId, Member], *, next_node_id: NodeId, control: Sequence[NodeId], bans: Sequence[NodeId]
) -> list[str]:
    """Members, their numbers, the control set, the banned."""
    problems = [problem for member in members.values() for problem in member.check()]
    if not 1 <= len(members) <= NODES_MAX:
        problems.append(f"{len(members)} members are not 1 to {NODES_MAX}")
    if any(node != member.id for node, member in members.items()):
        problems.append("a member is filed under another number than its own")
    if not max((*members, *bans), default=0) < next_node_id <= NODE_ID_MAX + 1:
        problems.append(f"next node number {next_node_id} was given already or is out of bounds")
    problems += _repeated("name", [member.name for member in members.values()])
    problems += _repeated("client address", [member.client_address for member in members.values()])
    problems += _repeated("peer address", [member.peer_address for member in members.values()])
    if len(control) not in CONTROL_SIZES or len(set(control)) != len(control) or not set(control) <= set(members):
        problems.append(f"control set {list(control)} is not 1, 3 or 5 distinct members")
    if list(bans) != sorted(set(bans)) or set(bans) & set(members):
        problems.append("bans are not ascending, or ban a member")
    return problems


def check_ring(
    partitions: int,
    owners: Sequence[NodeId],
    range_epochs: Sequence[Epoch],
    *,
    members: Mapping[NodeId, Member],
    epoch: Epoch,
) -> list[str]:
    """Partitions, their owners, and when those last changed."""
    try:
        partition_bits(partitions)
    except ValueError as error:
        return [str(error)]
    problems = []
    if len(owners) != partitions or len(range_epochs) != partitions:
        problems.append(f"{len(owners)} owners and {len(range_epochs)} range epochs for {partitions} partitions")
    if strangers := sorted(set(owners) - set(members)):
        problems.append(f"owners {strangers} are no members")
    if range_epochs and not 1 <= min(range_epochs) <= max(range_epochs) <= epoch:
        problems.append("a range epoch lies outside history")
    return problems


def check_buckets(buckets: Mapping[BucketId, BucketProperties], *, next_bucket_id: BucketId, epoch: Epoch) -> list[str]:
    """Buckets and their ids."""
    problems = [
        f"bucket {bucket.name!r}: {problem}" for bucket in buckets.values() for problem in bucket_model.check(bucket)
    ]
    if len(buckets) > BUCKETS_MAX:
        problems.append(f"{len(buckets)} buckets are over {BUCKETS_MAX}")
    if any(bucket_id != bucket.id for bucket_id, bucket in buckets.items()):
        problems.append("a bucket is filed under another id than its own")
    if not max(buckets, default=FIRST_BUCKET_ID - 1) < next_bucket_id <= BUCKET_ID_MAX + 1:
        problems.append(f"next bucket id {next_bucket_id} was given already or is out of bounds")
    problems += _repeated("bucket name", [bucket.name for bucket in buckets.values()])
    if any(not 1 <= bucket.generation <= epoch for bucket in buckets.values()):
        problems.append("a bucket's generation lies outside history")
    return problems


def check_recent(recent: Sequence[tuple[bytes, Epoch]], *, epoch: Epoch) -> list[str]:
    """The ids of the last changes."""
    problems = []
    epochs = [made for _, made in recent]
    if any(len(change_id) != CHANGE_ID_BYTES for change_id, _ in recent) or len(recent) > METADATA_RECENT_MAX:
        problems.append("recent changes are too many, or one has no id")
    if epochs != sorted(set(epochs)) or (epochs and not 1 <= epochs[0] <= epochs[-1] <= epoch):
        problems.append("recent changes are not in the order of their epochs")
    problems += _repeated("change id", [change_id.hex() for change_id, _ in recent])
    return problems


def _repeated(what: str, values: Sequence[str]) -> list[str]:
    return [f"{what} {value!r} is there twice" for value, count in Counter(values).items() if count > 1]
