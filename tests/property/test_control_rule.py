"""The rule by which a control set changes, on its own: rounds at random, no messages, no machines, every order.

A proposal has a ballot, a base and a control set; acceptors promise and accept in any order, lower ballots may act
after higher ones, rounds are given up anywhere. Nothing but the rule of consensus/control_set.py keeps two values from
being chosen of which neither descends from the other: a rule that is weaker by a little is found out here in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from random import Random, SystemRandom

import pytest

NODES = 5
STEPS = 160
Ids = frozenset[int]
NOTHING = -1
FOUNDED = 0


class Rule(Enum):
    """What is kept of the rule."""

    WHOLE = "all of it"
    ANY_BASE = "a step is made on a value that is perhaps not chosen"
    PREPARE_OLD = "a joint round is prepared by the old majority only"
    AT_ONCE = "a new set counts as soon as it is named"


@dataclass(frozen=True)
class Control:
    old: Ids
    following: Ids = frozenset()


@dataclass
class Proposal:
    base: int
    control: Control
    counted: Control
    votes: set[int] = field(default_factory=set)

    @property
    def changes(self) -> bool:
        return self.control != self.counted


@dataclass
class Round:
    ballot: int
    promises: dict[int, int] = field(default_factory=dict)


def majority(ids: Ids, votes: set[int]) -> bool:
    return 2 * len(ids & votes) > len(ids)


class Register:
    """All acceptors and all proposals there ever were; a proposal is known by its ballot."""

    def __init__(self, rng: Random, rule: Rule) -> None:
        self.rng = rng
        self.rule = rule
        first = frozenset(range(rng.choice((1, 3, 3))))
        control = Control(first)
        self.proposals = {FOUNDED: Proposal(NOTHING, control, control)}
        self.chosen = {FOUNDED}
        self.promised = [0] * NODES
        self.accepted = [FOUNDED if node in first else NOTHING for node in range(NODES)]
        self.rounds: list[Round] = []
        self.ballots = 0
        self.steps = 0

    def is_chain(self) -> bool:
        """Run it; whether all that was chosen is one chain."""
        for _ in range(STEPS):
            if len(self.rounds) < 4 and self.rng.random() < 0.15:
                self.ballots += 1
                self.rounds.append(Round(self.ballots))
            if not self.rounds:
                continue
            one, node = self.rng.choice(self.rounds), self.rng.randrange(NODES)
            if self.rng.random() < 0.02:
                self.rounds.remove(one)
            elif one.ballot not in self.proposals:
                self.prepare(one, node)
            elif not self.accept(one, node):
                return False
        return True

    def prepare(self, one: Round, node: int) -> None:
        if self.promised[node] < one.ballot:
            self.promised[node] = one.ballot
            one.promises[node] = self.accepted[node]
        base = max(one.promises.values(), default=NOTHING)
        if base == NOTHING:
            return
        control = self.proposals[base].control
        joint = control.following and self.rule is not Rule.PREPARE_OLD
        promised = set(one.promises)
        if majority(control.old, promised) and (not joint or majority(control.following, promised)):
            made = self.step(base) if self.rng.random() < 0.6 else control
            self.proposals[one.ballot] = Proposal(base, made, control)

    def step(self, base: int) -> Control:
        """The next control set, where the rule allows a step; else the one there is (a re-scan)."""
        proposal = self.proposals[base]
        control = proposal.control
        if self.rule is not Rule.ANY_BASE and (base not in self.chosen or proposal.changes):
            return control
        if control.following:
            return Control(control.following)
        following = frozenset(self.rng.sample(range(NODES), self.rng.randint(1, 4)))
        if following == control.old:
            return control
        return Control(following) if self.rule is Rule.AT_ONCE else Control(control.old, following)

    def accept(self, one: Round, node: int) -> bool:
        ballot, proposal = one.ballot, self.proposals[one.ballot]
        if self.promised[node] > ballot:
            return True
        self.promised[node] = self.accepted[node] = ballot
        proposal.votes.add(node)
        if len(proposal.votes) >= self.rng.choice((1, 2, NODES)):
            self.rounds.remove(one)
        both = (proposal.counted.old, proposal.counted.following)
        if ballot in self.chosen or not all(majority(ids, proposal.votes) for ids in both if ids):
            return True
        self.chosen.add(ballot)
        self.steps += proposal.changes
        return all(self.descends(max(ballot, other), min(ballot, other)) for other in self.chosen)

    def descends(self, ballot: int, from_ballot: int) -> bool:
        while ballot > from_ballot:
            ballot = self.proposals[ballot].base
        return ballot == from_ballot


def test_what_is_chosen_is_one_chain_whatever_the_order() -> None:
    first, steps = SystemRandom().randrange(1 << 32), 0
    for seed in range(first, first + 3_000):
        register = Register(Random(seed), Rule.WHOLE)
        assert register.is_chain(), f"seed {seed}"
        steps += register.steps
    assert steps > 300, "control sets must change for this to say anything"


@pytest.mark.parametrize("rule", [Rule.ANY_BASE, Rule.PREPARE_OLD, Rule.AT_ONCE], ids=lambda rule: rule.value)
def test_a_weaker_rule_is_found_out(rule: Rule) -> None:
    assert not all(Register(Random(seed), rule).is_chain() for seed in range(10_000)), "no history showed it"
