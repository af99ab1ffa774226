"""Why the record of a key that was deleted, or has expired, is still stored; pure.

Every write has a *death*: a tombstone is dead from its stamp on, an expiring value from its expiry, any other value
never. A record may be forgotten when all in it is dead below the *horizon* of its partition, the proof that every owner
had everything as old as that (docs/decisions/0008, section 2). Until then the record is what keeps a copy that missed
the deletion from bringing the old value back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leafdb.model.hlc import LOGICAL_BITS
from leafdb.node.key_facts import WriteFacts
from leafdb.node.key_standing import Copy
from leafdb.node.versions import dot_text
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import PartitionId


@dataclass(frozen=True, slots=True)
class Kept:
    """The answer: a sentence for each thing to know, and the writes with their deaths."""

    kept: bool
    verdict: str
    horizon: int | None
    writes: tuple[dict[str, Any], ...]
    held_back_by: tuple[str, ...]


def horizon_of(metadata: ClusterMetadata, partition: PartitionId) -> int | None:
    """The horizon of a partition, a stamp; None as long as none has been proved."""
    return (metadata.horizons[partition].stamp or None) if metadata.horizons else None


def death_of(write: WriteFacts) -> int | None:
    """The stamp from which on the write is dead; None: never."""
    if write.state == "tombstone":
        return write.stamp
    return max(write.stamp, write.expires_ms << LOGICAL_BITS) if write.expires_ms else None


def why_kept(
    copies: Sequence[Copy],
    errors: Mapping[str, str],
    *,
    partition: int,
    horizon: int | None,
    pending: Sequence[str],
) -> Kept:
    """Why it is kept. `pending` are new owners whose copy of the range is being made."""
    written = {each.dot: each for copy in copies for each in copy.facts.writes}
    writes = tuple(
        {
            "dot": dot_text(dot),
            "state": each.state,
            "stamp": each.stamp,
            "death": death_of(each),
            "below_horizon": _below(each, horizon),
            "replicas": [copy.name for copy in copies if any(other.dot == dot for other in copy.facts.writes)],
        }
        for dot, each in sorted(written.items(), key=lambda item: (item[1].stamp, item[0]))
    )
    held = _held_back(copies, errors, horizon, pending)
    return Kept(bool(written), _verdict(list(written.values()), partition, horizon), horizon, writes, tuple(held))


def _below(write: WriteFacts, horizon: int | None) -> bool:
    death = death_of(write)
    return horizon is not None and death is not None and death < horizon


def _verdict(writes: Sequence[WriteFacts], partition: int, horizon: int | None) -> str:
    if not writes:
        return "nobody who was asked has a record of this key"
    alive = sum(1 for each in writes if each.state == "live")
    if alive:
        what = "a value is" if alive == 1 else f"{alive} values are"
        return f"{what} alive: the key is neither deleted nor expired"
    if horizon is None:
        return (
            f"no horizon has been proved for partition {partition}: nothing of it may be forgotten yet, for a copy "
            "that missed this could bring the old value back"
        )
    if all(_below(each, horizon) for each in writes):
        return f"all of it is dead below the horizon of partition {partition}: the sweeper is about to remove it"
    return f"it died after the horizon of partition {partition}: it is kept until the horizon has passed its death"


def _held_back(
    copies: Sequence[Copy], errors: Mapping[str, str], horizon: int | None, pending: Sequence[str]
) -> list[str]:
    """Who keeps the horizon from moving on: it needs everybody's word, and all owners whole and vouching."""
    held = [f"{node} cannot be asked, and every member has to promise: {reason}" for node, reason in errors.items()]
    for copy in copies:
        if copy.kept_for:
            held.append(f"{copy.node} keeps a hint of this key for {copy.kept_for}")
        elif not copy.vouches:
            held.append(f"{copy.node} cannot vouch for what lies below the horizon")
        elif not copy.complete:
            held.append(f"{copy.node} is not complete for the range")
    return held + [f"{node} is becoming an owner, and its copy is not made yet" for node in pending]
