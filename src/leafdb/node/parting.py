"""A member that goes for good by the plan in progress: what it still has to do for the others before it may.

The plan's end bans it, and nobody talks to it any more. What only it has must be with others by then: hints it keeps,
records it owes somebody. So from the commit on it hands its hints on (`orphan_hints`); in the last phase it also takes
no new ones and no work of clients, and `waiting` says what is left. The driver ends the plan when that is nothing.

A member that was joining goes the same way when its plan is given up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from leafdb.node.heirs import goers
from leafdb.node.logs import Log
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase

if TYPE_CHECKING:
    from leafdb.node.node import Node

log: Log = Log("parting")


class Parting:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._goes = False
        self._drains = False
        self.last: bool = False
        """This is the last phase in which it is a member."""

    def installed(self, metadata: ClusterMetadata) -> None:
        """New metadata is in force."""
        node, plan = self._node, metadata.plan
        self._goes = node.view.self_id in goers(metadata)
        last = self._goes and plan is not None and plan.phase is not Phase.WRITE_BOTH_READ_OLD
        if last and not self.last:
            log.info("this node goes when it has given everything away")
        self.last = node.hints.closed = last
        node.drain.goes(last)
        self._tell()

    def drains(self, active: bool) -> None:
        """It takes no work of clients any more, or again."""
        self._drains = active
        self._tell()

    def _tell(self) -> None:
        self._node.estate.orphans.part(goes=self._goes, drains=self._drains)

    def waiting(self) -> Iterator[str]:
        """What keeps the plan from its end here, in words; nothing unless this is the last phase."""
        if not self.last:
            return
        node, name = self._node, self._node.view.name_of(self._node.view.self_id)
        if node.coordinator.operations:
            yield f"{name} has {len(node.coordinator.operations)} requests under way"
        hints = {line.target: line.records for line in node.hints.ledger.summaries()}
        if hints:
            told = ", ".join(f"{records} for {node.view.name_of(target)}" for target, records in hints.items())
            yield f"{name} keeps hints that nobody else has yet: {told}"
        for peer in node.anti_entropy.debts.peers():
            # Who is dead is away for everybody: they all owe it a comparison, not this node alone.
            if peer in node.view.not_dead():
                yield f"{name} has to compare ranges with {node.view.name_of(peer)}"
