"""Promise: exit codes are an interface; every error of the tree has the one the interface page pins."""

from __future__ import annotations

import pytest

from leafdb import errors
from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb_cli.exits import BY_REASON, exit_code, explanation

CASES: list[tuple[LeafdbError, int]] = [
    (errors.ConfigError("x"), 1),
    (errors.DataError("x"), 1),
    (errors.ServerBug("x"), 1),
    (errors.OpenFailed("x", path="p", reason="r"), 1),
    (errors.ProtocolError("x"), 1),
    (errors.ClientMisuse("x"), 2),
    (errors.ContextMismatch("x"), 4),
    (errors.ConnectFailed("x"), 5),
    (errors.NotEnoughReplicas("x", alive=1, required=2), 5),
    (errors.Overloaded("x", retry_after=1.0), 5),
    (errors.DeadlineExceeded("x", stage="queue"), 5),
    (errors.OutcomeUnknown("x", acks=1, required=2), 9),
    (NotApplied("x", reason=Reason.NO_SUCH_BUCKET), 3),
    (NotApplied("x", reason=Reason.CONFLICT_LIMIT), 4),
    (NotApplied("x", reason=Reason.UNAUTHORIZED), 6),
    (NotApplied("x", reason=Reason.DRAINING), 5),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda case: type(case).__name__)
def test_codes(error: LeafdbError, code: int) -> None:
    assert exit_code(error) == code


def test_every_reason_has_a_code() -> None:
    assert set(BY_REASON) == set(Reason)


def test_an_unknown_outcome_says_what_is_known() -> None:
    error = errors.OutcomeUnknown("lost", acks=1, required=2, replicas=["dev-0"], op_id=b"\x01" * 16, node="dev-1")
    text = explanation(error)
    assert "may or may not live on dev-0; 1 of 2" in text
    assert "01" * 16 in text
    assert "dev-1" in text


def test_every_problem_is_listed() -> None:
    error = errors.ConfigError("two", problems=["a.b: wrong", "c.d: odd"])
    assert explanation(error).splitlines() == ["2 problems:", "  a.b: wrong", "  c.d: odd"]


def test_what_may_be_tried_again_says_so() -> None:
    assert "trying again may help" in explanation(errors.Overloaded("busy", retry_after=1.0))
    assert "trying again" not in explanation(NotApplied("no", reason=Reason.TOO_LARGE))
