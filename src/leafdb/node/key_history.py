"""What can be known of a key's past, from all its copies; pure.

A record keeps no history. Of a write that nothing has replaced yet it has all: stamp, operation, value or tombstone. Of
those that were replaced it only knows that there were so many by this or that actor, its clock; they make one line for
each actor. A write that one copy still shows and another one knows to be replaced is replaced: the first is behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leafdb.model.actor import Actor, describe, node_of
from leafdb.model.clock import CausalClock, Dot
from leafdb.node.key_facts import WriteFacts
from leafdb.node.key_standing import Copy
from leafdb.node.versions import dot_text
from leafdb.types import NodeId

REPLACED = "replaced"
UNSEEN = "unseen"


def history(copies: Sequence[Copy], name_of: Callable[[NodeId], str]) -> list[dict[str, Any]]:
    """Lines in order of time; those of replaced writes, whose time nobody knows any more, come first."""
    written: dict[Dot, WriteFacts] = {each.dot: each for copy in copies for each in copy.facts.writes}
    lines = [_gone(actor, copies, written, name_of) for actor in _actors(copies)]
    told = [line for line in lines if line["count"]]
    for dot, facts in sorted(written.items(), key=lambda item: (item[1].stamp, item[0])):
        states = {copy.name: _state(copy, dot) for copy in copies}
        told.append(
            {
                "dot": dot_text(dot),
                "node": name_of(node_of(dot[0])),
                "actor": describe(dot[0]),
                "counter": dot[1],
                "count": 1,
                "stamp": facts.stamp,
                "expires_ms": facts.expires_ms,
                "op_id": facts.op_id.hex(),
                "state": REPLACED if REPLACED in states.values() else facts.state,
                "bytes": facts.size,
                "replicas": states,
            }
        )
    return told


def _actors(copies: Sequence[Copy]) -> list[Actor]:
    found = {actor for copy in copies for actor in copy.facts.clock.vector}
    found |= {actor for copy in copies for actor, _ in copy.facts.clock.cloud}
    return sorted(found)


def _gone(
    actor: Actor, copies: Sequence[Copy], written: Mapping[Dot, WriteFacts], name_of: Callable[[NodeId], str]
) -> dict[str, Any]:
    """The writes of one actor that are known of, and that no copy has any more."""
    newest = max(copy.facts.clock.knows_of(actor) for copy in copies)
    shown = [counter for other, counter in written if other == actor]
    union = _union(copies)
    covered = union.vector.get(actor, 0) + sum(1 for other, _ in union.cloud if other == actor)
    return {
        "dot": f"{actor.hex()}:1..{newest}",
        "node": name_of(node_of(actor)),
        "actor": describe(actor),
        "counter": newest,
        "count": covered - len(shown),
        "stamp": None,
        "expires_ms": 0,
        "op_id": None,
        "state": REPLACED,
        "bytes": 0,
        "replicas": {copy.name: REPLACED if copy.facts.clock.knows_of(actor) > 0 else UNSEEN for copy in copies},
    }


def _union(copies: Sequence[Copy]) -> CausalClock:
    clock = copies[0].facts.clock
    for copy in copies[1:]:
        clock = clock.merge(copy.facts.clock)
    return clock


def _state(copy: Copy, dot: Dot) -> str:
    for each in copy.facts.writes:
        if each.dot == dot:
            return each.state
    return REPLACED if copy.facts.clock.covers(dot) and not copy.facts.more_writes else UNSEEN
