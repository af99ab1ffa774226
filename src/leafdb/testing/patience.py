"""Hours of waiting for next to nothing: what a quiet cluster does in them is done in a few moments of each stretch.

Also under virtual time an idle cluster costs something: its nodes probe each other twice a second, which is half a
minute of work in three hours. `pass_time` lets all machines sleep instead, as laptops do: their nodes are stopped for a
stretch, all in the same instant, wake for a moment in which everything that has become due happens, and are stopped
again. Clocks go on meanwhile, so deadlines, ages and expiry are what they would be, late by a stretch at most.

It is for times in which nobody asks the cluster anything: requests of clients that are open wait, and may time out.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from leafdb.node.node import Node
from leafdb.types import NodeId

STRETCHES: Final = 40
"""However long it takes, it is cut into so many."""
STRETCH_S_MIN: Final = 10.0
AWAKE_S: Final = 1.5
"""Longer than a round of probes: a node that has slept convicts nobody before it has heard of them again."""
BUSY_S_MAX: Final = 60.0
"""How long work under way may keep the cluster awake."""


class Sleepers(Protocol):
    """The nodes of a cluster."""

    nodes: dict[NodeId, Node]

    def unsettled(self) -> list[str]:
        """Who owes what."""

    def pause(self, node: NodeId) -> None:
        """Stop it."""

    def resume(self, node: NodeId) -> None:
        """Let it go on."""

    def is_paused(self, node: NodeId) -> bool:
        """Whether it is stopped."""


LOOK_S: Final = 0.5


async def pass_time(cluster: Sleepers, seconds: float) -> None:
    """Let so much virtual time pass."""
    end = trio.current_time() + seconds
    stretch_s = max(STRETCH_S_MIN, seconds / STRETCHES)
    owed: list[str] = []
    while end - trio.current_time() > STRETCH_S_MIN:
        owed = await _idle(cluster, owed, min(end, trio.current_time() + BUSY_S_MAX))
        await _sleep(cluster, min(trio.current_time() + stretch_s, end) - AWAKE_S)
        await trio.sleep(AWAKE_S)
    await trio.sleep_until(end)


async def _idle(cluster: Sleepers, before: list[str], deadline: float) -> list[str]:
    """Work that goes on is not torn apart: while what nodes owe each other changes, everybody stays awake."""
    owed = cluster.unsettled()
    while owed != before and trio.current_time() < deadline:
        await trio.sleep(LOOK_S)
        before, owed = owed, cluster.unsettled()
    return owed


async def _sleep(cluster: Sleepers, until: float) -> None:
    asleep = [node for node in cluster.nodes if not cluster.is_paused(node)]
    for node in asleep:
        cluster.pause(node)
    try:
        await trio.sleep_until(until)
    finally:
        for node in asleep:
            if node in cluster.nodes:
                cluster.resume(node)
