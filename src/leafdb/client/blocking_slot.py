"""A caller's place at a blocking connection: where its answer is put, and the word that it has not come yet."""

from __future__ import annotations

import threading

from leafdb.client.effects import ExchangeFailed
from leafdb.wire.frame import Frame


class Slot:
    """A place for one answer. `gate` is made by a thread that waits while another leads."""

    __slots__ = ("error", "frame", "gate", "request_id")

    def __init__(self, request_id: int) -> None:
        self.request_id: int = request_id
        self.frame: Frame | None = None
        self.error: ExchangeFailed | None = None
        self.gate: threading.Lock | None = None


class Late(Exception):
    """There is no answer yet, and time is left. The slot keeps its place: wait for it again, or abandon it."""

    def __init__(self, slot: Slot) -> None:
        super().__init__("no answer yet")
        self.slot: Slot = slot
