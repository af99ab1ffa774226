"""How far a node's part of a plan is: what it says of itself, and what the driver of the plan hears.

    plan.progress {} -> {epoch, plan_id, settled, left, total, bytes_done, bytes_left, waiting_for,
                         bytes_per_s, waiting}

`settled` is the word that counts: nothing is owed here, in either direction, in a range that is changing. The other
figures are for people. A rate is what was done between two askings, so it is there once somebody watches; the driver
of a plan asks every second.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from leafdb.codec.fields import as_int, bool_field, bytes_field, int_field, list_field
from leafdb.limits import NODE_ID_MAX, NODES_MAX
from leafdb.node.view import ClusterView
from leafdb.ring.plan import PLAN_ID_BYTES
from leafdb.ring.transitions import changing_partitions
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

RATE_WINDOW_S: Final = 30.0
RATE_SAMPLES_MAX: Final = 64


class TransferReport(Protocol):
    """What is left to copy here, in figures."""

    @property
    def total(self) -> int: ...
    @property
    def left(self) -> int: ...
    @property
    def bytes_done(self) -> int: ...
    @property
    def bytes_left(self) -> int: ...
    @property
    def waiting_for(self) -> Sequence[NodeId]: ...


class Transfers(Protocol):
    """The copies that a plan asks of this node: `node.transfers`."""

    def report(self) -> TransferReport:
        """How far they are."""

    def settled(self) -> bool:
        """Whether nothing is owed in changing ranges, in either direction."""

    def set_limit(self, bytes_per_s: int) -> None:
        """Take no more than this; 0: as much as comes."""


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
    bytes_left: int = 0
    waiting_for: tuple[NodeId, ...] = ()
    """Old owners that it cannot reach."""

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
            "waiting_for": [int(node) for node in self.waiting_for],
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
            bytes_left=int_field(answer, "bytes_left"),
            waiting_for=tuple(NodeId(as_int(node, "node", low=1, high=NODE_ID_MAX)) for node in waiting),
        )


def own_progress(node: Node) -> Progress:
    """Of this node, at this moment."""
    metadata, report = node.view.metadata, node.transfers.report()
    plan = None if metadata is None else metadata.plan
    return Progress(
        epoch=node.view.epoch,
        plan_id=b"" if plan is None else plan.id,
        settled=node.transfers.settled(),
        left=report.left,
        total=report.total,
        bytes_done=report.bytes_done,
        bytes_left=report.bytes_left,
        waiting_for=tuple(report.waiting_for),
    )


@dataclass(frozen=True, slots=True)
class NoFigures:
    """A report of nothing."""

    total: int = 0
    left: int = 0
    bytes_done: int = 0
    bytes_left: int = 0
    waiting_for: tuple[NodeId, ...] = ()


class WithoutCopies:
    """The transfers of a node that cannot copy: it is settled while no range is changing hands, and not otherwise."""

    def __init__(self, view: ClusterView) -> None:
        self._view = view

    def report(self) -> TransferReport:
        """Nothing."""
        return NoFigures()

    def settled(self) -> bool:
        """Whether there is nothing that would have to be copied."""
        metadata = self._view.metadata
        return metadata is None or not changing_partitions(metadata)

    def set_limit(self, bytes_per_s: int) -> None:
        """There is nothing to hold back."""


class Rate:
    """Bytes per second over the last askings."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=RATE_SAMPLES_MAX)

    def seen(self, now: float, bytes_done: int) -> float:
        """So much was done by now; the rate since the oldest asking that still counts, 0 when there is none."""
        if self._samples and bytes_done < self._samples[-1][1]:
            self._samples.clear()  # another plan
        self._samples.append((now, bytes_done))
        while now - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        return (bytes_done - before) / (now - since) if now > since else 0.0
