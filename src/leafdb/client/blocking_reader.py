"""Reading a connection for everybody who waits, and its end: the half of `blocking_connection` that threads share.

Whoever waits and finds nobody reading becomes the reader (the leader): it reads for all, hands every answer to its
slot, and when its own has come passes the office to a thread that still waits.

- A slot leaves `waiting` when it is answered or given up. Request numbers are never used again, so the late answer of
  an abandoned request finds no slot and is dropped; it cannot reach another caller.
- The receive timeout is the kernel's (SO_RCVTIMEO), and hardly ever changed (see `Patience`).
- A connection dies once. The descriptor is closed when no thread is inside a call on it: by whoever leads, sends or
  ends it last.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from time import monotonic
from typing import Final

from leafdb.client.blocking_slot import Patience, Slot
from leafdb.client.effects import Severed, Unsent
from leafdb.client.farewell import farewell_of
from leafdb.client.line import Line
from leafdb.client.pulse import Pulse
from leafdb.errors import ProtocolError
from leafdb.limits import RECEIVE_BYTES
from leafdb.wire.frame import FrameReader
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import MessageType

DONTWAIT: Final = int(socket.MSG_DONTWAIT)
_PING: Final = int(MessageType.PING)
_ERROR: Final = int(MessageType.ERROR)
_CLOSED: Final = "the node closed the connection"


class SharedReader:
    """What threads that wait have in common. `deadline`s are times of `time.monotonic`."""

    __slots__ = (
        "_dead", "_lock", "_next_id", "_patience", "_pulse", "_reader", "_reading", "_receive_now", "_send_lock",
        "_socket", "facts", "usable", "waiting",
    )  # fmt: skip

    def __init__(self, sock: Line, reader: FrameReader, facts: ServerFacts) -> None:
        self._socket = sock
        self._reader = reader
        self.facts: ServerFacts = facts
        self.waiting: dict[int, Slot] = {}
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._next_id = 1
        self._reading = False
        self._dead: str | None = None
        self._patience = Patience(sock)
        self._receive_now = sock.recv
        self._pulse = Pulse()
        self.usable: bool = True
        """Whether to ask anything more here: it lives, and has not fallen silent."""

    @property
    def dead(self) -> str | None:
        """Why the connection ended; None while it lives."""
        return self._dead

    def abandon(self, slot: Slot, *, outrun: bool = False) -> None:
        """Nobody waits for this answer any more: it is dropped when it comes. `outrun`: another node was quicker."""
        with self._lock:
            self.waiting.pop(slot.request_id, None)
            self._step_aside(slot)
            if outrun:
                self._unanswered(monotonic())
            self._leave_silence()

    def _step_aside(self, slot: Slot) -> None:
        """Its thread stops waiting; it may have been woken to lead and be leaving instead. The lock is held."""
        slot.gate = None
        if not self._reading:
            self._promote()

    def _unanswered(self, now: float) -> None:
        """A request ran out of time. The lock is held."""
        self._pulse.expired(now)
        if self._pulse.silent:
            self.usable = False

    def _leave_silence(self) -> None:
        """End a silent connection when nobody waits for it any more. The lock is held."""
        if self._pulse.silent and not self.waiting:
            self._die("the node fell silent")

    def close(self, reason: str) -> None:
        """End the connection; whoever waits is told `reason`."""
        with self._lock:
            self._die(reason)

    def discard(self) -> None:
        """Close the descriptor and nothing else: for the child of a fork, where the locks may be held by nobody."""
        self._dead = "the process has forked"
        self.usable = False
        self._socket.close()

    def check(self) -> None:
        """The dead wait for nothing, and only threads that wait for a leader have a gate."""
        with self._lock:
            assert self._dead is None or not self.waiting
            assert self.usable == (self._dead is None and not self._pulse.silent)
            assert all(slot.frame is None and slot.error is None for slot in self.waiting.values())
            assert all(request_id == slot.request_id < self._next_id for request_id, slot in self.waiting.items())

    # -- reading

    def _lead(self, slot: Slot, deadline: float, now: float) -> None:
        """Read for everybody until `slot` is answered or the deadline has passed."""
        patience = self._patience
        data: bytes | None
        try:
            while slot.request_id in self.waiting:
                left_s = deadline - now
                if left_s < patience.least_s:
                    if left_s < 0.0:
                        break
                    patience.limit(left_s)
                reason = _CLOSED
                try:
                    data = self._receive_now(RECEIVE_BYTES)
                except OSError as error:
                    data, reason = _nothing(error)
                now = monotonic()
                if data is None and deadline - now >= patience.most_s:
                    patience.limit(deadline - now)
                with self._lock:
                    self._deliver(data, reason, now)
                    if slot.frame is not None or slot.error is not None:
                        self._reading = False
                        if self.waiting or self._dead is not None:
                            self._step_down()
                        return
        except BaseException as error:
            with self._lock:
                self._die(f"reading was interrupted by {type(error).__name__}")
                self._step_down()
            raise
        self._stop_reading()

    def _stop_reading(self) -> None:
        with self._lock:
            self._step_down()

    def _step_down(self) -> None:
        """Read no more. The lock is held."""
        self._reading = False
        if self._dead is not None:
            self._bury()
        elif self.waiting:
            self._promote()

    def _promote(self) -> None:
        """Wake one thread that waits for a leader, to be it. The lock is held and nobody reads."""
        for slot in self.waiting.values():
            if slot.gate is not None:
                gate, slot.gate = slot.gate, None
                gate.release()
                return

    def _receive(self) -> tuple[bytes | None, str]:
        """What is there to be read now: (data, why there is none); None when nothing has come."""
        try:
            return self._receive_now(RECEIVE_BYTES, DONTWAIT), _CLOSED
        except OSError as error:
            return _nothing(error)

    def _deliver(self, data: bytes | None, reason: str, now: float) -> None:
        """Hand out what came. The lock is held."""
        if not data:
            if data is not None:
                self._die(reason)
            return
        self._pulse.heard_at = now
        try:
            frames = self._reader.feed(data)
        except ProtocolError as error:
            self._die(str(error))
            return
        for frame in frames:
            message_type, request_id, _ = frame
            if message_type == _PING:
                # It goes unanswered: between calls nobody is here to answer it, so nodes cannot count on it.
                continue
            slot = self.waiting.pop(request_id, None)
            if slot is not None:
                slot.frame = frame
                if slot.gate is not None:
                    slot.gate.release()
                    slot.gate = None
            elif message_type == _ERROR and request_id == 0:
                self._die(*farewell_of(frame))
            elif request_id >= self._next_id:
                self._die("the node answered a request that was never made")
        if self._pulse.silent:
            self._leave_silence()

    def _die(self, reason: str, waiting: type[Severed | Unsent] = Severed) -> None:
        """The lock is held. The descriptor itself is closed once no thread is inside a call on it."""
        if self._dead is not None:
            return
        self._dead = reason
        self.usable = False
        for slot in self.waiting.values():
            slot.error = waiting(reason)
            if slot.gate is not None:
                slot.gate.release()
                slot.gate = None
        self.waiting.clear()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if not self._reading:
            self._bury()

    def _bury(self) -> None:
        """Close the descriptor of a dead connection, unless somebody is sending: they do it then. The lock is held."""
        if self._send_lock.acquire(blocking=False):
            self._socket.close()
            self._send_lock.release()


def _nothing(error: OSError) -> tuple[bytes | None, str]:
    """What a recv that raised this gave, and why: None when its time was up, or nothing was there, b"" at the end."""
    return (None, "") if isinstance(error, BlockingIOError) else (b"", error.strerror or str(error))
