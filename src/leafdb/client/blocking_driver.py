"""Runs operations on blocking sockets: what the synchronous client stands on. Any thread may call it.

One connection per node, made when first needed; threads share it (see `blocking_connection`). `dial` makes the socket
and is a parameter: an embedded node, or a test, hands over one end of a socket pair.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, TypeVar

from leafdb.client import fork_watch
from leafdb.client.batch import Batch, Ticket
from leafdb.client.blocking_connection import BlockingConnection
from leafdb.client.blocking_race import Runner, first_answer
from leafdb.client.blocking_slot import Late, Slot
from leafdb.client.call import Begun, KeyCall
from leafdb.client.core import Core
from leafdb.client.effects import Effect, Ended, Exchange, ExchangeFailed, Operation, Unsent
from leafdb.client.line import Line
from leafdb.client.results import Failed
from leafdb.client.routing import NodeState
from leafdb.client.url import Address
from leafdb.errors import ClientMisuse
from leafdb.wire.frame import Frame

T = TypeVar("T")

Dial = Callable[[Address, float], Line]
"""(address, seconds) -> a connected stream socket; raises OSError."""

CONNECT_S_MAX: Final = 1.0
"""One node's share of a deadline: one that does not answer must not keep a call from the next."""


def dial_tcp(address: Address, timeout_s: float) -> socket.socket:
    """Connect over TCP."""
    sock = socket.create_connection((address.host, address.port), timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class BlockingDriver:
    """Performs effects. After `close`, and in the child of a fork, every use is a ClientMisuse."""

    def __init__(self, core: Core, dial: Dial = dial_tcp) -> None:
        self._core = core
        self._dial = dial
        self._closed = False
        self._misuse: str | None = None
        """Why every use is one: it was closed, or this is the child of a fork."""
        self._forked = False
        self._lock = threading.Lock()
        self._connecting: dict[NodeState, threading.Lock] = {}
        self._connections: dict[NodeState, BlockingConnection] = {}
        fork_watch.watch(self)

    def open(self) -> None:
        """Entering a `with` block: no I/O, no state."""
        self._check_usable()

    def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""
        self._check_usable()
        return self._drive(operation)

    def _drive(self, operation: Operation[T]) -> T:
        try:
            effect = next(operation)
            while True:
                if type(effect) is Exchange:
                    try:
                        frame = self._exchange(effect)
                    except ExchangeFailed as failure:
                        effect = operation.throw(failure)
                        continue
                    effect = operation.send(frame)
                else:
                    effect = self._sleep(operation, effect)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            operation.close()

    def run_key(self, call: KeyCall[T]) -> T:
        """Run a call that most likely needs one exchange: that one without the machinery, all else with it."""
        if self._misuse is not None:
            raise ClientMisuse(self._misuse)
        exchange = call.begin()
        if exchange is None:
            return self._drive(call.steps())
        node, message_type, body, deadline, hedge_at, _ = exchange
        connection = self._connections.get(node)
        if connection is None or not connection.usable:
            return self._drive(call.steps())
        core = self._core
        outcome: Frame | ExchangeFailed
        try:
            try:
                outcome = connection.exchange(message_type, body, deadline, hedge_at)
                if hedge_at:
                    core.hedging.in_time()
            except Late as late:
                outcome = self._hedged(exchange, Runner(connection, late.slot))
            if outcome.type == call.reply_type:
                if node.failures:
                    node.answered()
                if core.budget.wanting:
                    core.budget.earn()
                return call.finish(outcome)
        except Ended:  # while nobody looked
            return self._drive(call.steps())
        except ExchangeFailed as failure:
            outcome = failure
        return self._drive(call.steps(Begun(node, outcome)))

    def run_all(self, operations: Iterable[Operation[T]]) -> list[T | Failed]:
        """Run many operations, pipelined; results in their order."""
        self._check_usable()
        batch = Batch(operations, self._core.clock)
        flying: deque[tuple[Ticket, BlockingConnection, Slot]] = deque()
        try:
            while True:
                tickets = batch.take()
                if tickets:
                    flying.extend(self._submit_all(batch, tickets))
                elif flying:
                    ticket, connection, slot = flying.popleft()
                    batch.resume(ticket, _outcome(connection, slot, ticket.exchange.deadline))
                else:
                    pause = batch.wakes_in_s()
                    if pause is None:
                        return batch.results()
                    time.sleep(pause)
        finally:
            for _, connection, slot in flying:
                connection.abandon(slot)
            batch.close()

    def close(self) -> None:
        """Close every connection. Calls under way in other threads fail; calling it again does nothing."""
        self._closed = True
        self._misuse = "this client is closed"
        if self._forked:
            for connection in self._connections.values():
                connection.discard()
            return
        with self._lock:
            connections = list(self._connections.values())
            self._connections.clear()
        for connection in connections:
            connection.close("the client was closed")

    def leave(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaving a `with` block: close, whatever the block raised."""
        self.close()

    def forked(self) -> None:
        """This is its copy in the child of a fork."""
        self._forked = True
        if self._misuse is None:
            self._misuse = "this client was made before the process forked: connect again in the child"

    def _check_usable(self) -> None:
        if self._misuse is not None:
            raise ClientMisuse(self._misuse)

    def _sleep(self, operation: Operation[T], effect: Effect) -> Effect:
        assert not isinstance(effect, Exchange)
        time.sleep(effect.seconds)
        try:
            self._check_usable()
        except ClientMisuse as misuse:
            return operation.throw(misuse)
        return operation.send(None)

    def _exchange(self, exchange: Exchange) -> Frame:
        node, message_type, body, deadline, hedge_at, _ = exchange
        connection = self._connections.get(node)
        if connection is not None and connection.usable:
            try:
                frame = connection.exchange(message_type, body, deadline, hedge_at)
            except Ended:
                pass  # while nobody looked: that is no fault of the node
            except Late as late:
                return self._hedged(exchange, Runner(connection, late.slot))
            else:
                if hedge_at:
                    self._core.hedging.in_time()
                return frame
        return self._connect(node, deadline).exchange(message_type, body, deadline)

    def _hedged(self, exchange: Exchange, first: Runner) -> Frame:
        """A read that takes too long: a second node is asked beside the first, if there is a connection."""
        try:
            second = self._start_hedge(exchange)
        except BaseException:
            first.connection.abandon(first.slot)
            raise
        if second is None:
            return first.connection.wait(first.slot, exchange.deadline)
        return first_answer(first, second, exchange.deadline)

    def _start_hedge(self, exchange: Exchange) -> Runner | None:
        """Ask a second node; None when there is none to be asked at once: connecting would cost what it saves."""
        hedge = self._core.hedge(exchange, self._connected)
        if hedge is None:
            return None
        connection = self._connections.get(hedge.node)
        if connection is None:
            return None
        try:
            (slot,) = connection.submit(((hedge.message_type, hedge.body),), hedge.deadline)
        except ExchangeFailed:
            return None
        return Runner(connection, slot)

    def _connected(self, node: NodeState) -> bool:
        connection = self._connections.get(node)
        return connection is not None and connection.usable

    def _submit_all(self, batch: Batch[T], tickets: list[Ticket]) -> list[tuple[Ticket, BlockingConnection, Slot]]:
        """Send tickets, one send per node; those that cannot be sent are resumed with the reason."""
        by_node: dict[NodeState, list[Ticket]] = {}
        for ticket in tickets:
            by_node.setdefault(ticket.exchange.node, []).append(ticket)
        flying = []
        for node, group in by_node.items():
            deadline = max(ticket.exchange.deadline for ticket in group)
            try:
                connection = self._connect(node, deadline)
                requests = [(ticket.exchange.message_type, ticket.exchange.body) for ticket in group]
                slots = connection.submit(requests, deadline)
            except ExchangeFailed as failure:
                for ticket in group:
                    batch.resume(ticket, failure)
                continue
            flying += [(ticket, connection, slot) for ticket, slot in zip(group, slots, strict=True)]
        return flying

    def _connect(self, node: NodeState, deadline: float) -> BlockingConnection:
        """The node's connection, made if there is none. Threads that want the same one wait for who makes it."""
        with self._lock:
            connection = self._connections.get(node)
            if connection is not None and connection.usable:
                return connection
            if self._closed:
                raise Unsent("the client was closed")
            turn = self._connecting.setdefault(node, threading.Lock())
        until = min(deadline, time.monotonic() + CONNECT_S_MAX)
        if not turn.acquire(timeout=max(0.0, until - time.monotonic())):
            raise Unsent("no connection in time")
        try:
            connection = self._connections.get(node)
            if connection is not None and connection.usable:
                return connection
            return self._make_connection(node, until)
        finally:
            turn.release()

    def _make_connection(self, node: NodeState, until: float) -> BlockingConnection:
        left_s = until - time.monotonic()
        if left_s <= 0.0:
            raise Unsent("no connection in time")
        login = self._core.login(node.address)
        try:
            sock = self._dial(node.address, left_s)
        except TimeoutError:
            raise Unsent(f"no connection within {left_s:.1f} s") from None
        except OSError as error:
            raise Unsent(error.strerror or str(error)) from None
        connection = BlockingConnection.establish(sock, until, login)
        facts = connection.facts
        with self._lock:
            if self._closed:
                refused = "the client was closed"
            elif not self._core.meet(facts.cluster_id):
                refused = f"the node belongs to another cluster ({facts.cluster})"
            else:
                self._connections[node] = connection
                node.waiting = connection.waiting
                node.traces = facts.traces
                self._core.router.saw_epoch(facts.epoch)
                return connection
        connection.close(refused)
        raise Unsent(refused)

    def check(self) -> None:
        """Every connection is sound, and the load routing sees is the connection's own table."""
        for node, connection in list(self._connections.items()):
            connection.check()
            assert node.waiting is connection.waiting


def _outcome(connection: BlockingConnection, slot: Slot, deadline: float) -> Frame | ExchangeFailed:
    try:
        return connection.wait(slot, deadline)
    except ExchangeFailed as failure:
        return failure
