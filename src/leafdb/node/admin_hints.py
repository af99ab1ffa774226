"""Verbs about hints.

hints.list  {}  -> {hints, errors}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def list_(node: Node, args: Args) -> Answer:
    """Every hint store of the cluster, one line per holder and target."""
    answers, errors = await gather(node, "hints.local", local, {})
    hints = [{"holder": holder, **line} for holder, found in answers.items() for line in found["hints"]]
    return {"hints": hints, "errors": errors}


async def local(node: Node, args: Args) -> Answer:
    """Peer verb: what this node keeps for others."""
    now_ms = node.world.now_ms()
    members = metadata_of(node).members
    return {
        "hints": [
            {
                "target": node.view.name_of(summary.target) + ("" if summary.target in members else " (gone)"),
                "records": summary.records,
                "bytes": summary.bytes,
                "oldest_age_s": max(0.0, (now_ms - summary.oldest_ms) / 1000),
            }
            for summary in node.hints.ledger.summaries()
        ]
    }


VERBS: Final[Mapping[str, Verb]] = {"hints.list": list_}
PEER_VERBS: Final[Mapping[str, Verb]] = {"hints.local": local}
