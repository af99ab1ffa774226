"""What a task waits with: a place for one answer. Each kind of connection has a kind of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import anyio

from leafdb.client.effects import ExchangeFailed
from leafdb.wire.frame import Frame


class Slot(ABC):
    """A place for one answer. Each kind has a constructor of its own: every request pays for it."""

    __slots__ = ("deadline", "error", "frame", "request_id")
    request_id: int
    deadline: float
    frame: Frame | None
    error: ExchangeFailed | None

    @abstractmethod
    def wake(self) -> None:
        """The slot has its frame or its error."""

    def answered(self) -> None:
        """As `wake`, by whoever reads."""
        self.wake()


class EventSlot(Slot):
    """Waits on an event, in either loop."""

    __slots__ = ("event",)

    def __init__(self, request_id: int) -> None:
        self.request_id: int = request_id
        self.deadline: float = math.inf
        self.frame: Frame | None = None
        self.error: ExchangeFailed | None = None
        self.event: anyio.Event = anyio.Event()

    def wake(self) -> None:
        """The slot has its frame or its error."""
        self.event.set()


class Late(Exception):
    """There is no answer yet, and time is left. The slot keeps its place: wait for it again, or abandon it."""

    def __init__(self, slot: Slot) -> None:
        super().__init__("no answer yet")
        self.slot: Slot = slot
