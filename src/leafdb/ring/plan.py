"""A plan: a committed change of the ring on its way, kept in the metadata until it is done or given up.

    commit ──> WRITE_BOTH_READ_OLD ──advance──> WRITE_BOTH_READ_NEW ──finish──> done: the new table is the table
                     │ abort                          │ abort
                     v                                v
               as it was before <──finish_abort── RETREAT (write both, read old)

The metadata's `owners` stay what they were until the end; the table to be is here. Members that come are members from
the commit on, members that go until the end: both hold copies, or fetch them, all the while.

**One step at a time, both ways.** What an epoch writes meets what the epochs next to it read: the one after, so that
nothing acknowledged is lost, and the one before, because a coordinator may not have heard yet. That is why giving up
from WRITE_BOTH_READ_NEW takes two steps: the old owners alone would take writes that a coordinator which still reads
from the new ones does not see. RETREAT is left when every new owner knows that it is over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from leafdb.codec.fields import as_bytes, as_int, as_list, as_map, bytes_field, int_field, list_field
from leafdb.limits import NODE_ID_MAX, NODES_MAX, PARTITIONS_MAX
from leafdb.ring.packing import EPOCH_MAX, pack_owners, unpack_owners
from leafdb.ring.staging import STORE_ID_BYTES
from leafdb.types import Epoch, NodeId

PLAN_ID_BYTES: Final = 16

_FIELDS: Final = frozenset(
    ("id", "phase", "epoch", "owners", "joining", "stores", "leaving", "removed", "replaced"),
)


class Phase(IntEnum):
    """How far a plan has come. The numbers are persisted and never change meaning."""

    WRITE_BOTH_READ_OLD = 1
    """Copies are being made."""
    WRITE_BOTH_READ_NEW = 2
    """Copies are done; the old owners are told."""
    RETREAT = 3
    """Given up after reads had moved: both are written, the old ones are read, until every new owner knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One change of the ring."""

    id: bytes
    """A digest of what it starts from and what it comes to: two plans of one id are the same."""
    phase: Phase = Phase.WRITE_BOTH_READ_OLD
    owners: tuple[NodeId, ...]
    """The owner of each partition when it is done."""
    joining: tuple[NodeId, ...] = ()
    """Who comes, replacements too, ascending; their numbers are given with the plan and used up by it."""
    stores: tuple[bytes, ...] = ()
    """For each of `joining` the only store that may be it; empty when any may."""
    leaving: tuple[NodeId, ...] = ()
    removed: tuple[NodeId, ...] = ()
    """Force-removed."""
    replaced: tuple[tuple[NodeId, NodeId], ...] = ()
    """(who goes, who takes its place), ascending by the first."""
    epoch: Epoch
    """Of its commit."""

    @property
    def going(self) -> frozenset[NodeId]:
        """Members that are none when it is done."""
        return frozenset((*self.leaving, *self.given_up))

    @property
    def given_up(self) -> frozenset[NodeId]:
        """Members that are believed dead: no step waits for them when they do not answer."""
        return frozenset((*self.removed, *(old for old, _ in self.replaced)))

    @property
    def reads_new(self) -> bool:
        """Whether reads ask the new owners."""
        return self.phase is Phase.WRITE_BOTH_READ_NEW

    def store_of(self, node: NodeId) -> bytes:
        """The only store that may come as `node`, empty when any may. KeyError when it does not come."""
        return dict(zip(self.joining, self.stores, strict=True))[node]

    def check(self) -> list[str]:
        """What is wrong with it, taken alone; how it fits its metadata is for `metadata_rules`."""
        problems = []
        if len(self.id) != PLAN_ID_BYTES:
            problems.append(f"its id has {len(self.id)} bytes, not {PLAN_ID_BYTES}")
        olds = tuple(old for old, _ in self.replaced)
        for what, nodes in (
            ("joining", self.joining),
            ("leaving", self.leaving),
            ("removed", self.removed),
            ("replaced", olds),
        ):
            if list(nodes) != sorted(set(nodes)):
                problems.append(f"{what} nodes are not ascending")
        everybody = (*self.joining, *self.leaving, *self.removed, *olds)
        if not everybody or len(set(everybody)) != len(everybody):
            problems.append("nobody comes or goes, or somebody does twice")
        news = [new for _, new in self.replaced]
        if not set(news) <= set(self.joining) or len(set(news)) != len(news):
            problems.append("a replacement does not come, or comes twice")
        if len(self.stores) != len(self.joining) or {len(store) for store in self.stores} - {0, STORE_ID_BYTES}:
            problems.append("stores of who comes are not one each")
        if set(self.owners) & self.going:
            problems.append("somebody who goes owns something in the end")
        return [f"plan: {problem}" for problem in problems]

    def describe(self) -> str:
        """One line for people."""
        parts = [f"plan {self.id.hex()} of epoch {self.epoch}: {self.phase.name.lower().replace('_', ' ')}"]
        replacements = {new for _, new in self.replaced}
        joins = [node for node in self.joining if node not in replacements]
        for what, nodes in (("join", joins), ("leave", self.leaving), ("removed", self.removed)):
            if nodes:
                parts.append(f"{what} {', '.join(map(str, nodes))}")
        parts += [f"{new} replaces {old}" for old, new in self.replaced]
        return "; ".join(parts)

    # -- bytes

    def to_wire(self) -> dict[str, Any]:
        """Its map in the metadata (docs/formats/metadata.md)."""
        return {
            "id": self.id,
            "phase": int(self.phase),
            "epoch": int(self.epoch),
            "owners": pack_owners(self.owners),
            "joining": list(self.joining),
            "stores": list(self.stores),
            "leaving": list(self.leaving),
            "removed": list(self.removed),
            "replaced": [list(pair) for pair in self.replaced],
        }

    @classmethod
    def from_wire(cls, value: object, partitions: int) -> Plan:
        """The plan in a decoded map. ValueError when a field is missing, unknown, mistyped or out of bounds."""
        fields = as_map(value, "plan")
        if odd := fields.keys() ^ _FIELDS:
            raise ValueError(f"plan fields missing or unknown: {sorted(map(str, odd))}")
        stores = list_field(fields, "stores", items_max=NODES_MAX)
        return cls(
            id=bytes_field(fields, "id", low=PLAN_ID_BYTES, high=PLAN_ID_BYTES),
            phase=Phase(int_field(fields, "phase")),
            epoch=Epoch(int_field(fields, "epoch", low=1, high=EPOCH_MAX)),
            owners=unpack_owners(bytes_field(fields, "owners", high=2 * PARTITIONS_MAX), partitions),
            joining=_nodes(fields, "joining"),
            stores=tuple(as_bytes(store, "store", high=STORE_ID_BYTES) for store in stores),
            leaving=_nodes(fields, "leaving"),
            removed=_nodes(fields, "removed"),
            replaced=tuple(_pair(item) for item in list_field(fields, "replaced", items_max=NODES_MAX)),
        )


def _nodes(fields: Mapping[str, Any], name: str) -> tuple[NodeId, ...]:
    return tuple(_node(item, name) for item in list_field(fields, name, items_max=NODES_MAX))


def _node(item: object, what: str) -> NodeId:
    return NodeId(as_int(item, what, low=1, high=NODE_ID_MAX))


def _pair(item: object) -> tuple[NodeId, NodeId]:
    pair: Sequence[Any] = as_list(item, "replaced", items_max=2)
    if len(pair) != 2:
        raise ValueError("a replacement is no pair of nodes")
    return _node(pair[0], "replaced"), _node(pair[1], "replaced")
