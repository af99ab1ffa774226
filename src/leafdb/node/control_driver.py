"""Keeps the control set as it ought to be: one task on every node, of which the one that drives plans acts.

One step at a time: a change is begun, told to everybody, and finished in a turn of its own. Each is a round of the
register that looks at the value it finds, so a driver that dies in the middle is followed by one that goes on, and two
at once do no harm. Death is certain when this node has believed in it without a break for CONTROL_DEATH_S; a driver
that has just taken over begins to count when it first heard of it itself, as every node does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from leafdb.errors import LeafdbError
from leafdb.limits import CONTROL_DEATH_S
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer
from leafdb.node.control_rules import next_control, waited_for
from leafdb.node.logs import Log
from leafdb.node.plan_rules import driver_of
from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Liveness, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

SETTLE_S: Final = 1.0
"""Between a change of the metadata and the next step: who was just told has time to say so."""
RETRY_S: Final = 10.0
MISSED: Final = "the control set waits for {}, which cannot be reached: start it, or remove it from the cluster"

log: Log = Log("control set")


class ControlDriver:
    """See the top of this file."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wake = trio.Event()
        self._dead_since: dict[NodeId, float] = {}
        """Of members that are believed dead: since when."""
        self.problem: str = ""
        """Why the last step could not be made."""
        node.view.on_install.append(lambda _: self._wake.set())
        node.view.on_judged.append(self._judged)

    async def run(self) -> None:
        """Drive until cancelled."""
        while True:
            self._wake = trio.Event()
            pause_s = await self._turn()
            with trio.move_on_after(pause_s):
                await self._wake.wait()
                await trio.sleep(SETTLE_S)

    def _judged(self, node: NodeId, liveness: Liveness) -> None:
        if liveness is Liveness.DEAD:
            self._dead_since.setdefault(node, self._node.world.now())
        else:
            self._dead_since.pop(node, None)
        self._wake.set()

    async def _turn(self) -> float:
        """Do what is due; answers after how many seconds to look again, unless something happens before."""
        view = self._node.view
        metadata = view.metadata
        if metadata is None or driver_of(metadata.control, view.not_dead()) != view.self_id:
            self.problem = ""
            return math.inf
        if metadata.control_next:
            return await self._finish(metadata)
        now = self._node.world.now()
        left_s = {node: max(0.0, self._dead_since[node] + CONTROL_DEATH_S - now) for node in self._doubted(metadata)}
        dead = {node for node, left in left_s.items() if not left}
        following = next_control(metadata, alive=self._alive(metadata), dead=dead)
        if following is not None:
            return await self._begin(metadata, following)
        missed = waited_for(metadata, alive=self._alive(metadata), dead=dead)
        self.problem = MISSED.format(_names(metadata, missed)) if missed else ""
        if missed:
            return RETRY_S
        return min((left for left in left_s.values() if left), default=math.inf)

    def _doubted(self, metadata: ClusterMetadata) -> list[NodeId]:
        for node in self._dead_since.keys() - metadata.members.keys():
            del self._dead_since[node]
        return [node for node in metadata.control if node in self._dead_since]

    def _alive(self, metadata: ClusterMetadata) -> frozenset[NodeId]:
        view = self._node.view
        usable = view.usable | {view.self_id}
        return frozenset(
            node for node in metadata.members if node in usable and view.liveness.get(node) in (None, Liveness.ALIVE)
        )

    async def _begin(self, metadata: ClusterMetadata, following: tuple[NodeId, ...]) -> float:
        def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
            if current.control != metadata.control or current.control_next:
                return current  # somebody else was there first
            return begin_control(current, following, change_id=change_id)

        log.info("the control set changes", names=_names(metadata, metadata.control), to=_names(metadata, following))
        try:
            chosen = await self._node.register.change(change, CHANGE_TIMEOUT_S, gives_way=True)
        except LeafdbError as error:
            return self._failed(error)
        await offer(self._node, chosen)
        return SETTLE_S

    async def _finish(self, metadata: ClusterMetadata) -> float:
        def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
            if current.control_next != metadata.control_next:
                return current
            return finish_control(current, change_id=change_id)

        try:
            chosen = await self._node.register.change(change, CHANGE_TIMEOUT_S, gives_way=True)
        except LeafdbError as error:
            return self._failed(error)
        log.info("the control set has changed", names=_names(chosen, chosen.control))
        await offer(self._node, chosen)
        return SETTLE_S

    def _failed(self, error: LeafdbError) -> float:
        self.problem = f"the control set could not be changed: {error}"
        log.warning("the control set could not be changed", reason=str(error))
        return RETRY_S * (0.5 + self._node.world.rng.random())


def _names(metadata: ClusterMetadata, nodes: tuple[NodeId, ...]) -> str:
    return ", ".join(metadata.members[node].name for node in nodes)
