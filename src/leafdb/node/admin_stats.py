"""Verbs about what nodes count: how long requests take, what is queued, which keys are asked for most.

stats.latency   {node?}          -> {nodes, errors}   by node: `durations`, histograms since the process began
stats.queues    {node?}          -> {nodes, errors}   by node: `queues`, what waits and how much may
stats.top       {node?, count?}  -> {nodes, errors}   by node: `sampled`, `keys`
metrics.read    {}               -> {samples}         all that /metrics shows of the node itself, of who is asked
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.codec.fields import as_int
from leafdb.limits import OPERATIONS_MAX, READS_QUEUED_MAX, SCANS_MAX
from leafdb.model.key import decode_key
from leafdb.node.admin import VERBS_MAX, Verb, gather
from leafdb.node.admin_repair import asked_number, is_meant, only_of
from leafdb.node.hot_keys import KEYS_KEPT, HotKey

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

TOP_DEFAULT: Final = 10
DURATIONS: Final = "_duration_seconds"


async def latency(node: Node, args: Args) -> Answer:
    """How long requests took, on every node."""
    return await _of_all(node, args, "stats.own_latency", own_latency)


async def own_latency(node: Node, args: Args) -> Answer:
    """Peer verb: this node's histograms of durations, unless another one is meant."""
    if not is_meant(node, args):
        return {}
    return {
        "durations": [
            {
                "metric": histogram.about.metric.removeprefix("leafdb_").removesuffix(DURATIONS),
                "op": dict(histogram.about.labels).get("op", ""),
                "bounds": list(histogram.bounds),
                "counts": list(histogram.counts),
                "total": histogram.total,
            }
            for histogram in node.metrics.histograms
            if histogram.about.metric.endswith(DURATIONS)
        ]
    }


async def queues(node: Node, args: Args) -> Answer:
    """What is queued, on every node."""
    return await _of_all(node, args, "stats.own_queues", own_queues)


async def own_queues(node: Node, args: Args) -> Answer:
    """Peer verb: what waits on this node and how much may, unless another one is meant. 0: its bound is elsewhere."""
    if not is_meant(node, args):
        return {}
    stats = node.engine.stats()
    waiting = {
        "requests": (len(node.coordinator.operations), OPERATIONS_MAX),
        "keys read from disk": (node.replica.pending_keys, 0),
        "reads of the disk": (stats.reads_pending, READS_QUEUED_MAX),
        "scans": (node.scans.running, SCANS_MAX),
        "admin verbs": (node.admin.running, VERBS_MAX),
        "bytes to be sent": (sum(session.outbox_bytes for session in node.pump.sessions), 0),
        "bytes to be logged": (stats.backlog_bytes, 0),
        "memtables to be flushed": (stats.frozen_memtables, 0),
        "bytes in memory": (node.memory.held_bytes, node.memory.bytes_max),
        "hints": (sum(line.records for line in node.hints.ledger.summaries()), 0),
        "ranges to be compared": (node.anti_entropy.pending, 0),
    }
    return {"queues": [{"queue": name, "waiting": count, "room": room} for name, (count, room) in waiting.items()]}


async def top(node: Node, args: Args) -> Answer:
    """Which keys are asked for most, on every node. Raises ValueError for a bad count."""
    _count(args)
    return await _of_all(node, args, "stats.own_top", own_top)


async def own_top(node: Node, args: Args) -> Answer:
    """Peer verb: the same of this node, unless another one is meant."""
    if not is_meant(node, args):
        return {}
    hot = node.coordinator.times.hot
    return {"sampled": hot.sampled, "keys": [_hot_key(each) for each in hot.top(_count(args))]}


def _count(args: Args) -> int:
    return as_int(args.get("count", TOP_DEFAULT), "count", low=1, high=KEYS_KEPT)


def _hot_key(hot: HotKey) -> Answer:
    key = decode_key(hot.key)
    parts = key if isinstance(key, tuple) else (key,)
    return {"bucket": hot.bucket, "key": list(parts), "reads": hot.reads, "writes": hot.writes, "error": hot.error}


async def metrics_read(node: Node, args: Args) -> Answer:
    """Every sample of this node."""
    return {
        "samples": [
            {"metric": metric, "labels": dict(labels), "value": float(value)}
            for metric, labels, value in node.metrics.samples()
        ]
    }


async def _of_all(node: Node, args: Args, verb: str, local: Verb) -> Answer:
    """What each member answers, or the one that is meant."""
    wanted = asked_number(node, args)
    answers, errors = await gather(node, verb, local, {**args, "node": wanted})
    return {
        "nodes": {name: answer for name, answer in answers.items() if answer},
        "errors": only_of(node, wanted, errors),
    }


VERBS: Final[Mapping[str, Verb]] = {
    "stats.latency": latency,
    "stats.queues": queues,
    "stats.top": top,
    "metrics.read": metrics_read,
}
PEER_VERBS: Final[Mapping[str, Verb]] = {
    "stats.own_latency": own_latency,
    "stats.own_queues": own_queues,
    "stats.own_top": own_top,
}
