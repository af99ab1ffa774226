"""One thread that waits for the same answer from two nodes: a hedged read on blocking sockets.

It listens to one connection and then to the other, a few milliseconds each, as reader or behind the thread that reads
there; no rule of the connection changes. The first answer counts, and what the slower node says later is dropped like
any answer nobody waits for. A refusal or a broken connection leaves the race to the other node; when both are out of
it, the first node's word is the result, for it is the one that was chosen.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from leafdb.client.blocking_connection import BlockingConnection
from leafdb.client.blocking_slot import Late, Slot
from leafdb.client.effects import ExchangeFailed
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType

TURN_S: Final = 0.004


class Runner(NamedTuple):
    """One of the two: a request that was sent, and where."""

    connection: BlockingConnection
    slot: Slot


def first_answer(first: Runner, second: Runner, deadline: float) -> Frame:
    """The frame that comes first and is no refusal. Raises ExchangeFailed. Both slots are given up at the end."""
    racing = [first, second]
    lost: Frame | ExchangeFailed | None = None
    try:
        while racing:
            for runner in tuple(racing):
                outcome = _listen(runner, deadline)
                if outcome is None:
                    continue
                racing.remove(runner)
                if isinstance(outcome, Frame) and outcome.type != MessageType.ERROR:
                    return outcome
                if lost is None or runner is first:
                    lost = outcome
    finally:
        for runner in racing:
            runner.connection.abandon(runner.slot, outrun=True)
    assert lost is not None, "nobody ran"
    if isinstance(lost, ExchangeFailed):
        raise lost
    return lost


def _listen(runner: Runner, deadline: float) -> Frame | ExchangeFailed | None:
    """What has come of one of them by the end of its turn; None for nothing yet."""
    try:
        return runner.connection.wait(runner.slot, deadline, min(deadline, time.monotonic() + TURN_S))
    except Late:
        return None
    except ExchangeFailed as failure:
        return failure
