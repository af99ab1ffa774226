"""One caller that waits for the same answer from two nodes: a hedged read under trio or asyncio.

It listens to the first itself, and a task of the race to the second; reads that are not hedged never come here. The
first answer counts and ends the race, and what the slower node says later is dropped like any answer nobody waits for.
A refusal or a broken connection leaves the race to the other node; when both are out of it, the first node's word is
the result, for it is the one that was chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import anyio

from leafdb.client.anyio_connection import AnyioConnection
from leafdb.client.anyio_slot import Slot
from leafdb.client.effects import ExchangeFailed
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType


class Runner(NamedTuple):
    """One of the two: a request that was queued, and where."""

    connection: AnyioConnection
    slot: Slot


async def first_answer(first: Runner, second: Runner, deadline: float) -> Frame:
    """The frame that comes first and is no refusal. Raises ExchangeFailed. Both slots are given up at the end."""
    winners: list[Frame] = []
    outcomes: dict[Runner, Frame | ExchangeFailed] = {}

    async def listen(runner: Runner) -> None:
        try:
            outcome: Frame | ExchangeFailed = await runner.connection.wait(runner.slot, deadline)
        except ExchangeFailed as failure:
            outcome = failure
        outcomes[runner] = outcome
        if isinstance(outcome, Frame) and outcome.type != MessageType.ERROR:
            winners.append(outcome)
            race.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as race:
            race.start_soon(listen, second)
            await listen(first)
    finally:
        # Also of a task that was cancelled before it began to listen.
        for runner in (first, second):
            if runner.slot.frame is None:
                runner.connection.abandon(runner.slot, outrun=True)
    if winners:
        return winners[0]
    lost = outcomes[first]
    if isinstance(lost, ExchangeFailed):
        raise lost
    return lost
