"""What a thread waits with: a place for one answer, and the time the kernel waits for bytes."""

from __future__ import annotations

import math
import socket
import struct
import threading
from typing import Final

from leafdb.client.effects import ExchangeFailed
from leafdb.client.line import Line
from leafdb.wire.frame import Frame

_TIMEVAL: Final = struct.Struct("ll")


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


class Patience:
    """The receive timeout of a socket (SO_RCVTIMEO): a power of two of milliseconds, not above what is left of a
    deadline. With `least_s` left or more it serves as it is: setting it for each call would cost a system call each.
    Only when it has passed, and `most_s` or more is left, is a longer one worth it.
    """

    __slots__ = ("_socket", "least_s", "most_s")

    def __init__(self, sock: Line) -> None:
        self._socket = sock
        self.least_s: float = math.inf
        self.most_s: float = math.inf

    def limit(self, left_s: float) -> None:
        """Wait as long as `left_s` allows, a millisecond at least."""
        kernel_ms = 1 << max(0, int(left_s * 1000).bit_length() - 1)
        timeval = _TIMEVAL.pack(kernel_ms // 1000, kernel_ms % 1000 * 1000)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        self.least_s = kernel_ms / 1000 if kernel_ms > 1 else 0.0
        self.most_s = kernel_ms / 500
