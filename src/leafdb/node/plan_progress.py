"""How far a node's part of a plan is: what it says of itself, and what the driver of the plan hears.

    plan.progress {} -> {epoch, plan_id, settled, left, total, bytes_done, bytes_left, bytes_per_s, waiting_for, keeps,
                         waiting}

`settled` is the word that counts: nothing is owed here, in either direction, in a range that is changing, and a member
that goes keeps nothing that only it has (`parting`; `keeps` says what). The other figures are for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leafdb.codec.fields import as_int, bool_field, bytes_field, int_field, list_field
from leafdb.limits import NODE_ID_MAX, NODES_MAX
from leafdb.ring.plan import PLAN_ID_BYTES
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One node's answer."""

    epoch: int
    """Of the metadata in force there."""
    plan_id: bytes
    """Of the plan in those; empty: none."""
    settled: bool
    left: int = 0
    """Exchanges."""
    total: int = 0
    bytes_done: int = 0
    bytes_left: int | None = 0
    """About; None: nobody can say yet."""
    bytes_per_s: int = 0
    waiting_for: tuple[NodeId, ...] = ()
    """Old owners that it cannot reach."""
    keeps: tuple[str, ...] = ()
    """What it has to give away before it may go, a sentence each."""

    def to_wire(self) -> dict[str, Any]:
        """As an answer."""
        return {
            "epoch": self.epoch,
            "plan_id": self.plan_id,
            "settled": self.settled,
            "left": self.left,
            "total": self.total,
            "bytes_done": self.bytes_done,
            "bytes_left": self.bytes_left,
            "bytes_per_s": self.bytes_per_s,
            "waiting_for": [int(node) for node in self.waiting_for],
            "keeps": list(self.keeps),
        }

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any]) -> Progress:
        """Of an answer. ValueError."""
        waiting = list_field(answer, "waiting_for", items_max=NODES_MAX)
        return cls(
            epoch=int_field(answer, "epoch"),
            plan_id=bytes_field(answer, "plan_id", high=PLAN_ID_BYTES),
            settled=bool_field(answer, "settled"),
            left=int_field(answer, "left"),
            total=int_field(answer, "total"),
            bytes_done=int_field(answer, "bytes_done"),
            bytes_left=None if answer.get("bytes_left") is None else int_field(answer, "bytes_left"),
            bytes_per_s=int_field(answer, "bytes_per_s"),
            waiting_for=tuple(NodeId(as_int(node, "node", low=1, high=NODE_ID_MAX)) for node in waiting),
            keeps=tuple(str(text) for text in list_field(answer, "keeps", items_max=NODES_MAX)),
        )


def own_progress(node: Node) -> Progress:
    """Of this node, at this moment."""
    metadata, report = node.view.metadata, node.transfers.report()
    plan = None if metadata is None else metadata.plan
    keeps = tuple(node.parting.waiting())
    return Progress(
        epoch=node.view.epoch,
        plan_id=b"" if plan is None else plan.id,
        settled=node.transfers.settled() and not keeps,
        left=report.left,
        total=report.total,
        bytes_done=report.bytes_done,
        bytes_left=report.bytes_left,
        bytes_per_s=report.bytes_per_s,
        waiting_for=report.waiting_for,
        keeps=keeps,
    )
