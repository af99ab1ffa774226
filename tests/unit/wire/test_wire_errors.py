"""An error arrives as the error it was, with its outcome; nothing crosses that was not meant to."""

from __future__ import annotations

import pytest

from leafdb.errors import (
    ClientMisuse,
    ConfigError,
    ConnectFailed,
    ContextMismatch,
    DataError,
    DeadlineExceeded,
    DiskFull,
    LeafdbError,
    NotApplied,
    NotEnoughReplicas,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Reason,
    ServerBug,
    StoreFailed,
)
from leafdb.wire.body import encode_map
from leafdb.wire.errors import MESSAGE_CHARS_MAX, HandshakeRefused, decode_error, encode_error

ERRORS = [
    NotApplied("no such bucket", reason=Reason.NO_SUCH_BUCKET),
    *(NotApplied(f"because {reason}", reason=reason) for reason in Reason),
    NotEnoughReplicas("too few", alive=1, required=2),
    Overloaded("busy", retry_after=0.25),
    OutcomeUnknown("who knows", acks=1, required=2, replicas=["a", "b"], op_id=b"o" * 16),
    DeadlineExceeded("late", stage="replicas", got=1, required=2),
    ConfigError("no such policy", problems=["conflict: counter is not built"]),
    ClientMisuse("wrong kind"),
    ContextMismatch("another key"),
    DataError("cannot decode"),
    ConnectFailed("no peer answered"),
    ProtocolError("a frame with a wrong checksum"),
    HandshakeRefused("you are banned", refusal="banned"),
    ServerBug("an invariant broke"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_reads_back_as_itself(error: LeafdbError) -> None:
    error.node = "n1"
    got = decode_error(encode_error(error), request_id=9)
    assert type(got) is type(error)
    assert str(got) == str(error)
    wanted = {**vars(error), "request_id": 9, "outcome": error.outcome}
    assert {**vars(got), "outcome": got.outcome} == wanted
    assert got.retryable == error.retryable


def test_a_full_disk_is_a_refusal() -> None:
    got = decode_error(encode_error(DiskFull("no room in /secret/path", path="/secret/path"), node="n2"))
    assert isinstance(got, NotApplied)
    assert got.reason is Reason.DISK_FULL
    assert got.node == "n2"
    assert got.outcome == "not_applied"
    assert "/secret" not in str(got)


@pytest.mark.parametrize(
    "error", [StoreFailed("cannot write /secret/path", path="/secret/path"), ValueError("hunter2"), KeyError("hunter2")]
)
def test_what_is_not_public_crosses_without_its_text(error: Exception) -> None:
    body = encode_error(error)
    assert b"secret" not in body
    assert b"hunter2" not in body
    got = decode_error(body)
    assert type(got) is ServerBug
    assert str(got) == f"internal error: {type(error).__name__}"


@pytest.mark.parametrize("outcome", ["not_applied", "unknown", "none"])
def test_an_unknown_reason_keeps_message_and_outcome(outcome: str) -> None:
    fields = {"reason": "from_the_future", "message": "new", "outcome": outcome, "node": ""}
    for body in (encode_map(fields), encode_map({**fields, "kind": "brand_new"})):
        got = decode_error(body)
        assert got.outcome == outcome
        assert "new" in str(got)
        assert isinstance(got, OutcomeUnknown | ServerBug)


def test_a_sender_that_names_no_kind_is_understood_by_reason_and_outcome() -> None:
    fields = {"reason": "overloaded", "message": "m", "outcome": "not_applied", "node": "", "retry_after": 2}
    got = decode_error(encode_map(fields))
    assert isinstance(got, Overloaded)
    assert got.retry_after == 2.0


def test_long_messages_are_cut() -> None:
    assert len(str(decode_error(encode_error(ClientMisuse("x" * 5000))))) == MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    "change",
    [
        {"message": 5},
        {"outcome": "perhaps"},
        {"reason": None},
        {"kind": "not_enough_replicas", "alive": -1},
        {"kind": "overloaded", "retry_after": float("nan")},
        {"kind": "overloaded", "retry_after": "soon"},
        {"kind": "outcome_unknown", "replicas": [1]},
        {"kind": "outcome_unknown", "op_id": b"x" * 17},
        {"node": "n" * 257},
    ],
)
def test_malformed_errors_are_protocol_errors(change: dict[str, object]) -> None:
    fields: dict[str, object] = {"reason": "failed", "message": "m", "outcome": "none", "node": ""}
    decode_error(encode_map(fields))
    with pytest.raises(ProtocolError):
        decode_error(encode_map({**fields, **change}))
    with pytest.raises(ProtocolError):
        decode_error(b"\xff")
