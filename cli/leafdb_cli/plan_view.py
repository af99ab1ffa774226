"""A plan of ring changes as a node reports it, read once: what the screen, the drawing and JSON are made of.

`cluster plan` and `ring simulate` answer one map. Here it becomes a value with every field there and of its type, so
that nothing behind it can stumble over an answer; copies for each member are counted from the two owner tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from leafdb.errors import ServerBug

N_UNKNOWN: Final = 3
"""What copies are counted by when no step says an n: that of a bucket that says none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one member has, now and then."""

    node: int
    name: str
    host: str
    zone: str
    before: int
    """Partitions it owns."""
    after: int
    fair: float
    """Its weight's part of everything when the plan is done, 0 to 1; nothing for who goes."""
    copies_before: int
    """Partitions it holds a copy of, for the largest n."""
    copies_after: int

    @property
    def goes(self) -> bool:
        """Whether it is a member no more when the plan is done: everybody else has some weight."""
        return self.fair == 0

    @property
    def moved(self) -> int:
        """Partitions won, or lost."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class StepView:
    """The ranges that are worst off in one step."""

    name: str
    n: int
    least_live: int
    replicas: int
    ranges: str


@dataclass(frozen=True, slots=True)
class SpreadView:
    """How far apart the copies of one key are."""

    hosts: int
    zones: int
    least_hosts: int
    least_zones: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """One plan: staged, in progress, or only simulated."""

    plan_id: str
    """In hexadecimal; empty when it was only simulated."""
    in_progress: bool
    phase: str
    staged: tuple[str, ...]
    shares: tuple[Share, ...]
    n: int
    copies: int
    copies_least: int
    moved: int
    moved_least: int
    bytes_to: tuple[tuple[str, int], ...]
    """(receiver, bytes)."""
    bytes_total: int
    seconds: float | None
    rate_measured: bool
    """Whether the time is estimated from a rate that was seen; otherwise from one that is assumed."""
    steps: tuple[StepView, ...]
    spread_before: SpreadView
    spread_after: SpreadView
    warnings: tuple[str, ...]
    refusals: tuple[str, ...]
    owners_before: tuple[int, ...]
    owners_after: tuple[int, ...]
    future: tuple[str, ...]

    def staying(self) -> frozenset[int]:
        """The numbers of the members when it is done."""
        return frozenset(share.node for share in self.shares if not share.goes)

    def going(self) -> frozenset[int]:
        """The numbers of those who are members until then."""
        return frozenset(share.node for share in self.shares if share.goes)

    def name_of(self, node: int) -> str:
        """A member's name."""
        return next((share.name for share in self.shares if share.node == node), f"node-{node}")

    @classmethod
    def from_wire(cls, reply: Mapping[str, Any], *, simulated: bool = False) -> PlanView:
        """The plan in an answer to `cluster.plan` or `ring.simulate`. Raises ServerBug when it is none.

        A simulated one keeps no id: there is nothing to commit.
        """
        try:
            return _read({**reply, "plan_id": b""} if simulated else reply)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServerBug(f"a plan that cannot be read: {error!r}") from None

    def item(self) -> dict[str, Any]:
        """The plan in JSON. Owners are node numbers, one for each partition."""
        return {
            "plan_id": self.plan_id,
            "in_progress": self.in_progress,
            "phase": self.phase,
            "staged": list(self.staged),
            "ownership": [self._share_item(share) for share in self.shares],
            "partitions": len(self.owners_before),
            "moved": self.moved,
            "moved_least": self.moved_least,
            "moved_ratio": ratio(self.moved, self.moved_least),
            "copies": self.copies,
            "copies_least": self.copies_least,
            "copies_ratio": ratio(self.copies, self.copies_least),
            "bytes_to": [{"name": name, "bytes": size} for name, size in self.bytes_to],
            "bytes_total": self.bytes_total,
            "seconds_estimated": self.seconds,
            "rate_measured": self.rate_measured,
            "steps": [
                {"name": step.name, "n": step.n, "least_live": step.least_live, "replicas": step.replicas,
                 "ranges": step.ranges}
                for step in self.steps
            ],
            "spread_before": _spread_item(self.spread_before),
            "spread_after": _spread_item(self.spread_after),
            "warnings": list(self.warnings),
            "refusals": list(self.refusals),
            "owners_before": list(self.owners_before),
            "owners_after": list(self.owners_after),
            "future": list(self.future),
        }  # fmt: skip

    def _share_item(self, share: Share) -> dict[str, Any]:
        partitions = len(self.owners_before)
        return {
            "node": share.node, "name": share.name, "host": share.host, "zone": share.zone,
            "before": share.before, "after": share.after,
            "share_before": share.before / partitions, "share_after": share.after / partitions,
            "fair_after": share.fair, "copies_before": share.copies_before, "copies_after": share.copies_after,
        }  # fmt: skip


def ratio(made: int, least: int) -> float | None:
    """What is done for each that has to be; None where nothing has to and something is."""
    if least == 0:
        return 1.0 if made == 0 else None
    return made / least


def ranges_text(ranges: Any) -> str:
    """Partitions as a node told them: as text, or as numbers, which become runs."""
    if ranges is None or isinstance(ranges, str):
        return ranges or ""
    from leafdb.ring.plan_safety import ranges_text as runs
    from leafdb.types import PartitionId

    return runs([PartitionId(int(partition)) for partition in ranges])


def _read(reply: Mapping[str, Any]) -> PlanView:
    steps = tuple(_step(step) for step in reply["steps"])
    n = max((step.n for step in steps), default=N_UNKNOWN)
    owners_before, owners_after = _owners(reply["owners_before"]), _owners(reply["owners_after"])
    if len(owners_before) != len(owners_after):
        raise ValueError("two tables of different length")
    rows: list[Mapping[str, Any]] = sorted(reply["ownership"], key=lambda row: int(row["node"]))
    counted = [_copies(owners, rows, n) for owners in (owners_before, owners_after)]
    return PlanView(
        plan_id=bytes(reply["plan_id"]).hex(),
        in_progress=bool(reply["in_progress"]),
        phase=phase_text(reply.get("phase")),
        staged=_texts(reply["staged"] or [what for what in (reply.get("what"),) if what]),
        shares=tuple(_share(row, counted[0], counted[1]) for row in rows),
        n=n,
        copies=int(reply["copies"]),
        copies_least=int(reply["copies_least"]),
        moved=int(reply["moved"]),
        moved_least=int(reply["moved_least"]),
        bytes_to=tuple((str(row["name"]), int(row["bytes"])) for row in reply["bytes_to"]),
        bytes_total=int(reply["bytes_total"]),
        seconds=_finite(reply.get("seconds_estimated")),
        rate_measured=bool(reply.get("rate_measured", False)),
        steps=steps,
        spread_before=_spread(reply["spread_before"]),
        spread_after=_spread(reply["spread_after"]),
        warnings=_texts(reply["warnings"]),
        refusals=_texts(reply["refusals"]),
        owners_before=owners_before,
        owners_after=owners_after,
        future=_texts(reply.get("future") or ()),
    )


def phase_text(phase: Any) -> str:
    """A phase in words; empty when there is none."""
    return str(phase).lower().replace("_", " ") if phase else ""


def _owners(packed: Any) -> tuple[int, ...]:
    from leafdb.ring.packing import unpack_owners

    return unpack_owners(bytes(packed), len(packed) // 2)


def _copies(owners: tuple[int, ...], rows: Iterable[Mapping[str, Any]], n: int) -> dict[int, int]:
    """How many partitions each node holds a copy of."""
    from leafdb.ring.owner_table import OwnerTable
    from leafdb.ring.preference_list import Place
    from leafdb.types import NodeId

    places = {NodeId(int(row["node"])): Place(str(row["host"]), str(row["zone"])) for row in rows}
    held: dict[int, int] = {}
    for listed in OwnerTable([NodeId(owner) for owner in owners], places).lists_of(n):
        for node in listed:
            held[node] = held.get(node, 0) + 1
    return held


def _share(row: Mapping[str, Any], copies_before: Mapping[int, int], copies_after: Mapping[int, int]) -> Share:
    node = int(row["node"])
    return Share(
        node=node,
        name=str(row["name"]),
        host=str(row["host"]),
        zone=str(row["zone"]),
        before=int(row["before"]),
        after=int(row["after"]),
        fair=float(row["fair_after"]),
        copies_before=copies_before.get(node, 0),
        copies_after=copies_after.get(node, 0),
    )


def _step(step: Mapping[str, Any]) -> StepView:
    ranges = step.get("ranges", step.get("partitions"))
    n = int(step.get("n", N_UNKNOWN))
    return StepView(
        phase_text(step["name"]), n, int(step["least_live"]), int(step.get("replicas", n)), ranges_text(ranges)
    )


def _spread(spread: Mapping[str, Any]) -> SpreadView:
    return SpreadView(
        int(spread["hosts"]), int(spread["zones"]), int(spread["least_hosts"]), int(spread["least_zones"])
    )


def _spread_item(spread: SpreadView) -> dict[str, int]:
    return {
        "hosts": spread.hosts, "zones": spread.zones, "least_hosts": spread.least_hosts,
        "least_zones": spread.least_zones,
    }  # fmt: skip


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)


def _finite(value: Any) -> float | None:
    """A number that JSON has."""
    return float(value) if value is not None and math.isfinite(value) else None
