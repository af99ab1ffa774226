"""What makes cluster metadata sound, part by part. Each rule answers the problems it found, for people to read.

Checked on everything decoded and on everything a transition makes, so that an unsound value neither enters nor leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from leafdb.limits import BUCKETS_MAX, METADATA_RECENT_MAX, NODE_ID_MAX, NODES_MAX
from leafdb.model import bucket as bucket_model
from leafdb.model.bucket import BUCKET_ID_MAX, BucketProperties
from leafdb.ring import staging
from leafdb.ring.member import LABEL_BYTES_MAX, Member
from leafdb.ring.metadata_format import CHANGE_ID_BYTES, CLUSTER_ID_BYTES, CONTROL_MAX
from leafdb.ring.packing import EPOCH_MAX
from leafdb.ring.plan import Plan
from leafdb.ring.staging import StagedChange
from leafdb.ring.token import partition_bits
from leafdb.types import FIRST_BUCKET_ID, BucketId, Epoch, NodeId

CONTROL_SIZES: Final = (1, 3, 5)

assert max(CONTROL_SIZES) == CONTROL_MAX


def check_head(
    *, cluster_id: bytes, cluster_number: int, cluster_name: str, generation: int, epoch: Epoch
) -> list[str]:
    """The numbers and names of the whole."""
    bounds = (
        ("cluster number", cluster_number, NODE_ID_MAX),
        ("generation", generation, EPOCH_MAX),
        ("epoch", epoch, EPOCH_MAX),
    )
    problems = [f"{name} {number} is not 1 to {high}" for name, number, high in bounds if not 1 <= number <= high]
    if len(cluster_id) != CLUSTER_ID_BYTES:
        problems.append(f"the cluster id has {len(cluster_id)} bytes, not {CLUSTER_ID_BYTES}")
    if not cluster_name or not cluster_name.isprintable() or len(cluster_name.encode()) > LABEL_BYTES_MAX:
        problems.append(f"cluster name {cluster_name!r} is empty, unprintable or over {LABEL_BYTES_MAX} bytes")
    return problems


def check_members(members: Mapping[NodeId, Member], *, next_node_id: NodeId, bans: Sequence[NodeId]) -> list[str]:
    """Members, their numbers, the banned."""
    problems = [problem for member in members.values() for problem in member.check()]
    if not 1 <= len(members) <= NODES_MAX:
        problems.append(f"{len(members)} members are not 1 to {NODES_MAX}")
    if members and not any(member.weight for member in members.values()):
        problems.append("no member has a weight above 0")
    if any(node != member.id for node, member in members.items()):
        problems.append("a member is filed under another number than its own")
    if not max((*members, *bans), default=0) < next_node_id <= NODE_ID_MAX + 1:
        problems.append(f"next node number {next_node_id} was given already or is out of bounds")
    problems += _repeated("name", [member.name for member in members.values()])
    problems += _repeated("client address", [member.client_address for member in members.values()])
    problems += _repeated("peer address", [member.peer_address for member in members.values()])
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


def is_control_step(control: Collection[NodeId], following: Collection[NodeId]) -> bool:
    """Whether one change of the control set may lead from the first to the second.

    One member is exchanged for another, or two come, or two go: between are sizes that survive no more failures and
    have more members to lose. Any two sets would be safe, since both count while one becomes the other; small steps
    keep it live.
    """
    if len(following) not in CONTROL_SIZES:
        return False
    coming, going = len(set(following) - set(control)), len(set(control) - set(following))
    return (coming, going) in ((1, 1), (2, 0), (0, 2))


def check_control(
    control: Sequence[NodeId],
    control_next: Sequence[NodeId],
    *,
    control_epoch: Epoch,
    members: Mapping[NodeId, Member],
    plan: Plan | None,
    epoch: Epoch,
) -> list[str]:
    """The acceptors of the register, now and next."""
    problems = []
    if len(control) not in CONTROL_SIZES or len(set(control)) != len(control) or not set(control) <= set(members):
        problems.append(f"control set {list(control)} is not 1, 3 or 5 distinct members")
    if control_next:
        if list(control_next) != sorted(set(control_next)) or not set(control_next) <= set(members):
            problems.append(f"next control set {list(control_next)} is not of members, ascending")
        elif not is_control_step(control, control_next):
            problems.append(f"control set {list(control)} cannot become {list(control_next)} in one step")
    if not 1 <= control_epoch <= epoch:
        problems.append("the control set's epoch lies outside history")
    if plan is not None and {*control, *control_next} & set(plan.joining):
        problems.append("the control set has a member that an abort would ban")
    return problems


def check_changes(
    staged: Sequence[StagedChange],
    plan: Plan | None,
    *,
    owners: Sequence[NodeId],
    members: Mapping[NodeId, Member],
    bans: Sequence[NodeId],
    next_node_id: NodeId,
    epoch: Epoch,
) -> list[str]:
    """What is staged, and how the plan in progress fits the ring it changes."""
    problems = staging.check(staged, members=members, bans=bans, next_node_id=next_node_id)
    if plan is None:
        return problems
    problems += plan.check()
    if staged:
        problems.append("changes are staged beside a plan in progress")
    if len(plan.owners) != len(owners):
        problems.append(f"the plan has owners of {len(plan.owners)} partitions, not {len(owners)}")
    if strangers := sorted({*plan.owners, *plan.joining, *plan.going} - set(members)):
        problems.append(f"the plan names {strangers}, who are no members")
    if set(owners) & set(plan.joining):
        problems.append("a joining node owns something before the plan is done")
    if not 1 < plan.epoch <= epoch:
        problems.append("the plan's epoch lies outside history")
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
