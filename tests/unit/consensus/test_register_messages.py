"""Register messages and states: what goes out comes back; hostile maps are refused, never half read."""

from __future__ import annotations

from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.consensus import acceptor_state
from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import AcceptorId, Ballot, BallotSource
from leafdb.consensus.messages import (
    Accept,
    Accepted,
    Message,
    Nack,
    NackReason,
    Phase,
    Prepare,
    Promise,
    from_wire,
    to_wire,
)
from leafdb.limits import BALLOT_COUNTER_MAX, BALLOT_JUMP_MAX, REGISTER_NAME_BYTES_MAX
from leafdb.types import NodeId

LOW = Ballot(1, NodeId(1), 2**64 - 1)
HIGH = Ballot(BALLOT_COUNTER_MAX, NodeId(65_535), 0)
ME = AcceptorId(NodeId(3), 4)

MESSAGES: list[Message] = [
    Prepare(b"r", 1, HIGH),
    Accept(b"r", 1, HIGH, b"value"),
    Accept(b"r", 1, HIGH, None),
    Promise(b"r", ME, HIGH, LOW, b"value"),
    Promise(b"r", ME, HIGH, LOW, None),
    Promise(b"r", ME, HIGH, None, None),
    Accepted(b"", ME, LOW),
    Nack(b"r", ME, LOW, Phase.PREPARE, NackReason.CONFLICT, HIGH, LOW),
    Nack(b"r", ME, LOW, Phase.ACCEPT, NackReason.INCOMPLETE, None, None),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_come_back(message: Message) -> None:
    assert from_wire(cbor.loads(cbor.dumps(to_wire(message)))) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_missing_or_mistyped_field_is_refused(message: Message) -> None:
    wire = to_wire(message)
    for name in wire:
        with pytest.raises(ValueError):
            from_wire({key: value for key, value in wire.items() if key != name})
        with pytest.raises(ValueError):
            from_wire({**wire, name: 1.5})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": 9},
        {"ballot": [1, 2]},
        {"ballot": [0, 1, 1]},
        {"ballot": [BALLOT_COUNTER_MAX + 1, 1, 1]},
        {"ballot": [1, 70_000, 1]},
        {"ballot": [1, True, 1]},
        {"acceptor": [1]},
        {"register": b"x" * (REGISTER_NAME_BYTES_MAX + 1)},
        {"accepted": None},
        {"accepted": [BALLOT_COUNTER_MAX, 65_535, 0]},
    ],
)
def test_senseless_fields_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        from_wire({**to_wire(Promise(b"r", ME, HIGH, LOW, b"value")), **change})
    with pytest.raises(ValueError):
        from_wire([])


def test_acceptor_states_come_back() -> None:
    for state in (AcceptorState(b"r", ME), AcceptorState(b"r", ME, HIGH, LOW, b"v"), AcceptorState(b"r", ME, LOW)):
        assert acceptor_state.decode(state.encode()) == state


@pytest.mark.parametrize(
    "state",
    [
        AcceptorState(b"r", ME, LOW, HIGH, b"v"),
        AcceptorState(b"r", ME, None, LOW, b"v"),
        AcceptorState(b"r", ME, LOW, None, b"v"),
    ],
)
def test_states_no_acceptor_can_be_in_are_refused(state: AcceptorState) -> None:
    with pytest.raises(ValueError):
        acceptor_state.decode(state.encode())


def test_states_of_unknown_formats_are_refused() -> None:
    fields = cbor.loads(AcceptorState(b"r", ME).encode())
    for data in (cbor.dumps({**fields, "format": 2}), b"", b"\x00", cbor.dumps({})):
        with pytest.raises(ValueError):
            acceptor_state.decode(data)


def test_ballots_rise_and_pass_what_was_seen() -> None:
    source = BallotSource(NodeId(1), 9)
    assert source.next() < source.next()
    source.observe(Ballot(100, NodeId(9), 1))
    assert source.next() == Ballot(101, NodeId(1), 9)
    source.observe(Ballot(5, NodeId(9), 1))
    assert source.next() == Ballot(102, NodeId(1), 9)


def test_two_lives_never_make_one_ballot() -> None:
    assert BallotSource(NodeId(1), 1).next() != BallotSource(NodeId(1), 2).next()


def test_a_counter_jumps_a_bounded_step_at_a_time() -> None:
    source = BallotSource(NodeId(1), 9)
    source.observe(Ballot(BALLOT_COUNTER_MAX, NodeId(9), 1))
    assert source.next().counter == BALLOT_JUMP_MAX + 1
