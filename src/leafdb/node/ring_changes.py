"""What a node does for changes of the ring besides serving: drives plans and the control set when it is its turn, finds
changes that nobody has heard of, and remembers in words what has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from leafdb.node.control_driver import ControlDriver
from leafdb.node.engine_reads import read_value
from leafdb.node.plan_driver import PlanDriver
from leafdb.node.register import META_TREE
from leafdb.node.ring_history import HISTORY_KEY, RingHistory
from leafdb.node.unheard import Unheard

if TYPE_CHECKING:
    from leafdb.node.node import Node


class RingChanges:
    """The parts, for admin verbs. Made by `open_ring_changes`."""

    def __init__(self, node: Node, history: RingHistory) -> None:
        self.history = history
        self.plans: PlanDriver = PlanDriver(node)
        self.control: ControlDriver = ControlDriver(node)
        self._unheard = Unheard(node)

    async def run(self) -> None:
        """Drive until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.plans.run, name="plan driver")
            nursery.start_soon(self.control.run, name="control set driver")
            nursery.start_soon(self._unheard.run, name="unheard changes")

    def waiting(self) -> list[str]:
        """For whom a change of the ring waits, when it is for this node to drive it."""
        return [*self.plans.waiting, *self._control_problem()]

    def stuck(self) -> list[str]:
        """What of it goes on only when somebody does something: brings a node back, or gives the plan up."""
        return [*self.plans.stuck, *self._control_problem()]

    def _control_problem(self) -> list[str]:
        return [self.control.problem] if self.control.problem else []


async def open_ring_changes(node: Node) -> RingChanges:
    """With the history that the store remembers. Raises StorageError."""
    stored = await read_value(node.engine, META_TREE, HISTORY_KEY)
    return RingChanges(node, RingHistory(node.engine, node.view, node.world.now_ms, stored))
