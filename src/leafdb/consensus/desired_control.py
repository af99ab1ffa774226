"""Who ought to keep the register, and the next step on the way there. Pure: whoever drives the change asks here.

- **Size**: 1 below three members, 3 from three, 5 from seven. Two or four acceptors survive no more failures than one
  or three. Five of five or six members would make nearly every member one that the register waits for, and every
  restart one of its concern; from seven on, five survive two losses and leave somebody to replace them with.
  Members that are dead count as long as they are members: a failure does not shrink the set.
- **Spread**: each choice goes to the zone with the fewest acceptors so far, in it to the host with the fewest.
- **Stay**: among equals a present acceptor stays, and spread never takes one out: an acceptor is replaced when it is
  leaving or certainly dead, and not before. A change costs rounds, a new acceptor starts knowing nothing, and a set
  that changed for beauty's sake would change with every join.
- **One at a time**: a step replaces one acceptor. Not for safety (joint majorities are safe for any two sets,
  control_set.py) but so that a step cannot get stuck on its newcomer: two of the three that are in both sets are a
  majority of both. Growth and shrinking go 1, 3, 5 in strides of two, since even sizes only add somebody to wait for:
  from 1 to 2 both must live, from 1 to 3 any newcomer will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from leafdb.types import NodeId

SMALL: Final = 3
LARGE: Final = 5
LARGE_FROM_MEMBERS: Final = 7


@dataclass(frozen=True, slots=True)
class Candidate:
    """A member as the choice sees it. Members that are to leave are none."""

    node: NodeId
    host: str
    zone: str = ""
    weight: int = 1
    """Of two otherwise equal members the heavier one is chosen: 0 is the last resort."""


def desired_control(
    candidates: Iterable[Candidate], current: Sequence[NodeId], dead: Set[NodeId] = frozenset()
) -> tuple[NodeId, ...]:
    """The control set to work towards, ascending.

    Args: all members that are not leaving; the control set in force; who is certainly dead (suspicion is not enough).
    A dead acceptor nobody can replace stays; without a candidate that lives, all do.
    """
    members = {each.node: each for each in candidates}
    living = [each for node, each in members.items() if node not in dead]
    if not living:
        return tuple(sorted(current))
    size = _size(len(members))
    chosen = _spread([each for each in living if each.node in current], [], size)
    chosen = _spread([each for each in living if each.node not in current], chosen, size)
    chosen = _spread([each for node, each in members.items() if node in current and node in dead], chosen, size)
    odd = len(chosen) - (len(chosen) + 1) % 2
    return tuple(sorted(each.node for each in chosen[:odd]))


def next_step(current: Sequence[NodeId], desired: Sequence[NodeId]) -> tuple[NodeId, ...]:
    """The control set to change to next, ascending; the one in force when there is nothing to do.

    A single acceptor first gets company, so that what it alone knows is in three places before it goes. Otherwise
    members are replaced one at a time, and the size changes by two when all that remains is growing or shrinking.
    """
    now, then = set(current), set(desired)
    assert now, "a register has acceptors"
    coming, going = sorted(then - now), sorted(now - then)
    if len(now) == 1 and len(then) > 1:
        return tuple(sorted(now | set(coming[: SMALL - 1])))
    if coming and going:
        return tuple(sorted(now - {going[0]} | {coming[0]}))
    return tuple(sorted((now - set(going[:2])) | set(coming[:2])))


def _size(members: int) -> int:
    if members < SMALL:
        return 1
    return LARGE if members >= LARGE_FROM_MEMBERS else SMALL


def _spread(candidates: Sequence[Candidate], chosen: Sequence[Candidate], size: int) -> list[Candidate]:
    """`chosen` and more of the candidates, one by one where the fewest are, until there are so many."""
    result, left = list(chosen), list(candidates)
    while left and len(result) < size:
        zones, hosts = [each.zone for each in result], [each.host for each in result]
        best = min(
            left,
            key=lambda each: (
                each.weight <= 0, zones.count(each.zone), hosts.count(each.host), -each.weight, each.node
            ),
        )  # fmt: skip
        result.append(best)
        left.remove(best)
    return result
