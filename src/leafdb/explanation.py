"""Why a read or write ended as it did: plain values, made by the node that coordinated it, kept by whoever asked.

    explained = bucket.get_explained("alice")
    print(explained.explanation)            # a page for people
    explained.explanation.behind            # the same facts for programs
    explained.explanation.to_json()

An explanation says what was known at the moment of the answer: a replica that was asked and had not answered by then
is `UNANSWERED`, whatever became of it. Errors of explained calls carry one as `error.explanation`, if a node could be
heard at all. All times are milliseconds since the coordinator took the request up.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal


class Status(StrEnum):
    """What a replica did, or why it did nothing."""

    FOUND = "found"
    """It showed its record."""
    ABSENT = "absent"
    """It is complete for the range and holds nothing."""
    UNKNOWN = "unknown"
    """It may have forgotten something, or is a stand-in without a copy: it never counts. What it has is merged."""
    APPLIED = "applied"
    """It holds the write, as durably as was asked."""
    OVERLOADED = "overloaded"
    STALE_EPOCH = "stale epoch"
    """It goes by another version of the ring than the coordinator."""
    EXPIRED = "expired"
    NO_SUCH_BUCKET = "no such bucket"
    NOT_A_REPLICA = "not a replica"
    DISK_FULL = "disk full"
    FAILED = "failed"
    """It cannot say what became of it."""
    UNANSWERED = "unanswered"
    """Asked, and not heard of before the answer was due."""
    LOST = "lost"
    """The connection to it broke."""
    UNSENT = "unsent"
    """The request could not be queued for it."""
    AWAY = "away"
    """It could not be reached, and was not asked."""
    NOT_ASKED = "not asked"
    """It could have been asked; there was no need."""


Cause = Literal["", "first", "spare", "hedge"]
"""Why a replica was asked: at once, in place of one that failed, or because another one was slow."""
WriteBack = Literal["", "waiting", "confirmed", "failed"]
"""Of a replica that was sent the merge before the answer."""
Follows = Literal["", "read repair", "hint"]
"""What the coordinator does for a replica beside the answer."""


@dataclass(frozen=True, slots=True)
class Write:
    """One write that a version holds: its unique name, when it was coordinated, and what it is now."""

    dot: str
    stamp: int
    state: Literal["live", "tombstone", "expired"]


@dataclass(frozen=True, slots=True)
class Version:
    """What a replica holds of a key. Equal digests are equal records; `leafdb kv where` shows the same ones."""

    digest: str
    siblings: int
    """Values that a reader sees."""
    tombstone: bool
    """It holds something, and a reader sees nothing of it."""
    writes: tuple[Write, ...]
    """The writes in it that nothing has replaced, in dot order."""
    more_writes: int = 0
    """So many more than are listed."""

    def __str__(self) -> str:
        what = "deleted" if self.tombstone else "1 value" if self.siblings == 1 else f"{self.siblings} siblings"
        return f"{self.digest} {what}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a request needed, resolved for the owners there were: `r` and `pr` of a get, `w` and `pw` of a put."""

    n: int
    r: int = 0
    pr: int = 0
    w: int = 0
    pw: int = 0
    durable: bool = False
    """Acknowledgements wait for the disk even where the bucket does not (dw was asked for)."""
    sloppy: bool = False
    """Others may stand in for primaries that are away."""

    def __str__(self) -> str:
        counts = {"r": self.r, "pr": self.pr, "w": self.w, "pw": self.pw}
        asked = ", ".join(f"{name}={count}" for name, count in counts.items() if count)
        durable = ", on disk" if self.durable else ""
        return f"{asked} of n={self.n}{durable}, {'sloppy' if self.sloppy else 'strict'}"


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica's part in a request."""

    node: str
    role: str
    """primary or fallback; while the ring changes both, old owner, new owner, or pending (its copy is being made)."""
    status: Status
    stands_for: str = ""
    """The owner for which a fallback keeps its copy."""
    cause: Cause = ""
    asked_ms: float | None = None
    answered_ms: float | None = None
    counted: bool = False
    """Its answer was one of those that decided."""
    behind: bool = False
    """It lacked something of what was merged."""
    write_back: WriteBack = ""
    follows: Follows = ""
    version: Version | None = None
    """What it showed; of a write what it was sent, and may hold more than."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A node that holds no copy of the key and handed the request on; `waited_ms` until its answer came."""

    node: str
    waited_ms: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a get or put was carried out."""

    operation: Literal["get", "put"]
    answered: bool
    """False: it failed, and the error says why."""
    bucket: str
    node: str
    """Who coordinated; who could not, when it never came so far."""
    forwarded_by: tuple[Hop, ...]
    """Nodes that handed the request on, the last one first."""
    forwarded_to: str
    """Whom `node` had handed it on to, when nothing came back from there."""
    epoch: int
    """Of the ring."""
    range_epoch: int
    """Of the last change of the key's range."""
    partition: int | None
    """None: the request failed before its key had a place."""
    policy: Policy | None
    other_policy: Policy | None
    """While the ring changes: what the second set of owners must have."""
    replicas: tuple[Replica, ...]
    more_replicas: int
    """So many more than are listed."""
    merged: Version | None
    """What was read, of all that was merged; what was written. None: nothing is there, or nothing came of it."""
    decided_ms: float
    notes: tuple[str, ...]
    """What else happened on the way."""

    @property
    def counted(self) -> tuple[str, ...]:
        """Who decided it."""
        return tuple(each.node for each in self.replicas if each.counted)

    @property
    def behind(self) -> tuple[str, ...]:
        """Who lacked something of what was merged."""
        return tuple(each.node for each in self.replicas if each.behind)

    @property
    def written_back(self) -> tuple[str, ...]:
        """Who was sent the merge before the answer."""
        return tuple(each.node for each in self.replicas if each.write_back)

    @property
    def repaired_later(self) -> tuple[str, ...]:
        """For whom a repair or a hint follows."""
        return tuple(each.node for each in self.replicas if each.follows)

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts and lists, named as here."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    def __str__(self) -> str:
        return "\n".join([self._head(), *self._table(), *self._sentences()])

    def _head(self) -> str:
        ended = "answered" if self.answered else "failed"
        where = "no place" if self.partition is None else f"partition {self.partition}"
        what = f"{self.operation} in {self.bucket}" if self.bucket else self.operation
        return f"{what}: {ended} by {self.node} after {self.decided_ms:.1f} ms, {where}, epoch {self.epoch}"

    def _table(self) -> list[str]:
        rows = [_row(each) for each in self.replicas]
        widths = [max((len(row[index]) for row in rows), default=0) for index in range(4)]
        return [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, (*widths, 0), strict=True)).rstrip()
            for row in rows
        ]

    def _sentences(self) -> list[str]:
        lines = [
            f"  {hop.node} holds no copy, handed it on and waited {hop.waited_ms:.1f} ms" for hop in self.forwarded_by
        ]
        if self.forwarded_to:
            lines.append(f"  {self.node} handed it on to {self.forwarded_to}, and no answer came")
        if self.policy is not None:
            lines.append(f"  needed {self.policy}")
        if self.other_policy is not None:
            lines.append(f"  needed {self.other_policy}, of the other owners")
        lines.append(f"  counted: {_names(self.counted)}")
        if self.more_replicas:
            lines.append(f"  and {self.more_replicas} more replicas")
        if silent := [each.node for each in self.replicas if each.status is Status.UNANSWERED]:
            hint = "; a hint is kept for who stays silent" if self.operation == "put" and self.answered else ""
            lines.append(f"  not heard of by then: {_names(silent)}{hint}")
        if self.behind:
            lines.append(f"  behind: {_names(self.behind)}")
            lines.append(f"  merged to {self.merged or 'nothing'}")
        for state, text in _WRITE_BACKS.items():
            if nodes := [each.node for each in self.replicas if each.write_back == state]:
                lines.append(f"  {text}: {_names(nodes)}")
        for kind, text in _FOLLOWING.items():
            if nodes := [each.node for each in self.replicas if each.follows == kind]:
                lines.append(f"  {text}: {_names(nodes)}")
        return lines + [f"  {note}" for note in self.notes]


_WRITE_BACKS: dict[str, str] = {
    "confirmed": "brought up to date before the answer",
    "waiting": "sent the merge, not yet confirmed",
    "failed": "could not be brought up to date",
}
_FOLLOWING: dict[str, str] = {
    "read repair": "sent what they lack, nobody waits for it",
    "hint": "kept for them until they take it",
}


def _row(replica: Replica) -> tuple[str, str, str, str, str]:
    role = f"for {replica.stands_for}" if replica.stands_for else replica.role
    asked = "" if replica.asked_ms is None else f"{replica.asked_ms:.1f}"
    answered = "" if replica.answered_ms is None else f" to {replica.answered_ms:.1f} ms"
    version = "" if replica.version is None else str(replica.version)
    cause = "" if replica.cause == "first" else replica.cause
    return replica.node, role, str(replica.status), asked + answered, ", ".join(filter(None, (version, cause)))


def _names(nodes: tuple[str, ...] | list[str]) -> str:
    return ", ".join(nodes) or "nobody"


def _plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, the rest as it is."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, StrEnum) else value
