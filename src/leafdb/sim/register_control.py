"""What the judges of the register tier know of control sets: which one a value names, and what was chosen under it.

A value is the list of the numbers of the operations applied, and some of those changed the control set; so what a value
names is told by the numbers alone (`Controls`). Votes are counted here a second time (`Ballots`), from what became
durable where and with majorities of this module's own, so that a proposer that counts wrongly is found out.

Both know what nobody in the cluster knows: all of it, at once. From that the nemesis learns whose store it may take
without making the register impossible: what no majority is left of is not promised to be alive.
"""

from __future__ import annotations

from collections.abc import Set

from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.consensus.control_set import ControlSet
from leafdb.testing.violation import Invariant, require


class Controls:
    """Which operations change the control set, and so what each value names."""

    def __init__(self, first: ControlSet) -> None:
        self.first = first
        self._begun: dict[int, tuple[AcceptorId, ...]] = {}
        self._finishing: set[int] = set()
        self._named: dict[bytes, ControlSet] = {b"": first}

    def begins(self, number: int, following: tuple[AcceptorId, ...]) -> None:
        """That operation, where it is applied, begins the change to `following`."""
        self._begun[number] = following

    def finishes(self, number: int) -> None:
        """That operation, where it is applied, ends the change under way."""
        self._finishing.add(number)

    def named(self, value: bytes) -> ControlSet:
        """The control set in a value."""
        known = self._named.get(value)
        if known is None:
            before, number = self.named(value[:-1]), value[-1]
            if number in self._begun:
                known = ControlSet(before.old, self._begun[number])
            elif number in self._finishing:
                known = ControlSet(before.next or before.old)
            else:
                known = before
            self._named[value] = known
        return known


class Ballots:
    """What became durable where: the votes of every ballot, and the values that a majority chose."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._counted: dict[Ballot, ControlSet] = {}
        self._votes: dict[Ballot, tuple[bytes | None, set[AcceptorId]]] = {}
        self._sent: dict[Ballot, bytes] = {}
        self.chosen: dict[Ballot, bytes] = {}
        self.newest: Ballot | None = None
        """The highest ballot under which something was chosen."""

    @property
    def control(self) -> ControlSet:
        """The control set in the newest value chosen."""
        return self._controls.first if self.newest is None else self._controls.named(self.chosen[self.newest])

    def proposed(self, ballot: Ballot, value: bytes | None, control: ControlSet) -> None:
        """An accept leaves; its proposer says that these votes count."""
        self._counted[ballot] = control
        self._sent[ballot] = value or b""

    def voted(self, acceptor: AcceptorId, before: AcceptorState | None, state: AcceptorState) -> None:
        """`state` is durable in place of `before`."""
        if before is not None and before.promised is not None:
            kept = state.promised is not None and state.promised >= before.promised
            require(kept, Invariant.PROMISES_DURABLE, f"acceptor {acceptor.node} went back on a durable promise")
        ballot = state.accepted
        if ballot is None:
            return
        value, voters = self._votes.setdefault(ballot, (state.value, set()))
        require(value == state.value, Invariant.AGREEMENT, f"two values under ballot {ballot.describe()}")
        voters.add(acceptor)
        if ballot not in self.chosen and all(half(ids, voters) for ids in sets(self._counted[ballot])):
            self.chosen[ballot] = value or b""
            self.newest = max(self.newest or ballot, ballot)

    def half_chosen(self, ballot: Ballot) -> bool:
        """Whether a joint round had its old majority and not the next."""
        control = self._counted.get(ballot)
        voters = self._votes[ballot][1] if ballot in self._votes else set()
        return control is not None and control.joint and half(control.old, voters) and not half(control.next, voters)

    def in_question(self) -> set[tuple[AcceptorId, ...]]:
        """Every set of which a majority may yet be needed."""
        possible = set(sets(self.control))
        for ballot, value in self._sent.items():
            if self.newest is None or ballot > self.newest:
                possible.update(sets(self._controls.named(value)))
                possible.update(sets(self._counted[ballot]))
        return possible


def sets(control: ControlSet) -> tuple[tuple[AcceptorId, ...], ...]:
    """The sets of which a majority each is needed."""
    return (control.old, control.next) if control.next else (control.old,)


def half(ids: tuple[AcceptorId, ...], voters: Set[AcceptorId]) -> bool:
    """Whether more than half of them voted."""
    return len(voters & set(ids)) >= len(ids) // 2 + 1
