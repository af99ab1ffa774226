"""Verbs about buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

from leafdb.codec.fields import as_map
from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.node.admin import Verb, ask_member
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.logs import Log
from leafdb.node.view import BucketView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.metadata import decode as decode_metadata
from leafdb.ring.plan import Phase
from leafdb.types import BucketId, Liveness, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

CHANGE_TIMEOUT_S = 4.0
OFFER_TIMEOUT_S = 2.0
OFFER_RETRY_S = 0.05

log: Log = Log("admin")


def text(args: Args, name: str) -> str:
    """A text argument; ValueError otherwise."""
    value = args[name]
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return value


async def bucket_view(node: Node, name: str) -> BucketView:
    """The bucket of that name; asks the peers before it says there is none."""
    found = node.view.bucket_named(name)
    if found is None:
        asked = trio.Event()
        node.news.fetch(asked.set)
        await asked.wait()
        found = node.view.bucket_named(name)
    if found is None:
        raise NotApplied(f"there is no bucket {name!r}", reason=Reason.NO_SUCH_BUCKET)
    return found


async def bucket_get(node: Node, args: Args) -> Answer:
    """One bucket's properties."""
    metadata_of(node)
    return (await bucket_view(node, text(args, "name"))).properties.to_wire()


async def bucket_list(node: Node, args: Args) -> Answer:
    """Every bucket's properties."""
    return {"buckets": [bucket.to_wire() for bucket in metadata_of(node).buckets.values()]}


async def bucket_create(node: Node, args: Args) -> Answer:
    """Create a bucket; answers once every member that can be reached holds it."""
    properties = BucketProperties.from_wire(args["properties"])
    exist_ok = bool(args.get("exist_ok", False))

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current.create_bucket(properties, change_id=change_id, exist_ok=exist_ok)

    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    await offer(node, chosen)
    created = chosen.bucket_named(properties.name)
    if created is None:
        # It was made: "not applied" would be a lie, and there is nothing left to show.
        raise OutcomeUnknown(f"bucket {properties.name!r} was made and dropped again at once", acks=1, required=1)
    return created.to_wire()


async def bucket_set(node: Node, args: Args) -> Answer:
    """Change some of a bucket's properties; answers once every member that can be reached goes by them."""
    bucket = await bucket_view(node, text(args, "name"))
    changed = as_map(args["properties"], "properties")

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current.set_bucket(BucketId(bucket.id), changed, change_id=change_id)

    chosen = await node.register.change(change, CHANGE_TIMEOUT_S)
    await offer(node, chosen)
    made = chosen.buckets.get(BucketId(bucket.id))
    if made is None:
        raise OutcomeUnknown(f"bucket {bucket.properties.name!r} was changed and dropped at once", acks=1, required=1)
    return {"epoch": int(chosen.epoch), "bucket": made.to_wire()}


async def bucket_drop(node: Node, args: Args) -> Answer:
    """Drop a bucket with everything in it; answers once every member that can be reached has done so."""
    bucket = await bucket_view(node, text(args, "name"))

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        return current.drop_bucket(BucketId(bucket.id), change_id=change_id)

    await offer(node, await node.register.change(change, CHANGE_TIMEOUT_S))
    return {}


async def offer(node: Node, metadata: ClusterMetadata) -> None:
    """Hand new metadata to every live member, and wait until it is in force there.

    The change is made whatever comes of this: a member that is away learns of it by gossip when it is back. Newcomers
    of a plan that has just begun are not there yet, and are called by its driver.
    """
    args = {"metadata": metadata.encode()}
    give_up_at = node.world.now() + OFFER_TIMEOUT_S

    async def tell(member: NodeId) -> None:
        while True:
            try:
                await ask_member(node, member, "metadata.offer", args)
                return
            except LeafdbError as error:
                if node.view.liveness.get(member) is Liveness.DEAD:
                    return
                if node.world.now() >= give_up_at:
                    name = node.view.name_of(member)
                    log.warning("a member has not confirmed new metadata", member=name, reason=str(error))
                    return
            await trio.sleep(OFFER_RETRY_S)

    plan = metadata.plan
    coming = plan.joining if plan is not None and plan.phase is Phase.WRITE_BOTH_READ_OLD else ()
    async with trio.open_nursery() as nursery:
        for member in metadata.members:
            if member != node.view.self_id and (member not in coming or member in node.view.usable):
                nursery.start_soon(tell, member)


async def metadata_offer(node: Node, args: Args) -> Answer:
    """Peer verb: take newer metadata; answers when it is in force here."""
    learned = trio.Event()
    node.register.learn(decode_metadata(bytes(args["metadata"])), learned.set)
    await learned.wait()
    return {"epoch": node.view.epoch}


VERBS: Mapping[str, Verb] = {
    "bucket.get": bucket_get,
    "bucket.list": bucket_list,
    "bucket.create": bucket_create,
    "bucket.set": bucket_set,
    "bucket.drop": bucket_drop,
}
PEER_VERBS: Mapping[str, Verb] = {
    "metadata.offer": metadata_offer,
}
