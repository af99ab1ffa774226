"""The pipeline: every operation ends in its own place, whatever order outcomes come in, within the window."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.client.batch import WINDOW, WINDOW_BYTES, Batch, Ticket
from leafdb.client.effects import Exchange, Operation, Sleep, Unsent
from leafdb.client.results import Failed
from leafdb.client.routing import NodeState
from leafdb.client.url import Address
from leafdb.errors import ClientMisuse, DataError
from leafdb.wire.frame import Frame

NODE = NodeState(Address("n", 1))


def operation(number: int, exchanges: int, naps: int, size: int, fails: bool) -> Operation[int]:
    for turn in range(exchanges):
        try:
            frame = yield Exchange(NODE, 1, b"%d" % number + bytes(size), 0.0)
        except Unsent:
            continue
        assert frame is not None
        assert frame.request_id == number, "an answer went to another operation"
        if turn < naps:
            yield Sleep(0.5)
    if fails:
        raise DataError(str(number))
    return number


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from([0, 100, WINDOW_BYTES]), st.booleans()),
        max_size=30,
    ),
    st.integers(0, 10_000),
)
def test_results_come_in_order(plans: list[tuple[int, int, int, bool]], seed: int) -> None:
    rng, now = Random(seed), [0.0]
    made = [operation(number, *plan) for number, plan in enumerate(plans)]
    batch: Batch[int] = Batch(made, lambda: now[0])
    flying: list[Ticket] = []
    while True:
        flying += batch.take()
        batch.check()
        assert len(flying) <= WINDOW
        assert sum(len(ticket.exchange.body) for ticket in flying) <= 2 * WINDOW_BYTES + 100
        if flying:
            ticket = flying.pop(rng.randrange(len(flying)))
            lost = rng.random() < 0.2
            batch.resume(ticket, Unsent("lost") if lost else Frame(2, ticket.number, b""))
            batch.check()
        elif (nap := batch.wakes_in_s()) is not None:
            now[0] += nap
        else:
            break
    for number, (result, plan) in enumerate(zip(batch.results(), plans, strict=True)):
        assert isinstance(result, Failed) if plan[3] else result == number


def test_operations_start_as_the_window_opens() -> None:
    started: list[int] = []

    def one(number: int) -> Operation[int]:
        started.append(number)
        yield Exchange(NODE, 1, b"", 0.0)
        return number

    batch = Batch((one(number) for number in range(10_000)), lambda: 0.0)
    tickets = batch.take()
    assert len(tickets) == len(started) == WINDOW
    for ticket in tickets[: WINDOW // 2]:
        assert batch.take() == [], "refilled one by one"
        batch.resume(ticket, Frame(2, 0, b""))
    assert len(batch.take()) == WINDOW // 2
    batch.close()


def test_a_misuse_ends_the_batch_and_closing_ends_its_operations() -> None:
    closed: list[int] = []

    def one(number: int) -> Operation[Any]:
        try:
            yield Exchange(NODE, 1, b"", 0.0)
            raise ClientMisuse("wrong for every item")
        finally:
            closed.append(number)

    batch = Batch([one(0), one(1)], lambda: 0.0)
    first, _ = batch.take()
    with pytest.raises(ClientMisuse):
        batch.resume(first, Frame(2, 0, b""))
    batch.close()
    assert closed == [0, 1]
