"""The proposer: rounds to their end, conflicts, silence, and outcomes that claim no more than is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random

import pytest

from leafdb.consensus.acceptor import Acceptor
from leafdb.consensus.ballot import AcceptorId, Ballot, BallotSource
from leafdb.consensus.control_set import ControlSet
from leafdb.consensus.effects import Chosen, Decided, Outcome, Persist, ProposerEffect, Refusal, Refused, Send, Unknown
from leafdb.consensus.messages import Accept, Accepted, Message, Nack, NackReason, Phase, Prepare, Promise
from leafdb.consensus.proposer import AMBIGUOUS, Change, Proposer, read
from leafdb.limits import REGISTER_BACKOFF_S_MAX, REGISTER_RESEND_S
from leafdb.types import NodeId

REGISTER = b"r"
DEADLINE = 10.0
Drop = Callable[[NodeId, Message], bool]


def nobody(to: NodeId, message: Message) -> bool:
    return False


def appended(letter: bytes) -> Change:
    return lambda current: (current or b"") + letter


def refusing(current: bytes | None) -> Refusal:
    return Refusal("no")


class Harness:
    """Three real acceptors and one proposer; messages arrive at once unless `drop` says they never do."""

    def __init__(self, count: int = 3) -> None:
        self.identities = [AcceptorId(NodeId(node), 1) for node in range(1, count + 1)]
        self.acceptors = {identity.node: Acceptor(REGISTER, identity, config=1) for identity in self.identities}
        self.now = 0.0
        self.outcome: Outcome | None = None
        self.sent: list[Message] = []
        self.late: list[tuple[NodeId, Message]] = []
        self.proposer = self.new_proposer(9)

    def new_proposer(self, node: int) -> Proposer:
        ballots = BallotSource(NodeId(node), 77)
        return Proposer(REGISTER, ControlSet.of(self.identities), config=1, ballots=ballots, rng=Random(node))

    def propose(self, change: Change, drop: Drop = nobody, *, deduplicates: bool = False) -> Outcome | None:
        self.outcome = None
        effects = self.proposer.propose(change, now=self.now, deadline=self.now + DEADLINE, deduplicates=deduplicates)
        self.perform(effects, drop)
        return self.outcome

    def perform(self, effects: Iterable[ProposerEffect], drop: Drop) -> None:
        for effect in effects:
            self.proposer.check()
            if isinstance(effect, Decided):
                self.outcome = effect.outcome
            else:
                self.sent.append(effect.message)
                if drop(effect.to, effect.message):
                    self.late.append((effect.to, effect.message))
                else:
                    self.deliver(effect.to, effect.message, drop)

    def deliver(self, to: NodeId, message: Message, drop: Drop = nobody) -> None:
        assert isinstance(message, Prepare | Accept)
        for answer in self.acceptors[to].on_message(NodeId(9), message):
            if not isinstance(answer, Persist) and not drop(to, answer.message):
                assert isinstance(answer.message, Promise | Accepted | Nack)
                self.perform(self.proposer.on_message(to, answer.message, self.now), drop)

    def sleep(self, drop: Drop = nobody) -> None:
        """Until the proposer wants to be woken."""
        due = self.proposer.deadline()
        assert due is not None
        assert due >= self.now
        self.now = due
        self.perform(self.proposer.on_time(self.now), drop)

    def interlope(self, counter: int, value: bytes | None = None, *, at: Iterable[int] = (1, 2, 3)) -> None:
        """Another proposer's round: its prepare, and its accept when there is a value."""
        ballot = Ballot(counter, NodeId(20), 1)
        for node in map(NodeId, at):
            self.acceptors[node].on_prepare(NodeId(20), Prepare(REGISTER, 1, ballot))
            if value is not None:
                self.acceptors[node].on_accept(NodeId(20), Accept(REGISTER, 1, ballot, value))


def kinds(messages: Iterable[Message]) -> list[type[Message]]:
    return [type(message) for message in messages]


def test_a_change_is_chosen_by_a_majority() -> None:
    harness = Harness()
    outcome = harness.propose(appended(b"a"))
    assert isinstance(outcome, Chosen)
    assert outcome.value == b"a"
    assert sum(each.state.value == b"a" for each in harness.acceptors.values()) >= 2
    assert harness.proposer.idle
    assert harness.proposer.deadline() is None
    assert harness.proposer.describe() == "proposer: idle"


def test_changes_build_on_each_other() -> None:
    harness = Harness()
    for letter in (b"a", b"b", b"c"):
        harness.propose(appended(letter))
    assert isinstance(harness.outcome, Chosen)
    assert harness.outcome.value == b"abc"


def test_one_acceptor_is_its_own_majority() -> None:
    assert isinstance(Harness(1).propose(appended(b"a")), Chosen)


def test_one_of_three_may_be_silent() -> None:
    assert isinstance(Harness().propose(appended(b"a"), lambda to, _: to == 1), Chosen)


@pytest.mark.parametrize("change", [read, refusing], ids=["read", "refused change"])
def test_reads_and_refusals_finish_the_round(change: Change) -> None:
    """12126: a value seen at one acceptor is chosen before anybody is told of it."""
    harness = Harness()
    harness.interlope(1, b"stray", at=(1,))
    harness.propose(change, lambda to, _: to == 3)
    while harness.outcome is None:
        harness.sleep(lambda to, _: to == 3)
    assert harness.outcome in (Chosen(b"stray", Ballot(2, NodeId(9), 77)), Refused("no", b"stray"))
    assert harness.acceptors[NodeId(2)].state.value == b"stray"


def test_a_read_of_a_register_never_written_is_a_round_too() -> None:
    harness = Harness()
    outcome = harness.propose(read)
    assert isinstance(outcome, Chosen)
    assert outcome.value is None
    assert harness.acceptors[NodeId(1)].state.accepted is not None


def test_the_highest_accepted_ballot_is_current() -> None:
    harness = Harness()
    harness.interlope(5, b"newer", at=(2,))
    harness.interlope(3, b"older", at=(1, 3))
    outcome = harness.propose(read)
    while outcome is None:
        harness.sleep()
        outcome = harness.outcome
    assert isinstance(outcome, Chosen)
    assert outcome.value == b"newer"


def test_conflict_pauses_then_passes_the_other() -> None:
    harness = Harness()
    harness.interlope(41)
    assert harness.propose(appended(b"a")) is None
    due = harness.proposer.deadline()
    assert due is not None
    assert 0 < due <= REGISTER_BACKOFF_S_MAX
    harness.sleep()
    assert isinstance(harness.outcome, Chosen)
    assert harness.outcome.ballot.counter == 42


def test_one_refusal_does_not_stop_a_majority() -> None:
    harness = Harness()
    harness.interlope(41, at=(1,))
    assert isinstance(harness.propose(appended(b"a")), Chosen)


def test_silence_is_answered_by_the_same_message_under_the_same_ballot() -> None:
    harness = Harness()
    harness.propose(appended(b"a"), lambda to, message: isinstance(message, Prepare))
    assert kinds(harness.sent) == [Prepare] * 3
    harness.sleep(lambda to, message: isinstance(message, Accept))
    assert harness.now == REGISTER_RESEND_S
    assert kinds(harness.sent).count(Prepare) == 6
    assert kinds(harness.sent).count(Accept) == 3
    harness.sleep()
    assert isinstance(harness.outcome, Chosen)
    assert len({message.ballot for message in harness.sent}) == 1


def test_no_majority_before_anything_left_is_a_refusal() -> None:
    harness = Harness()
    assert harness.propose(appended(b"a"), lambda to, _: True) is None
    while harness.outcome is None:
        harness.sleep(lambda to, _: True)
    assert harness.outcome == Refused("no_quorum", None)
    assert harness.now == DEADLINE


def test_a_change_that_left_and_was_not_confirmed_is_unknown() -> None:
    harness = Harness()
    harness.propose(appended(b"a"), lambda to, message: isinstance(message, Accepted))
    while harness.outcome is None:
        harness.sleep(lambda to, message: isinstance(message, Accepted))
    assert harness.outcome == Unknown("no_quorum")


def test_an_unconfirmed_read_changed_nothing() -> None:
    harness = Harness()
    harness.propose(read, lambda to, message: isinstance(message, Accept))
    while harness.outcome is None:
        harness.sleep(lambda to, message: isinstance(message, Accept))
    assert harness.outcome == Refused("no_quorum", None)


def lose_after_accepting_at_one(harness: Harness, change: Change, *, deduplicates: bool = False) -> None:
    """Our value sits at acceptor 1, unconfirmed; then competitors promise higher."""
    harness.propose(appended(b"base"))

    def only_first(to: NodeId, message: Message) -> bool:
        return isinstance(message, Accept | Accepted) and (to != 1 or isinstance(message, Accepted))

    harness.propose(change, only_first, deduplicates=deduplicates)
    assert harness.acceptors[NodeId(1)].state.value != b"base"


def test_its_own_surviving_value_is_put_forward_as_it_is() -> None:
    harness = Harness()
    lose_after_accepting_at_one(harness, appended(b"x"))
    harness.interlope(50)
    while harness.outcome is None:
        harness.sleep()
    assert isinstance(harness.outcome, Chosen)
    assert harness.outcome.value == b"basex", "not basexx"


def test_a_stray_that_nobody_saw_does_not_count() -> None:
    harness = Harness()
    lose_after_accepting_at_one(harness, appended(b"x"))
    harness.interlope(50)
    while harness.outcome is None:
        harness.sleep(lambda to, _: to == 1)
    assert isinstance(harness.outcome, Chosen)
    assert harness.outcome.value == b"basex"


@pytest.mark.parametrize("deduplicates", [False, True])
def test_a_value_built_by_another_since_is_unknown_unless_the_change_can_tell(deduplicates: bool) -> None:
    def once(current: bytes | None) -> bytes | None:
        assert current is not None
        return current if b"x" in current else current + b"x"

    harness = Harness()
    lose_after_accepting_at_one(harness, once, deduplicates=deduplicates)
    harness.interlope(50, b"basexy")
    while harness.outcome is None:
        harness.sleep()
    if deduplicates:
        assert isinstance(harness.outcome, Chosen)
        assert harness.outcome.value == b"basexy"
    else:
        assert harness.outcome == Unknown(AMBIGUOUS)


def test_a_value_that_every_acceptor_refused_left_nothing_behind() -> None:
    harness = Harness()
    harness.propose(appended(b"base"))
    harness.propose(appended(b"x"), lambda to, message: isinstance(message, Accept))
    harness.interlope(50)
    for to, message in harness.late:
        harness.deliver(to, message)
    harness.interlope(60, b"other")
    while harness.outcome is None:
        harness.sleep()
    assert isinstance(harness.outcome, Chosen)
    assert harness.outcome.value == b"otherx"


def test_a_refusal_of_what_was_taken_before_proves_nothing() -> None:
    """The acceptors took the value and said so, but it got lost; the doubled accept is refused later."""
    harness = Harness()
    harness.propose(appended(b"base"))

    def deaf(to: NodeId, message: Message) -> bool:
        return isinstance(message, Accepted)

    harness.propose(appended(b"x"), deaf)
    doubled = [message for message in harness.sent if isinstance(message, Accept)][-3:]
    harness.interlope(50, b"basexy")
    for node, message in zip((1, 2, 3), doubled, strict=True):
        harness.deliver(NodeId(node), message)
    while harness.outcome is None:
        harness.sleep()
    assert harness.outcome == Unknown(AMBIGUOUS)


def test_strangers_and_old_stores_do_not_vote() -> None:
    harness = Harness()
    harness.propose(appended(b"a"), lambda to, _: True)
    ballot = harness.sent[0].ballot
    for sender, identity in (
        (4, AcceptorId(NodeId(4), 1)),
        (1, AcceptorId(NodeId(1), 2)),
        (2, AcceptorId(NodeId(1), 1)),
    ):
        for _ in range(3):
            assert not harness.proposer.on_message(NodeId(sender), Promise(REGISTER, identity, ballot, None, None), 0.0)
    honest = Promise(REGISTER, harness.identities[0], ballot, None, None)
    for _ in range(3):
        assert not harness.proposer.on_message(NodeId(1), honest, 0.0), "one vote, however often it arrives"


def test_messages_of_other_registers_and_rounds_are_ignored() -> None:
    harness = Harness()
    me = harness.identities[0]
    assert not harness.proposer.on_message(NodeId(1), Accepted(REGISTER, me, Ballot(1, NodeId(9), 77)), 0.0)
    assert not harness.proposer.on_time(5.0)
    harness.propose(appended(b"a"), lambda to, _: True)
    old = Ballot(1, NodeId(9), 76)
    assert not harness.proposer.on_message(NodeId(1), Promise(REGISTER, me, old, None, None), 0.0)
    assert not harness.proposer.on_message(NodeId(1), Promise(b"q", me, harness.sent[0].ballot, None, None), 0.0)
    assert not harness.proposer.on_message(NodeId(1), Accepted(REGISTER, me, harness.sent[0].ballot), 0.0)
    assert "preparing" in harness.proposer.describe()
    assert "0 votes of 1/1 2/1 3/1" in harness.proposer.describe()


def test_a_past_control_set_ends_the_proposal() -> None:
    harness = Harness()
    for machine in harness.acceptors.values():
        machine.config = 2
    assert harness.propose(appended(b"a")) == Refused("stale_config", None)


def test_acceptors_without_a_vote_or_behind_are_as_good_as_silent() -> None:
    harness = Harness()
    harness.acceptors[NodeId(1)] = Acceptor(REGISTER, harness.identities[0], config=1, complete=False)
    harness.acceptors[NodeId(2)].config = 0
    assert harness.propose(appended(b"a")) is None
    harness.acceptors[NodeId(2)].config = 1
    harness.sleep()
    assert isinstance(harness.outcome, Chosen)


def test_duelling_proposers_part() -> None:
    """Conflict pauses are random and grow, so that both get through."""
    harness = Harness()
    pauses = []
    for turn in range(12):
        harness.interlope(1000 * (turn + 1))
        if turn == 0:
            harness.propose(appended(b"a"))
        due = harness.proposer.deadline()
        assert due is not None
        pauses.append(due - harness.now)
        if turn < 11:
            harness.interlope(1000 * (turn + 2) - 1)
            harness.sleep()
    assert max(pauses) <= REGISTER_BACKOFF_S_MAX + 1e-9
    assert max(pauses[6:]) > 2 * pauses[0]
    assert len(set(pauses)) == len(pauses)


def test_nacks_of_an_older_phase_do_not_end_a_round() -> None:
    harness = Harness()
    harness.propose(appended(b"a"), lambda to, message: isinstance(message, Accept))
    ballot = harness.sent[0].ballot
    for identity in harness.identities:
        late = Nack(REGISTER, identity, ballot, Phase.PREPARE, NackReason.CONFLICT, ballot, ballot)
        assert not harness.proposer.on_message(identity.node, late, 0.0)
    assert "accepting" in harness.proposer.describe()


def test_one_proposal_at_a_time() -> None:
    harness = Harness()
    harness.propose(read, lambda to, _: True)
    with pytest.raises(AssertionError, match="one proposal"):
        harness.propose(read)


def test_sends_go_to_every_acceptor() -> None:
    effects = Harness().proposer.propose(read, now=0.0, deadline=1.0)
    assert [effect.to for effect in effects if isinstance(effect, Send)] == [1, 2, 3]
