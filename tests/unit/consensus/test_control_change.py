"""The control set changes: by values alone, one step on a chosen base, and whoever missed it finds out in the round."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import pytest

from leafdb.consensus.acceptor import Acceptor
from leafdb.consensus.ballot import AcceptorId, Ballot, BallotSource
from leafdb.consensus.control_set import ControlSet
from leafdb.consensus.effects import NO_STEP, Chosen, Decided, Outcome, ProposerEffect, Refused, Send
from leafdb.consensus.messages import Accept, Accepted, Message, Nack, Prepare, Promise
from leafdb.consensus.proposer import Change, Proposer, read
from leafdb.types import NodeId

REGISTER = b"r"
PROPOSER = NodeId(9)
ME = 20
Lost = Callable[[NodeId, Message], bool]


def control(text: str) -> ControlSet:
    """`123>145`: old and next by node number."""
    old, _, following = text.partition(">")
    return ControlSet.of(*([AcceptorId(NodeId(int(node)), 1) for node in ids] for ids in (old, following)))


def names(value: bytes) -> ControlSet:
    """A value here is a control set and whatever: `123>145 xyz`."""
    return control(value.split()[0].decode())


def put(value: bytes) -> Change:
    return lambda current: value


def appended(letter: bytes) -> Change:
    return lambda current: (current or b"") + letter


def nobody(to: NodeId, message: Message) -> bool:
    return False


class World:
    """Six acceptors, messages that arrive in order unless lost, and as many proposers as are asked for."""

    def __init__(self, first: str) -> None:
        self.first = control(first)
        self.acceptors = {
            NodeId(node): Acceptor(REGISTER, AcceptorId(NodeId(node), 1), config=1) for node in range(1, 7)
        }
        self.sent: list[tuple[NodeId, Message]] = []
        self.waiting: deque[tuple[NodeId, Message]] = deque()
        self.delivering = False
        self.counter = 0
        assert isinstance(self.propose(put(first.encode() + b" ")), Chosen)

    def propose(self, change: Change, believed: str = "", lost: Lost = nobody, patience: float = 2.0) -> Outcome:
        """One change by a new proposer, whose ballots are above all before."""
        self.counter += 100
        ballots = BallotSource(NodeId(ME), self.counter)
        ballots.observe(Ballot(self.counter, NodeId(ME), 1))
        self.proposer = Proposer(
            REGISTER,
            control(believed) if believed else self.first,
            config=1,
            ballots=ballots,
            rng=Random(7),
            names=names,
        )
        self.outcomes: list[Outcome] = []
        self.sent.clear()
        self.perform(self.proposer.propose(change, now=0.0, deadline=patience), lost, 0.0)
        while not self.proposer.idle:
            due = self.proposer.deadline()
            assert due is not None
            self.perform(self.proposer.on_time(due), lost, due)
        return self.outcomes[-1]

    def perform(self, effects: tuple[ProposerEffect, ...], lost: Lost, now: float) -> None:
        for effect in effects:
            self.proposer.check()
            if isinstance(effect, Decided):
                self.outcomes.append(effect.outcome)
            else:
                self.waiting.append((effect.to, effect.message))
        while self.waiting and not self.delivering:
            to, message = self.waiting.popleft()
            if not lost(to, message):
                self.delivering = True
                self.deliver(to, message, lost, now)
                self.delivering = False

    def deliver(self, to: NodeId, message: Message, lost: Lost, now: float) -> None:
        assert isinstance(message, Prepare | Accept)
        self.sent.append((to, message))
        for answer in self.acceptors[to].on_message(NodeId(ME), message):
            if isinstance(answer, Send):
                assert isinstance(answer.message, Promise | Accepted | Nack)
                self.perform(self.proposer.on_message(to, answer.message, now), lost, now)

    def asked(self, kind: type[Message]) -> set[int]:
        return {to for to, message in self.sent if isinstance(message, kind)}

    def value(self, believed: str) -> bytes:
        outcome = self.propose(read, believed)
        assert isinstance(outcome, Chosen)
        assert outcome.value is not None
        return outcome.value


def without(*nodes: int) -> Lost:
    return lambda to, message: to in nodes


@pytest.mark.parametrize(
    "steps", ["1 1>123 123", "123 123>124 124", "123 123>1 1", "123 123>12345 12345", "1 1>2 2", "123 123>456 456"]
)
def test_a_change_ends_where_the_new_set_alone_is_asked(steps: str) -> None:
    first, joint, last = steps.split()
    world = World(first)
    for step in (joint, last):
        assert world.propose(put(step.encode() + b" x")) == Chosen(step.encode() + b" x", world.proposer._ballot)
    gone = {node for node in map(int, first) if str(node) not in last}
    outcome = world.propose(appended(b"y"), last, without(*gone))
    assert isinstance(outcome, Chosen)
    assert outcome.value == last.encode() + b" xy"
    assert world.asked(Accept) == set(map(int, last))


def test_a_step_is_made_on_a_value_that_the_same_proposal_had_chosen() -> None:
    world = World("123")
    world.propose(put(b"123>124 "))
    values = [message.value for _, message in world.sent if isinstance(message, Accept)]
    assert values == [b"123 "] * 3 + [b"123>124 "] * 3, (
        "the re-scan comes first; the old majority alone counts for both"
    )
    world.propose(put(b"124 "))
    asked = [(int(to), message.value) for to, message in world.sent if isinstance(message, Accept)]
    assert asked == [(node, value) for value in (b"123>124 ", b"124 ") for node in (1, 2, 3, 4)]


def test_a_step_whose_ground_was_taken_over_begins_again() -> None:
    world = World("123")
    built: list[Message] = []

    def overtaken(to: NodeId, message: Message) -> bool:
        """Somebody else's value is chosen between the re-scan and the step."""
        if isinstance(message, Prepare) and len(built) < 1 and world.asked(Accept):
            built.append(message)
            high = Ballot(message.ballot.counter + 1, PROPOSER, 1)
            for node in (1, 2, 3):
                world.acceptors[NodeId(node)].on_accept(PROPOSER, Accept(REGISTER, 1, high, b"123 other"))
        return False

    outcome = world.propose(lambda current: b"123>124 " + (current or b"").split(b" ")[1], lost=overtaken)
    assert isinstance(outcome, Chosen)
    assert outcome.value == b"123>124 other"
    values = [message.value for _, message in world.sent if isinstance(message, Accept)]
    assert values[-6:] == [b"123 other"] * 3 + [b"123>124 other"] * 3


@pytest.mark.parametrize("step", ["124", "14>123", "124>125", "3"])
def test_other_steps_are_refused_and_change_nothing(step: str) -> None:
    world = World("123")
    assert world.propose(put(step.encode() + b" ")) == Refused(NO_STEP, b"123 ")
    assert world.value("123") == b"123 "


@pytest.mark.parametrize("step", ["123", "124>123", "123>125"])
def test_there_is_no_way_back_from_a_change_under_way(step: str) -> None:
    world = World("123")
    world.propose(put(b"123>124 "))
    assert world.propose(put(step.encode() + b" ")) == Refused(NO_STEP, b"123>124 ")


def test_who_never_heard_of_the_change_finds_it_in_a_promise() -> None:
    world = World("123")
    world.propose(put(b"123>456 "))
    assert isinstance(world.propose(appended(b"a"), "123"), Chosen)
    assert world.asked(Prepare) == world.asked(Accept) == {1, 2, 3, 4, 5, 6}
    world.propose(put(b"456 "))
    outcome = world.propose(appended(b"b"), "123")
    assert isinstance(outcome, Chosen)
    assert outcome.value == b"456 b"
    assert world.asked(Accept) == {4, 5, 6}
    assert world.value("456") == b"456 b"


@pytest.mark.parametrize("lost", [(2, 3), (4, 5)])
def test_a_joint_round_needs_both_majorities(lost: tuple[int, ...]) -> None:
    world = World("123")
    world.propose(put(b"123>145 "))
    assert world.propose(appended(b"x"), lost=without(*lost)) == Refused("no_quorum", None)
    assert isinstance(world.propose(appended(b"x"), lost=without(2, 4)), Chosen)


def test_a_change_that_lies_at_one_acceptor_goes_on_or_goes_under_as_one() -> None:
    world = World("123")
    only = [NodeId(1)]
    world.propose(put(b"123>145 "), lost=lambda to, message: isinstance(message, Accept) and (
        message.value != b"123 " and to not in only), patience=0.1)  # fmt: skip
    assert world.acceptors[NodeId(1)].state.value == b"123>145 "
    world.propose(put(b"145 "), lost=lambda to, message: to == 3 or (
        isinstance(message, Accept) and message.value == b"145 " and to not in only), patience=0.1)  # fmt: skip
    world.propose(appended(b"new"), "145", without(2, 3))
    outcome = world.propose(appended(b"old"), "123", without(1))
    assert isinstance(outcome, Chosen)
    assert outcome.value == b"145 newold", "one history, and not one for each set"


def test_the_first_promise_may_be_of_one_who_was_away_for_long() -> None:
    """What it names is gone; the others asked at first are asked again all the same."""
    world = World("123")
    for step in (b"123>456 ", b"456 ", b"456>126 "):
        world.propose(put(step))
    assert isinstance(world.propose(put(b"126 ")), Chosen)
    old = Ballot(1, PROPOSER, 1)
    state = world.acceptors[NodeId(1)].state
    world.acceptors[NodeId(1)].state = type(state)(REGISTER, state.acceptor, old, old, b"345 ")
    refusals = iter([True])

    def conflict(to: NodeId, message: Message) -> bool:
        """In the first round the others are silent, then have promised more."""
        if to != 1 and isinstance(message, Prepare) and next(refusals, False):
            high = Ballot(message.ballot.counter + 5, PROPOSER, 1)
            for node in (2, 6):
                world.acceptors[NodeId(node)].on_prepare(PROPOSER, Prepare(REGISTER, 1, high))
        return to in (3, 4, 5)

    outcome = world.propose(appended(b"x"), "126", conflict)
    assert isinstance(outcome, Chosen)
    assert outcome.value == b"126 x"


def test_an_old_acceptor_that_answers_late_shows_the_new_set() -> None:
    world = World("123")
    for step in (b"123>456 ", b"456 "):
        world.propose(put(step))
    late = Accept(REGISTER, 1, Ballot(1, PROPOSER, 1), b"123 late")
    for node in (1, 2, 3):
        answer = world.acceptors[NodeId(node)].on_accept(PROPOSER, late)[-1]
        assert isinstance(answer, Send)
        assert isinstance(answer.message, Nack), "a ballot of long ago is below what it promised"
    assert world.value("123") == b"456 "


def test_an_empty_store_has_no_vote_in_the_name_of_its_node() -> None:
    world = World("123")
    for node in (1, 2):
        world.acceptors[NodeId(node)] = Acceptor(REGISTER, AcceptorId(NodeId(node), 2), config=1)
    assert world.propose(appended(b"x")) == Refused("no_quorum", None)
