"""The power goes at the moment at which a store need not name any more what it has lost (I32).

What a salvage left out stands in the manifest until the node has noted it (`node/lost_tables`). From then on nothing
but the note says that there is a hole: it must be on the disk by the time the manifest lets go. So a node that heals
loses its power there, and the next start must doubt what this one did.

With chance of its own, so that what else a seed draws stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

import trio

from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.node import Node
from leafdb.node.vouching import touched
from leafdb.sim.stage import Stage
from leafdb.storage.lost_ranges import LostRange
from leafdb.testing.violation import Invariant, require
from leafdb.types import NodeId

SHARE: Final = 0.5
"""Of the stores that heal."""
PROBE: Final = "cut_when_noted"


class NotedLosses:
    """Of one store that heals."""

    def __init__(self, stage: Stage, victim: NodeId) -> None:
        self._stage = stage
        self._victim = victim
        self._rng = Random(f"{stage.plan.seed}/noted losses {victim} {stage.deaths}")
        self._due = self._rng.random() < SHARE
        self._followed: Node | None = None
        self._noting: tuple[LostRange, ...] = ()
        self._noted = trio.Event()

    def follow(self, node: Node) -> None:
        """From now on this is the run that heals."""
        if not self._due or node is self._followed:
            return
        self._followed, self._noting, self._noted = node, (), trio.Event()
        engine, disk = node.engine, self._stage.cluster.disks[self._victim]
        lost_noted, called, noted = engine.lost_noted, disk.on_call, self._noted

        def noting(lost: Iterable[LostRange]) -> None:
            self._noting = tuple(lost)
            lost_noted(self._noting)

        def watched(kind: str, path: str) -> None:
            if called is not None:
                called(kind, path)
            if self._noting and kind == "sync" and path.startswith("MANIFEST"):
                noted.set()

        engine.lost_noted = noting  # type: ignore[method-assign]
        disk.on_call = watched

    async def wait(self, seconds: float) -> None:
        """Let time go by; and if something is noted meanwhile, cut the power and look at the next start. Raises
        Violation."""
        if not self._due:
            await trio.sleep(seconds)
            return
        with trio.move_on_after(seconds):
            await self._noted.wait()
        if self._noted.is_set():
            self._due = False
            await self._cut()

    async def _cut(self) -> None:
        node, stage = self._followed, self._stage
        if node is None or stage.cluster.nodes.get(self._victim) is not node or node.view.metadata is None:
            return
        partitions = node.view.metadata.partitions
        rows = [lost for lost in self._noting if lost.tree_id != TREES_TREE]
        concerned = {at for lost in rows for at in touched(lost.smallest, lost.largest, partitions)}
        doubted = concerned & set(node.completeness.incomplete)
        stage.trace.fault("power_cut", f"n{self._victim}, which has noted what it lost")
        stage.trace.probe(PROBE)
        with trio.CancelScope(shield=True):
            await stage.power_cut(self._victim)
            await stage.start_all([self._victim])
        started = stage.cluster.nodes.get(self._victim)
        if started is None or not started.ready:
            return
        told = f"n{self._victim} has noted as lost what its next run does not doubt: {self._noting}"
        require(doubted <= set(started.completeness.incomplete), Invariant.CORRUPTION_DETECTED, told)
