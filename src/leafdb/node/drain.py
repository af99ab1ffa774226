"""A node that takes no work of clients for a while: before it is stopped, while somebody looks at its machine, or in
the last phase of the plan by which it goes for good.

It refuses what clients ask, and what others forward for them, as work that was not begun (`draining`); clients go to
the next node at once. It goes on being a replica: copies come in and are acknowledged, reads of others are answered,
hints go home. The others are told, so that they forward elsewhere: at once, and whenever it meets one. Nothing of it is
kept: a restart takes work again.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from leafdb.errors import NotApplied, Reason
from leafdb.node.logs import Log
from leafdb.types import NodeId
from leafdb.wire.control import AdminRequest
from leafdb.wire.registry import Lane, MessageType

if TYPE_CHECKING:
    from leafdb.node.node import Node

TELL_TIMEOUT_S = 5.0

log: Log = Log("drain")


class DrainState(Enum):
    """How far it is."""

    SERVING = "serving"
    DRAINING = "draining"
    """Requests are under way here, or hints for members that are there."""
    DRAINED = "drained"


class Drain:
    """Of one node; what it knows of the others' is in the view."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.active: bool = False
        self._asked = False
        self._goes = False

    def begin(self) -> None:
        """Take no more work. Harmless when it does not already."""
        self._asked = True
        self._update()

    def end(self) -> None:
        """Take work again. Raises NotApplied when the node is about to end, or to leave its cluster."""
        if self._node.tenure.stopping or self._node.tenure.is_over:
            raise NotApplied("this node is stopping: there is no way back", reason=Reason.DRAINING)
        if self._goes:
            raise NotApplied("this node goes by the plan in progress: abort that", reason=Reason.DRAINING)
        self._asked = False
        self._update()

    def goes(self, last: bool) -> None:
        """Whether the plan in progress is in the phase after which this node is no member."""
        self._goes = last
        self._update()

    def state(self) -> DrainState:
        """How far it is."""
        node = self._node
        if not self.active:
            return DrainState.SERVING
        there = node.peers.connected(Lane.BULK)
        left = (member for member in there if node.hints.ledger.records(member))
        if node.coordinator.operations or not all(map(node.hint_pauses.paused, left)):
            return DrainState.DRAINING
        if not node.estate.orphans.parted:
            return DrainState.DRAINING
        return DrainState.DRAINED

    def met(self, member: NodeId) -> None:
        """The control lane to a member is up: it takes work until it says otherwise, perhaps in its next word."""
        self.heard(member, draining=False)
        if self.active:
            self._tell(member)

    def heard(self, member: NodeId, *, draining: bool) -> None:
        """A member takes work of clients, or does not."""
        if draining:
            self._node.view.draining.add(member)
        else:
            self._node.view.draining.discard(member)

    def _update(self) -> None:
        active = self._asked or self._goes
        if active == self.active:
            return
        log.info("taking no work of clients" if active else "taking work of clients again")
        self.active = self._node.coordinator.draining = active
        self._node.parting.drains(active)
        for member in self._node.peers.connected(Lane.CONTROL):
            self._tell(member)

    def _tell(self, member: NodeId) -> None:
        node = self._node
        args = {"node": int(node.view.self_id), "draining": self.active}
        body = AdminRequest("node.draining", args).encode()
        # Whoever does not hear it forwards to us, and hands our refusal on: the client asks the next node.
        node.peers.request(member, Lane.CONTROL, MessageType.PEER_ADMIN, body, lambda _: None, TELL_TIMEOUT_S)
