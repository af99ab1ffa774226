"""One task that waits for the same answer from two nodes: a hedged read under trio or asyncio.

Both slots share one event. The first answer counts, and what the slower node says later is dropped like any answer
nobody waits for. A refusal or a broken connection leaves the race to the other node; when both are out of it, the first
node's word is the result, for it is the one that was chosen.
"""

from __future__ import annotations

from typing import NamedTuple

import anyio

from leafdb.client.anyio_connection import AnyioConnection, Slot
from leafdb.client.effects import ExchangeFailed, Expired
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType


class Runner(NamedTuple):
    """One of the two: a request that was queued, and where."""

    connection: AnyioConnection
    slot: Slot


async def first_answer(first: Runner, second: Runner, deadline: float) -> Frame:
    """The frame that comes first and is no refusal. Raises ExchangeFailed. Both slots are given up at the end.

    Between a look at the slots and the next wait nothing else runs, so no answer can slip through.
    """
    racing = [first, second]
    lost: Frame | ExchangeFailed | None = None
    try:
        while racing:
            event = anyio.Event()
            for runner in racing:
                runner.slot.event = event
            with anyio.CancelScope(deadline=deadline):
                await event.wait()
            for runner in tuple(racing):
                outcome = runner.slot.frame or runner.slot.error
                if outcome is None and not event.is_set():
                    outcome = Expired("wait", sent=True)
                if outcome is None:
                    continue
                racing.remove(runner)
                if isinstance(outcome, Frame) and outcome.type != MessageType.ERROR:
                    return outcome
                if lost is None or runner is first:
                    lost = outcome
    finally:
        for runner in (first, second):
            if runner.slot.frame is None:
                runner.connection.abandon(runner.slot, outrun=True)
    assert lost is not None, "nobody ran"
    if isinstance(lost, ExchangeFailed):
        raise lost
    return lost
