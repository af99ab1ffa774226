"""What a record becomes in an exchange, by where both stores stand: the table of decision 0008, and its promises."""

from __future__ import annotations

from functools import partial

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.epochs import EpochLease
from leafdb.model.record import accept, header, merge
from leafdb.node.exchange_terms import Terms, loss_proved, taken, terms_of
from leafdb.node.horizons import Standing
from leafdb.types import Conflict, NodeId
from support.old_and_new import HORIZON, NEW, OLD, written

YES, NO = Standing(HORIZON, vouches=True), Standing(HORIZON, vouches=False)
IDENTITY = ActorIdentity(1, NodeId(1), 1)
LIVING, OTHER, FRESH = written(1, OLD), written(2, OLD + 1), written(3, NEW)
DEAD = written(4, OLD, None)


def became(terms: Terms, local: bytes | None, theirs: bytes | None, horizon: int = HORIZON) -> bytes | None:
    """By these terms."""
    epochs = EpochLease.recovered(ceiling=0, floor=0, clean=False)
    epochs.grant(1 << 20)
    return taken(
        terms, local, theirs, Conflict.SIBLINGS, identity=IDENTITY, epochs=epochs, horizon=horizon,
        accept=partial(accept, conflict=Conflict.SIBLINGS, identity=IDENTITY, epochs=epochs),
    )  # fmt: skip


def both(one: bytes, other: bytes) -> bytes:
    return merge(one, other, Conflict.SIBLINGS)


@pytest.mark.parametrize(
    ("ours", "theirs", "nobody", "terms"),
    [
        (YES, YES, False, Terms.WHOLE),
        (NO, YES, False, Terms.MADE_WHOLE),
        (YES, NO, False, Terms.MESSAGE),
        (NO, NO, False, Terms.MESSAGE),
        (NO, NO, True, Terms.EVERYTHING),
        (YES, NO, True, Terms.MESSAGE),
        (NO, YES, True, Terms.MADE_WHOLE),
        (Standing(0, vouches=True), Standing(0, vouches=True), False, Terms.WHOLE),
    ],
)
def test_terms_follow_from_who_vouches(ours: Standing, theirs: Standing, nobody: bool, terms: Terms) -> None:
    assert terms_of(ours, theirs, nobody=nobody) is terms


@pytest.mark.parametrize(
    ("terms", "local", "theirs", "result"),
    [
        # Everything is taken, where it does not prove a loss.
        (Terms.WHOLE, None, FRESH, FRESH),
        (Terms.WHOLE, LIVING, None, LIVING),
        (Terms.WHOLE, LIVING, FRESH, both(LIVING, FRESH)),
        (Terms.WHOLE, FRESH, DEAD, both(FRESH, DEAD)),
        (Terms.EVERYTHING, None, LIVING, LIVING),
        (Terms.EVERYTHING, FRESH, LIVING, both(FRESH, LIVING)),
        (Terms.EVERYTHING, LIVING, None, LIVING),
        # What is old and unknown here was forgotten by right.
        (Terms.MESSAGE, None, LIVING, None),
        (Terms.MESSAGE, None, FRESH, FRESH),
        (Terms.MESSAGE, FRESH, LIVING, FRESH),
        (Terms.MESSAGE, LIVING, LIVING, LIVING),
        (Terms.MESSAGE, LIVING, OTHER, both(LIVING, OTHER)),
        (Terms.MESSAGE, LIVING, None, LIVING),
        (Terms.MESSAGE, None, None, None),
        # What is old here and unknown there goes; what is new stays.
        (Terms.MADE_WHOLE, LIVING, None, None),
        (Terms.MADE_WHOLE, FRESH, None, FRESH),
        (Terms.MADE_WHOLE, None, LIVING, LIVING),
        (Terms.MADE_WHOLE, LIVING, FRESH, FRESH),
        (Terms.MADE_WHOLE, FRESH, LIVING, both(FRESH, LIVING)),
        (Terms.MADE_WHOLE, both(LIVING, FRESH), None, FRESH),
        (Terms.MADE_WHOLE, None, None, None),
    ],
)
def test_a_record_becomes_what_the_terms_say(
    terms: Terms, local: bytes | None, theirs: bytes | None, result: bytes | None
) -> None:
    found = became(terms, local, theirs)
    if terms is Terms.MADE_WHOLE and result == FRESH and found is not None and local != FRESH:
        assert header(found).heads.keys() == header(FRESH).heads.keys(), "the clock may tell more"
    else:
        assert found == result


def test_something_that_lives_and_is_old_on_one_side_only_proves_a_loss_where_both_vouch() -> None:
    for local in (None, FRESH):
        assert loss_proved(Terms.WHOLE, local, LIVING, HORIZON)
        assert not any(loss_proved(terms, local, LIVING, HORIZON) for terms in Terms if terms is not Terms.WHOLE)
        assert became(Terms.WHOLE, local, LIVING) == (both(local, LIVING) if local else LIVING), "and it is taken"
    assert not loss_proved(Terms.WHOLE, None, LIVING, 0), "nothing has been proved yet"
    assert not loss_proved(Terms.WHOLE, None, written(1, HORIZON), HORIZON), "at the horizon nothing is old"


def test_who_is_made_whole_is_what_the_other_becomes_by_its_message() -> None:
    for ours in (None, LIVING, OTHER, FRESH, DEAD, both(LIVING, FRESH)):
        for theirs in (None, LIVING, OTHER, FRESH, both(OTHER, FRESH)):
            whole = became(Terms.MADE_WHOLE, ours, theirs)
            other = became(Terms.MESSAGE, theirs, ours)
            assert whole == other, (ours, theirs)
