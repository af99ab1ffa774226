"""Verbs about the nodes' stores: what is in them, and what to do with them. Each process has its own store, and each
shard of a machine is a member: so all members are all stores.

storage.stats    {node?}                -> {nodes, errors}    by node: `stores`
storage.flush    {node?}                -> {tasks, errors}    by node the number of the task that was begun
storage.compact  {bucket?, node?}       -> {tasks, errors}
storage.verify   {bytes_per_s?, node?}  -> {tasks, errors}    0 bytes a second: as fast as it goes
storage.stop     {node?}                -> {nodes, errors}    verifications that were ended
storage.tasks    {node?}                -> {tasks, errors}    the last of each kind, of each node

What a node answers is bounded: STORAGE_TREES_TOLD trees, the largest, and how many more there are; STORAGE_DAMAGES_TOLD
damages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.codec.fields import as_int
from leafdb.limits import STORAGE_TREES_TOLD, VERIFY_BYTES_PER_S, VERIFY_BYTES_PER_S_MAX
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_data import bucket_view, text
from leafdb.node.admin_repair import asked_number, is_meant, only_of
from leafdb.node.storage_tasks import tree_name
from leafdb.storage.maintenance import Compacting
from leafdb.storage.survey import TreeShape
from leafdb.types import TreeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def stats(node: Node, args: Args) -> Answer:
    """Every store, as it says itself."""
    wanted = asked_number(node, args)
    answers, errors = await gather(node, "storage.own_stats", own_stats, {"node": wanted})
    nodes = {name: found["store"] for name, found in answers.items() if found["store"]}
    return {"nodes": nodes, "errors": only_of(node, wanted, errors)}


async def own_stats(node: Node, args: Args) -> Answer:
    """Peer verb: this store, unless another one is meant."""
    if not is_meant(node, args):
        return {"store": {}}
    counts, shape = node.engine.stats(), node.engine.survey()
    told = shape.trees[:STORAGE_TREES_TOLD]
    return {
        "store": {
            "trees": [_tree(node, tree) for tree in told],
            "more_trees": len(shape.trees) - len(told),
            "more_bytes": sum(tree.bytes for tree in shape.trees[len(told) :]),
            "tables": counts.tables,
            "table_bytes": counts.table_bytes,
            "wal_segments": shape.wal_segments,
            "wal_bytes": shape.segment_bytes + counts.frozen_bytes,
            "memtable_bytes": counts.memtable_bytes,
            "frozen_memtables": counts.frozen_memtables,
            "frozen_bytes": counts.frozen_bytes,
            "debt_bytes": shape.debt_bytes,
            "slowed": counts.debt,
            "refusals": counts.refusals,
            "cache_bytes": counts.block_cache_bytes,
            "cache_bytes_max": shape.cache_bytes_max,
            "cache_hits": shape.cache_hits,
            "cache_misses": shape.cache_misses,
            "disk_free_bytes": counts.disk_free_bytes,
            "disk_full": counts.disk_full,
            "flushes": counts.flushes,
            "flushed_bytes": shape.flushed_bytes,
            "compactions": counts.compactions,
            "compaction_bytes_read": shape.compaction_bytes_read,
            "compaction_bytes_written": shape.compaction_bytes_written,
            "failed_jobs": counts.failed_jobs,
            "dropped_tables": counts.dropped_tables,
            "dropped_bytes": counts.dropped_bytes,
            "compacting": _compacting(node, shape.compacting, counts.compaction_share),
        }
    }


def _tree(node: Node, tree: TreeShape) -> Answer:
    return {
        "tree": tree_name(node, tree.tree_id),
        "bytes": tree.bytes,
        "levels": [[each.level, each.tables, each.bytes, each.entries, each.tombstones] for each in tree.levels],
    }


def _compacting(node: Node, running: Compacting | None, share: float) -> Answer | None:
    if running is None:
        return None
    return {
        "tree": tree_name(node, running.job.tree_id),
        "level": running.job.output_level,
        "tables": len(running.job.inputs),
        "bytes": sum(meta.size for meta in running.job.inputs),
        "asked": running.asked,
        "elapsed_s": node.world.now() - running.since_s,
        "share": share,
    }


async def _begin(node: Node, verb: str, local: Verb, asked: Answer) -> Answer:
    """Have every member that is meant begin a task."""
    answers, errors = await gather(node, verb, local, asked)
    tasks = {name: found["task"] for name, found in answers.items() if found["task"]}
    return {"tasks": tasks, "errors": only_of(node, asked["node"], errors)}


async def flush(node: Node, args: Args) -> Answer:
    """Bring what is in memory into tables."""
    return await _begin(node, "storage.own_flush", own_flush, {"node": asked_number(node, args)})


async def own_flush(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    return {"task": node.storage_tasks.flush() if is_meant(node, args) else 0}


async def compact(node: Node, args: Args) -> Answer:
    """Compact a bucket's tree, or all trees, to the last level."""
    bucket = await bucket_view(node, text(args, "bucket")) if args.get("bucket") else None
    asked = {"bucket_id": int(bucket.id) if bucket else 0, "node": asked_number(node, args)}
    return await _begin(node, "storage.own_compact", own_compact, asked)


async def own_compact(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    if not is_meant(node, args):
        return {"task": 0}
    tree = as_int(args["bucket_id"], "bucket_id")
    return {"task": node.storage_tasks.compact(TreeId(tree) if tree else None)}


async def verify(node: Node, args: Args) -> Answer:
    """Read every file again."""
    rate = as_int(args.get("bytes_per_s", VERIFY_BYTES_PER_S), "bytes_per_s", high=VERIFY_BYTES_PER_S_MAX)
    asked = {"bytes_per_s": rate, "node": asked_number(node, args)}
    return await _begin(node, "storage.own_verify", own_verify, asked)


async def own_verify(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    if not is_meant(node, args):
        return {"task": 0}
    return {"task": node.storage_tasks.verify(as_int(args["bytes_per_s"], "bytes_per_s", high=VERIFY_BYTES_PER_S_MAX))}


async def stop(node: Node, args: Args) -> Answer:
    """End verifications that somebody asked for."""
    wanted = asked_number(node, args)
    answers, errors = await gather(node, "storage.own_stop", own_stop, {"node": wanted})
    stopped = [name for name, found in answers.items() if found["stopped"]]
    return {"nodes": stopped, "errors": only_of(node, wanted, errors)}


async def own_stop(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    return {"stopped": is_meant(node, args) and node.storage_tasks.stop_verifying()}


async def tasks(node: Node, args: Args) -> Answer:
    """How far what was asked for is, or how it ended."""
    wanted = asked_number(node, args)
    answers, errors = await gather(node, "storage.own_tasks", own_tasks, {"node": wanted})
    found = [{"node": name, **task} for name, answer in answers.items() for task in answer["tasks"]]
    return {"tasks": found, "errors": only_of(node, wanted, errors)}


async def own_tasks(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    return {"tasks": node.storage_tasks.report() if is_meant(node, args) else []}


VERBS: Final[Mapping[str, Verb]] = {
    "storage.stats": stats,
    "storage.flush": flush,
    "storage.compact": compact,
    "storage.verify": verify,
    "storage.stop": stop,
    "storage.tasks": tasks,
}
PEER_VERBS: Final[Mapping[str, Verb]] = {
    "storage.own_stats": own_stats,
    "storage.own_flush": own_flush,
    "storage.own_compact": own_compact,
    "storage.own_verify": own_verify,
    "storage.own_stop": own_stop,
    "storage.own_tasks": own_tasks,
}
