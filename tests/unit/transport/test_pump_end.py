"""A connection that is made in the very moment in which its node ends."""

from __future__ import annotations

import trio
from trio.testing import trio_test

from leafdb.testing.network import memory_pair
from leafdb.transport.greet import greet
from leafdb.transport.pump import Pump
from leafdb.transport.session import OnClosed, Session
from leafdb.wire.handshake import ServerHello
from support.transports import FACTS, Client, echo


async def established(pump: Pump, on_closed: OnClosed = lambda *_: None) -> tuple[Session, Client]:
    """A session whose handshake is over and which the pump does not know yet, and its client."""
    near, far = memory_pair()
    client = Client(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.greet)
        connection, _ = await greet(near, ServerHello(FACTS))
    return Session(near, connection, pump, on_frame=echo, on_closed=on_closed), client


@trio_test
async def test_a_session_made_while_the_pump_ends_is_over_at_once() -> None:
    ended: list[Session] = []
    pump = Pump(clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        session, client = await established(pump, on_closed=lambda session, _: ended.append(session))
        nursery.cancel_scope.cancel()
    pump.attach(session)
    assert session.closed
    assert ended == [session]
    assert await client.receive() is None
    pump.check()


@trio_test
async def test_a_session_that_is_lost_before_its_tasks_begin_ends_quietly() -> None:
    pump = Pump(clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        await nursery.start(pump.run)
        session, client = await established(pump)
        pump.attach(session)
        session.close()
        assert await client.receive() is None
        pump.check()
        nursery.cancel_scope.cancel()
