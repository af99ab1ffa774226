"""How it looks to a person that deleted data waits to be forgotten: how much, for how long, and who holds it up.

Each node tells of the partitions it leads; here they are put together, and whoever holds up several is named once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from leafdb_cli.render import Column, human_seconds

Line = Mapping[str, Any]

HELD_UP_COLUMNS: Final = [
    Column("member"), Column("hold", "reason"), Column("partitions", right=True),
    Column("since_s", "for", human_seconds, right=True), Column("why", spare=1),
]  # fmt: skip


def holders(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Who holds up horizons, and why: a line for each member and reason, over all leaders."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        for held in line["held_up"]:
            slot = str(held["member"]), str(held["hold"])
            known = found.setdefault(slot, {**held, "partitions": 0})
            known["partitions"] += held["partitions"]
            known["since_s"] = max(known["since_s"], held["since_s"])
            known["since_ms"] = min(known["since_ms"], held["since_ms"])
    return [found[slot] for slot in sorted(found)]


def purge_text(lines: Sequence[Line]) -> list[str]:
    """What waits, who holds it up, the last proof and the next: a sentence each; nothing of nodes that cannot tell."""
    if not lines:
        return []
    waiting = sum(int(line["waiting"]) for line in lines)
    next_s = min((float(line["next_s"]) for line in lines if line["waiting"]), default=0.0)
    if not waiting:
        found = ["nothing that was deleted waits to be forgotten"]
    elif any(line["under_way"] for line in lines):
        found = [f"tombstones wait in {waiting} partitions, the oldest for {_oldest(lines)}; a proof is under way"]
    else:
        soon = f"next proof in {human_seconds(next_s)}"
        found = [f"tombstones wait in {waiting} partitions, the oldest for {_oldest(lines)}; {soon}"]
    proofs = [line["last"] for line in lines if line["last"]]
    if proofs:
        last = min(proofs, key=lambda proof: float(proof["ago_s"]))
        ago = human_seconds(float(last["ago_s"]))
        found.append(f"the last proof, {ago} ago, let {last['raised']} of {last['asked']} partitions forget")
    return found + [
        f"! {held['member']} holds up {held['partitions']} partitions for {human_seconds(held['since_s'])}: "
        f"{held['why']}"
        for held in holders(lines)
    ]


def _oldest(lines: Sequence[Line]) -> str:
    return human_seconds(max(float(line["oldest_s"]) for line in lines))
