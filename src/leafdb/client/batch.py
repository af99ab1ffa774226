"""Many operations at once, pipelined: a window of exchanges in flight, results in the order of the operations.

Pure. A driver asks `take()` for exchanges to start, performs them in any way it likes, and hands each outcome to
`resume()`. Operations are started only as the window opens, so a batch of a million costs a window of memory. An
operation that fails fills its own place with `Failed`; a misuse of the API ends the batch instead, for it concerns
every item alike.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from leafdb.client.effects import Exchange, ExchangeFailed, Operation
from leafdb.client.results import Failed
from leafdb.errors import ClientMisuse, LeafdbError
from leafdb.limits import MIB
from leafdb.wire.frame import Frame

T = TypeVar("T")

WINDOW: Final = 128
WINDOW_BYTES: Final = 1 * MIB


class Ticket(NamedTuple):
    """An exchange of the batch: `number` says which operation's."""

    number: int
    exchange: Exchange


class Batch(Generic[T]):
    """Runs operations to their ends. Every ticket taken must be resumed exactly once."""

    __slots__ = ("_active", "_bytes", "_clock", "_flying", "_pending", "_ready", "_results", "_sleeping")

    def __init__(self, operations: Iterable[Operation[T]], clock: Callable[[], float]) -> None:
        self._pending = enumerate(operations)
        self._active: dict[int, Operation[T]] = {}
        self._ready: deque[Ticket] = deque()
        self._sleeping: list[tuple[float, int]] = []
        self._flying: dict[int, int] = {}
        self._bytes = 0
        self._results: dict[int, T | Failed] = {}
        self._clock = clock

    def take(self) -> list[Ticket]:
        """The exchanges to start now; more come after a resume, or when a sleeper wakes."""
        now = self._clock()
        while self._sleeping and self._sleeping[0][0] <= now:
            self._advance(heapq.heappop(self._sleeping)[1], None)
        taken: list[Ticket] = []
        # Refilled when half of it is free: one send then carries many requests, where a full window would carry one.
        if len(self._flying) > WINDOW // 2 or self._bytes > WINDOW_BYTES // 2:
            return taken
        while len(self._flying) < WINDOW and (self._bytes < WINDOW_BYTES or not self._flying):
            if not self._ready and not self._start():
                break
            if self._ready:
                ticket = self._ready.popleft()
                self._flying[ticket.number] = len(ticket.exchange.body)
                self._bytes += len(ticket.exchange.body)
                taken.append(ticket)
        return taken

    def resume(self, ticket: Ticket, outcome: Frame | ExchangeFailed) -> None:
        """An exchange ended."""
        self._bytes -= self._flying.pop(ticket.number)
        self._advance(ticket.number, outcome)

    def wakes_in_s(self) -> float | None:
        """How long until a sleeper wakes; None when nothing sleeps."""
        return max(0.0, self._sleeping[0][0] - self._clock()) if self._sleeping else None

    def results(self) -> list[T | Failed]:
        """All results, in order, once nothing is left to do."""
        assert not self._active, "a batch is read before it is done"
        return [self._results[index] for index in range(len(self._results))]

    def close(self) -> None:
        """Give up what is under way."""
        for operation in self._active.values():
            operation.close()
        self._active.clear()

    def _start(self) -> bool:
        """Begin the next operation; False when all have begun or too many sleep."""
        if len(self._active) >= 2 * WINDOW:
            return False
        for index, operation in self._pending:
            self._active[index] = operation
            self._advance(index, None)
            return True
        return False

    def _advance(self, index: int, outcome: Frame | ExchangeFailed | None) -> None:
        operation = self._active[index]
        try:
            if isinstance(outcome, ExchangeFailed):
                effect = operation.throw(outcome)
            else:
                effect = operation.send(outcome)
        except StopIteration as stop:
            self._finish(index, stop.value)
        except ClientMisuse:
            del self._active[index]
            raise
        except LeafdbError as error:
            self._finish(index, Failed(error))
        else:
            if isinstance(effect, Exchange):
                self._ready.append(Ticket(index, effect))
            else:
                heapq.heappush(self._sleeping, (self._clock() + effect.seconds, index))

    def _finish(self, index: int, result: T | Failed) -> None:
        del self._active[index]
        self._results[index] = result

    def check(self) -> None:
        """What is active is ready, flying or asleep, and in one of the three only."""
        ready = {ticket.number for ticket in self._ready}
        asleep = {index for _, index in self._sleeping}
        assert ready | asleep | self._flying.keys() == self._active.keys()
        assert len(ready) + len(asleep) + len(self._flying) == len(self._active)
        assert self._bytes == sum(self._flying.values())
        assert not self._results.keys() & self._active.keys()
