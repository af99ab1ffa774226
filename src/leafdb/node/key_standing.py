"""Who is behind whom on one key, in words; pure.

Copies are compared by what they know of, their clocks: one is behind another when the other knows all it knows, and
more; two have diverged when each knows of a write that the other does not. What merging would make of them follows from
that, so nobody's record has to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from leafdb.node.key_facts import Facts, lacking


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica's copy of a key, or what a node keeps of it for another one."""

    node: str
    facts: Facts
    kept_for: str = ""
    complete: bool = True
    synced: bool = True
    vouches: bool = True

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.node} (for {self.kept_for})" if self.kept_for else self.node


def behind_of(copies: Sequence[Copy]) -> dict[str, int]:
    """How many writes each node's own copy lacks of what all copies know together."""
    clocks = [copy.facts.clock for copy in copies]
    union = clocks[0] if clocks else None
    for clock in clocks[1:]:
        union = clock.merge(union) if union is not None else clock
    return {copy.node: 0 if union is None else lacking(copy.facts.clock, union) for copy in copies if not copy.kept_for}


def sentences(copies: Sequence[Copy], errors: Mapping[str, str]) -> list[str]:
    """What a person should know, the most important first."""
    lines = [*_standing(copies)]
    for copy in copies:
        if not copy.complete:
            lines.append(f"{copy.name} may have forgotten something of this range: what it lacks proves nothing")
        if not copy.vouches:
            lines.append(
                f"{copy.name} cannot vouch for what lies below the horizon: readers are not shown that from it"
            )
        if not copy.synced:
            lines.append(f"{copy.name} has not synced its copy to the disk yet")
        if copy.kept_for:
            lines.append(f"{copy.node} keeps a copy for {copy.kept_for} until that takes it")
    return lines + [f"{node} could not be asked: {reason}" for node, reason in errors.items()]


def _standing(copies: Sequence[Copy]) -> list[str]:
    groups: dict[str | None, list[Copy]] = {}
    for copy in copies:
        groups.setdefault(copy.facts.version, []).append(copy)
    if not groups:
        return ["nobody could be asked"]
    if set(groups) == {None}:
        return ["no replica that was asked has anything of this key"]
    if len(groups) == 1:
        return [f"the same version on {_list(copies)}"]
    members = list(groups.values())
    newest = [group for group in members if not any(_behind(group[0], other[0]) for other in members)]
    lines = []
    for one, other in combinations(newest, 2):
        lines.append(_diverged(one, other))
    for group in members:
        ahead = [other for other in newest if _behind(group[0], other[0])]
        if ahead:
            lines.append(_lags(group, ahead[0]))
    return lines


def _behind(one: Copy, other: Copy) -> bool:
    """Whether the other knows all that this one knows, and is not the same."""
    a, b = one.facts, other.facts
    return a.version != b.version and b.clock.descends(a.clock) and not a.clock.descends(b.clock)


def _lags(group: Sequence[Copy], ahead: Sequence[Copy]) -> str:
    count = lacking(group[0].facts.clock, ahead[0].facts.clock)
    are = "is" if len(group) == 1 else "are"
    if not count:
        return f"{_list(group)} {are} behind {_list(ahead)} by a mark that readers do not see; no write is missing"
    has = "has nothing, and " if group[0].facts.version is None else ""
    return f"{_list(group)} {has}{are} behind {_list(ahead)}: {_writes(count)} missing"


def _diverged(one: Sequence[Copy], other: Sequence[Copy]) -> str:
    a, b = one[0].facts.clock, other[0].facts.clock
    if a == b:
        return f"{_list(one)} and {_list(other)} know of the same writes and hold different bytes: this ought not to be"
    return (
        f"{_list(one)} and {_list(other)} have diverged: {_list(one)} lacks {_writes(lacking(a, b))}, "
        f"{_list(other)} lacks {_writes(lacking(b, a))}"
    )


def _list(copies: Sequence[Copy]) -> str:
    return ", ".join(copy.name for copy in copies)


def _writes(count: int) -> str:
    return "1 write" if count == 1 else f"{count} writes"
