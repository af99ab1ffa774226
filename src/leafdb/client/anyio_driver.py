"""Runs operations under trio or asyncio: what the asynchronous client stands on.

Connections are tasks of one task group, opened with the client's `async with` block and finished with it. `dial` makes
the stream and is a parameter: an embedded node, or a test, hands over a stream of its own. Connecting happens in the
connection's task too, so a caller that is cancelled does not take it away from others who wait for the same node.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from leafdb.client import fork_watch
from leafdb.client.anyio_connection import STREAM_ERRORS, AnyioConnection, Transport
from leafdb.client.anyio_race import Runner, first_answer
from leafdb.client.anyio_slot import Late, Slot
from leafdb.client.batch import Batch, Ticket
from leafdb.client.call import Begun, KeyCall
from leafdb.client.core import Core
from leafdb.client.dial_socket import SocketTransport, dial_socket
from leafdb.client.effects import Denied, Ended, Exchange, ExchangeFailed, Operation, Unsent
from leafdb.client.event_loop import EventLoop, running_loop
from leafdb.client.results import Failed
from leafdb.client.routing import NodeState
from leafdb.client.url import Address
from leafdb.errors import ClientMisuse
from leafdb.wire.frame import Frame

T = TypeVar("T")

AsyncDial = Callable[[Address], Awaitable[Transport]]
"""address -> a connected stream; raises OSError."""

CONNECT_S_MAX: Final = 1.0
"""One node's share of a deadline: one that does not answer must not keep a call from the next."""


class _Attempt:
    """A connection being made; `reason` says why there is none in the end."""

    __slots__ = ("connection", "denied", "done", "reason")

    def __init__(self) -> None:
        self.connection: AnyioConnection | None = None
        self.denied: Denied | None = None
        self.done = anyio.Event()
        self.reason = f"no connection within {CONNECT_S_MAX} s"


class AnyioDriver:
    """Performs effects. Outside its `async with` block, in another event loop and after a fork it is misused."""

    def __init__(self, core: Core, dial: AsyncDial = dial_socket) -> None:
        self._core = core
        self._dial = dial
        self._closed = False
        self._forked = False
        self._misuse: str | None = "use the client inside its block: async with leafdb.connect_async(...) as db"
        """Why every use is one."""
        self._loop: EventLoop | None = None
        self._here: object = None
        self._checkpoint: Callable[[], Awaitable[None]] = checkpoint_if_cancelled
        self._tasks: TaskGroup | None = None
        self._attempts: dict[NodeState, _Attempt] = {}
        self._connections: dict[NodeState, AnyioConnection] = {}
        fork_watch.watch(self)

    async def open(self) -> None:
        """Enter the `async with` block: the task group opens, nothing is sent."""
        if self._closed or self._tasks is not None:
            raise ClientMisuse("this client was opened before: connect again for another block")
        self._loop = running_loop()
        self._here = self._loop.here()
        self._checkpoint = self._loop.checkpoint_if_cancelled
        if self._core.clock is anyio.current_time:
            self._core.clock = self._loop.clock
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        if not self._forked:
            self._misuse = None

    async def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""
        self._check_usable()
        return await self._drive(operation)

    async def _drive(self, operation: Operation[T]) -> T:
        try:
            effect = next(operation)
            while True:
                if type(effect) is Exchange:
                    try:
                        frame = await self._exchange(effect)
                    except ExchangeFailed as failure:
                        effect = operation.throw(failure)
                        continue
                    effect = operation.send(frame)
                else:
                    assert not isinstance(effect, Exchange)
                    await anyio.sleep(effect.seconds)
                    try:
                        self._check_usable()
                    except ClientMisuse as misuse:
                        effect = operation.throw(misuse)
                    else:
                        effect = operation.send(None)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            operation.close()

    async def run_key(self, call: KeyCall[T]) -> T:
        """Run a call that most likely needs one exchange: that one without the machinery, all else with it."""
        self._check_usable()
        exchange = call.begin()
        if exchange is None:
            return await self._drive(call.steps())
        node, message_type, body, deadline, hedge_at, _ = exchange
        connection = self._connections.get(node)
        if connection is None or not connection.usable:
            return await self._drive(call.steps())
        core = self._core
        outcome: Frame | ExchangeFailed
        try:
            try:
                await self._checkpoint()  # what is cancelled already is not sent
                outcome = await connection.exchange(message_type, body, deadline, hedge_at)
                if hedge_at:
                    core.hedging.in_time()
            except Late as late:
                outcome = await self._hedged(exchange, Runner(connection, late.slot))
            if outcome.type == call.reply_type:
                if node.failures:
                    node.answered()
                if core.budget.wanting:
                    core.budget.earn()
                return call.finish(outcome)
        except Ended:  # while nobody looked
            return await self._drive(call.steps())
        except ExchangeFailed as failure:
            outcome = failure
        return await self._drive(call.steps(Begun(node, outcome)))

    async def run_all(self, operations: Iterable[Operation[T]]) -> list[T | Failed]:
        """Run many operations, pipelined; results in their order."""
        self._check_usable()
        batch = Batch(operations, self._core.clock)
        flying: deque[tuple[Ticket, AnyioConnection, Slot]] = deque()
        try:
            while True:
                tickets = batch.take()
                if tickets:
                    flying.extend(await self._submit_all(batch, tickets))
                elif flying:
                    ticket, connection, slot = flying.popleft()
                    batch.resume(ticket, await _outcome(connection, slot, ticket.exchange.deadline))
                else:
                    pause = batch.wakes_in_s()
                    if pause is None:
                        return batch.results()
                    await anyio.sleep(pause)
        finally:
            for _, connection, slot in flying:
                connection.abandon(slot)
            batch.close()

    async def close(self) -> None:
        """Close every connection. Calls under way in other tasks fail; calling it again does nothing."""
        self._shut()
        await checkpoint()

    def _shut(self) -> None:
        self._closed = True
        self._misuse = "this client is closed"
        if not self._forked and self._tasks is not None:
            for connection in list(self._connections.values()):
                connection.close("the client was closed")
            self._connections.clear()

    async def leave(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the `async with` block: close, and wait for the connections' tasks.

        The task group wraps what the block raised into a group; the caller's own exception is what should surface, so
        a group of nothing else is dropped and the block's exception goes on by itself.
        """
        self._shut()
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        tasks.cancel_scope.cancel()
        try:
            await tasks.__aexit__(exc_type, exc, traceback)
        except BaseExceptionGroup as group:
            ours = anyio.get_cancelled_exc_class()
            if exc is None or group.split(lambda each: each is exc or isinstance(each, ours))[1] is not None:
                raise

    def forked(self) -> None:
        """This is its copy in the child of a fork."""
        self._forked = True
        if self._misuse is None:
            self._misuse = "this client was opened before the process forked: connect again in the child"

    def _check_usable(self) -> None:
        if self._misuse is not None:
            raise ClientMisuse(self._misuse)
        assert self._loop is not None
        try:
            if self._loop.here() is self._here:
                return
        except RuntimeError:
            pass
        raise ClientMisuse("this client belongs to another event loop: connect again in this one")

    async def _exchange(self, exchange: Exchange) -> Frame:
        node, message_type, body, deadline, hedge_at, _ = exchange
        connection = self._connections.get(node)
        if connection is not None and connection.usable:
            await self._checkpoint()  # what is cancelled already is not sent
            try:
                frame = await connection.exchange(message_type, body, deadline, hedge_at)
            except Ended:
                pass  # while nobody looked: that is no fault of the node
            except Late as late:
                return await self._hedged(exchange, Runner(connection, late.slot))
            else:
                if hedge_at:
                    self._core.hedging.in_time()
                return frame
        connection = await self._connect(node, deadline)
        await self._checkpoint()
        return await connection.exchange(message_type, body, deadline)

    async def _hedged(self, exchange: Exchange, first: Runner) -> Frame:
        """A read that takes too long: a second node is asked beside the first, if there is a connection."""
        try:
            second = self._start_hedge(exchange)
        except BaseException:
            first.connection.abandon(first.slot)
            raise
        if second is None:
            return await first.connection.wait(first.slot, exchange.deadline)
        return await first_answer(first, second, exchange.deadline)

    def _start_hedge(self, exchange: Exchange) -> Runner | None:
        """Ask a second node; None when there is none to be asked at once: connecting would cost what it saves."""
        hedge = self._core.hedge(exchange, self._connected)
        if hedge is None:
            return None
        connection = self._connections[hedge.node]
        try:
            (slot,) = connection.submit(((hedge.message_type, hedge.body),))
        except Ended:
            return None
        return Runner(connection, slot)

    def _connected(self, node: NodeState) -> bool:
        connection = self._connections.get(node)
        return connection is not None and connection.usable

    async def _submit_all(self, batch: Batch[T], tickets: list[Ticket]) -> list[tuple[Ticket, AnyioConnection, Slot]]:
        """Queue tickets; those that cannot be sent are resumed with the reason."""
        flying = []
        for ticket in tickets:
            exchange = ticket.exchange
            try:
                connection = await self._connect(exchange.node, exchange.deadline)
                (slot,) = connection.submit(((exchange.message_type, exchange.body),))
            except ExchangeFailed as failure:
                batch.resume(ticket, failure)
            else:
                flying.append((ticket, connection, slot))
        return flying

    async def _connect(self, node: NodeState, deadline: float) -> AnyioConnection:
        """The node's connection, made if there is none."""
        connection = self._connections.get(node)
        if connection is not None and connection.usable:
            return connection
        attempt = self._attempts.get(node)
        if attempt is None:
            if self._closed or self._tasks is None:
                raise Unsent("the client was closed")
            attempt = self._attempts[node] = _Attempt()
            self._tasks.start_soon(self._serve, node, attempt)
        with anyio.CancelScope(deadline=deadline):
            await attempt.done.wait()
        if attempt.connection is None:
            raise attempt.denied or Unsent(attempt.reason)
        return attempt.connection

    async def _serve(self, node: NodeState, attempt: _Attempt) -> None:
        """One connection's life: connect, shake hands, serve, close."""
        assert self._loop is not None
        stream: Transport | None = None
        try:
            try:
                login = self._core.login(node.address)
                with anyio.CancelScope(deadline=anyio.current_time() + CONNECT_S_MAX):
                    stream = await self._dial(node.address)
                    attempt.reason = "the node did not answer the handshake in time"
                    kind = self._loop.over_socket if isinstance(stream, SocketTransport) else AnyioConnection
                    attempt.connection = self._welcome(node, await kind.establish(stream, login))
            except Denied as denied:
                attempt.denied = denied
            except Unsent as failure:
                attempt.reason = failure.reason
            except STREAM_ERRORS as error:
                attempt.reason = _reason(error)
            finally:
                del self._attempts[node]
                attempt.done.set()
            if attempt.connection is not None:
                await attempt.connection.serve()
        finally:
            if stream is not None:
                with anyio.CancelScope(shield=True) as scope:
                    scope.cancel()
                    await stream.aclose()

    def _welcome(self, node: NodeState, connection: AnyioConnection) -> AnyioConnection:
        facts = connection.facts
        if self._closed:
            raise Unsent("the client was closed")
        if not self._core.meet(facts.cluster_id):
            raise Unsent(f"the node belongs to another cluster ({facts.cluster})")
        self._connections[node] = connection
        node.waiting = connection.waiting
        node.traces = facts.traces
        self._core.router.saw_epoch(facts.epoch)
        return connection

    def check(self) -> None:
        """Every connection is sound, and the load routing sees is the connection's own table."""
        for node, connection in self._connections.items():
            connection.check()
            assert node.waiting is connection.waiting


async def _outcome(connection: AnyioConnection, slot: Slot, deadline: float) -> Frame | ExchangeFailed:
    try:
        return await connection.wait(slot, deadline)
    except ExchangeFailed as failure:
        return failure


def _reason(error: BaseException) -> str:
    """What an OSError has to say; anyio wraps those of several addresses into one another."""
    inner = error.__cause__
    if isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    if isinstance(inner, OSError):
        error = inner
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
