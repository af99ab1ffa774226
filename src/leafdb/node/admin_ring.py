"""Verbs that look at the ring: what would become of it, and what has.

ring.simulate  {changes: [as `cluster.stage`; who comes is {name, host, zone, weight}]}  -> as `cluster.plan`
ring.history   {}                                                                        -> {items}, newest first
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.codec.fields import as_int, as_list, as_map, list_field
from leafdb.errors import NotApplied, Reason
from leafdb.limits import BUCKETS_MAX, NODES_MAX
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of, state_of
from leafdb.node.plan_answer import plan_answer
from leafdb.node.ring_requests import Kind, change_asked, imagined, text
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan_report import BytesOf, report
from leafdb.ring.proposal import future
from leafdb.ring.ring import Ring
from leafdb.ring.transitions import stage
from leafdb.types import BucketId, Liveness, PartitionId, TreeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def simulate(node: Node, args: Args) -> Answer:
    """What a plan of these changes would do to the ring as it is without what is staged or in progress."""
    before = metadata_of(node)
    imagining = future(before, ())
    for value in as_list(args.get("changes"), "changes", items_max=NODES_MAX):
        fields = as_map(value, "a change")
        kind = Kind(text(fields, "change"))
        newcomer = imagined(fields) if kind.comes else None
        imagining = stage(imagining, change_asked(kind, fields, imagining, newcomer, b""))
    if not imagining.staged:
        raise NotApplied("no change was named", reason=Reason.NOTHING_STAGED)
    live = [member for member in before.members if state_of(node, member) is Liveness.ALIVE]
    made = report(imagining, live=live, bytes_of=await bytes_estimate(node, before))
    return plan_answer(imagining, made)


async def history(node: Node, args: Args) -> Answer:
    """The last versions of the metadata that this node has believed in."""
    metadata_of(node)
    return {"items": node.ring_changes.history.newest_first()}


async def bytes_estimate(node: Node, metadata: ClusterMetadata) -> BytesOf:
    """What one copy of a partition of a bucket weighs: the bytes of the bucket's records on the members that answer,
    in tables and in memory, divided by the copies these hold. Every partition counts the same.
    """
    answers, _ = await gather(node, "ring.bytes", tree_bytes, {})
    ring = Ring(metadata)
    sizes = dict.fromkeys(metadata.buckets, 0)
    copies = dict.fromkeys(metadata.buckets, 0)
    held: dict[tuple[int, int], int] = {}
    for name, answer in answers.items():
        member = metadata.member_named(name)
        if member is None:
            continue
        for item in list_field(answer, "buckets", items_max=BUCKETS_MAX):
            number, size = as_list(item, "bucket", items_max=2)
            bucket = metadata.buckets.get(BucketId(as_int(number, "bucket")))
            if bucket is None:
                continue
            key = (int(member.id), bucket.n)
            if key not in held:
                held[key] = len(ring.partitions_held(member.id, bucket.n))
            sizes[bucket.id] += as_int(size, "bytes")
            copies[bucket.id] += held[key]
    weights = {bucket: size // max(1, copies[bucket]) for bucket, size in sizes.items()}

    def bytes_of(partition: PartitionId, bucket: BucketId) -> int:
        return weights.get(bucket, 0)

    return bytes_of


async def tree_bytes(node: Node, args: Args) -> Answer:
    """Peer verb: about how many bytes each bucket has here."""
    buckets = [] if node.view.metadata is None else list(node.view.metadata.buckets)
    return {"buckets": [[int(bucket), node.engine.tree_bytes(TreeId(bucket))] for bucket in buckets]}


VERBS: Final[Mapping[str, Verb]] = {"ring.simulate": simulate, "ring.history": history}
PEER_VERBS: Final[Mapping[str, Verb]] = {"ring.bytes": tree_bytes}
