"""The acceptor: promises kept, answers after the disk, no vote for one that may have forgotten."""

from __future__ import annotations

import pytest

from leafdb.consensus.acceptor import Acceptor
from leafdb.consensus.acceptor_state import AcceptorState, decode
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.consensus.effects import AcceptorEffect, Persist, Send
from leafdb.consensus.messages import Accept, Accepted, Nack, NackReason, Phase, Prepare, Promise, Reply
from leafdb.limits import BALLOT_JUMP_MAX
from leafdb.types import NodeId

REGISTER = b"metadata"
ME = AcceptorId(NodeId(1), 1)
PEER = NodeId(2)


def ballot(counter: int, node: int = 2, nonce: int = 7) -> Ballot:
    return Ballot(counter, NodeId(node), nonce)


def acceptor(state: AcceptorState | None = None, *, complete: bool = True, config: int = 1) -> Acceptor:
    return Acceptor(REGISTER, ME, config=config, state=state, complete=complete)


def prepare(counter: int, *, config: int = 1) -> Prepare:
    return Prepare(REGISTER, config, ballot(counter))


def accept(counter: int, value: bytes | None = b"v", *, config: int = 1) -> Accept:
    return Accept(REGISTER, config, ballot(counter), value)


def answer(effects: tuple[AcceptorEffect, ...]) -> Reply:
    """The one reply, sent to the one who asked."""
    last = effects[-1]
    assert isinstance(last, Send)
    assert last.to == PEER
    assert isinstance(last.message, Promise | Accepted | Nack)
    return last.message


def refusal(effects: tuple[AcceptorEffect, ...]) -> NackReason:
    reply = answer(effects)
    assert isinstance(reply, Nack)
    return reply.reason


def test_promises_and_accepts_are_durable_before_they_are_said() -> None:
    machine = acceptor()
    for message in (prepare(1), accept(1)):
        effects = machine.on_message(PEER, message)
        assert [type(effect) for effect in effects] == [Persist, Send]
        assert effects[0] == Persist(machine.state)
        machine.check()
    assert machine.state == AcceptorState(REGISTER, ME, ballot(1), ballot(1), b"v")


def test_a_promise_tells_what_was_accepted() -> None:
    machine = acceptor()
    machine.on_accept(PEER, accept(3, b"three"))
    assert answer(machine.on_prepare(PEER, prepare(5))) == Promise(REGISTER, ME, ballot(5), ballot(3), b"three")


def test_lower_ballots_are_refused_with_what_to_pass() -> None:
    machine = acceptor()
    machine.on_prepare(PEER, prepare(5))
    assert answer(machine.on_prepare(PEER, prepare(4))) == Nack(
        REGISTER, ME, ballot(4), Phase.PREPARE, NackReason.CONFLICT, ballot(5), None
    )
    assert refusal(machine.on_accept(PEER, accept(4))) is NackReason.CONFLICT
    assert machine.state.accepted is None


def test_a_refused_accept_waits_for_the_disk_for_it_proves_something() -> None:
    machine = acceptor()
    machine.on_prepare(PEER, prepare(5))
    effects = machine.on_accept(PEER, accept(4))
    assert [type(effect) for effect in effects] == [Persist, Send]


def test_a_refused_accept_that_was_taken_before_says_so() -> None:
    machine = acceptor()
    machine.on_accept(PEER, accept(4))
    machine.on_prepare(PEER, prepare(5))
    reply = answer(machine.on_accept(PEER, accept(4)))
    assert isinstance(reply, Nack)
    assert reply.accepted == ballot(4)


def test_repetition_is_answered_the_same_and_persisted_again() -> None:
    machine = acceptor()
    for message in (prepare(1), accept(1)):
        assert machine.on_message(PEER, message) == machine.on_message(PEER, message)


def test_a_late_prepare_of_an_accepted_ballot_is_refused() -> None:
    machine = acceptor()
    machine.on_accept(PEER, accept(2))
    assert refusal(machine.on_prepare(PEER, prepare(2))) is NackReason.CONFLICT


def test_one_ballot_never_carries_two_values() -> None:
    machine = acceptor()
    machine.on_accept(PEER, accept(2, b"first"))
    assert refusal(machine.on_accept(PEER, accept(2, b"second"))) is NackReason.CONFLICT
    assert machine.state.value == b"first"


def test_ballots_of_one_counter_are_ordered_by_node_and_nonce() -> None:
    machine = acceptor()
    machine.on_prepare(PEER, Prepare(REGISTER, 1, ballot(1, node=2, nonce=5)))
    assert refusal(machine.on_prepare(PEER, Prepare(REGISTER, 1, ballot(1, node=1, nonce=9)))) is NackReason.CONFLICT
    assert isinstance(answer(machine.on_prepare(PEER, Prepare(REGISTER, 1, ballot(1, node=3, nonce=1)))), Promise)


def test_only_its_own_control_set_is_answered() -> None:
    machine = acceptor(config=2)
    assert refusal(machine.on_prepare(PEER, prepare(1, config=1))) is NackReason.STALE_CONFIG
    assert refusal(machine.on_accept(PEER, accept(1, config=3))) is NackReason.BEHIND
    assert machine.state.promised is None


def test_a_ballot_from_the_far_future_does_not_stall_the_register() -> None:
    machine = acceptor()
    assert refusal(machine.on_prepare(PEER, prepare(BALLOT_JUMP_MAX + 1))) is NackReason.TOO_FAR
    assert refusal(machine.on_accept(PEER, accept(BALLOT_JUMP_MAX + 1))) is NackReason.TOO_FAR
    assert isinstance(answer(machine.on_prepare(PEER, prepare(BALLOT_JUMP_MAX))), Promise)


@pytest.mark.parametrize(
    "machine",
    [
        acceptor(complete=False),
        acceptor(AcceptorState(REGISTER, AcceptorId(NodeId(1), 2), ballot(9), ballot(9), b"v")),
        acceptor(AcceptorState(REGISTER, AcceptorId(NodeId(2), 1), ballot(9), ballot(9), b"v")),
        acceptor(AcceptorState(b"other", ME, ballot(9), ballot(9), b"v")),
    ],
    ids=["gap", "another store", "another node", "another register"],
)
def test_one_that_may_have_forgotten_has_no_vote(machine: Acceptor) -> None:
    assert refusal(machine.on_prepare(PEER, prepare(20))) is NackReason.INCOMPLETE
    assert refusal(machine.on_accept(PEER, accept(20))) is NackReason.INCOMPLETE
    machine.check()
    assert "without a vote" in machine.describe()


def test_promises_survive_a_restart() -> None:
    machine = acceptor()
    machine.on_accept(PEER, accept(3))
    machine.on_prepare(PEER, prepare(8))
    again = acceptor(decode(machine.state.encode()))
    assert again.state == machine.state
    assert refusal(again.on_prepare(PEER, prepare(7))) is NackReason.CONFLICT
    assert "8.2.0007" in again.describe()
