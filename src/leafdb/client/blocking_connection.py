"""One connection on a blocking socket, shared by threads without a thread of its own.

Many requests may be in flight; answers come in any order. Whoever waits and finds nobody reading becomes the reader
(the leader): it reads for all, hands every answer to its slot, and when its own has come passes the office to a thread
that still waits. A thread alone is always leader and pays two system calls a round trip: send and recv.

- A slot leaves `waiting` when it is answered or given up. Request numbers are never used again, so the late answer of
  an abandoned request finds no slot and is dropped; it cannot reach another caller.
- The receive timeout is the kernel's (SO_RCVTIMEO) and is set in powers of two not above what is left, so that it is
  hardly ever changed: setting it for each call would cost a system call each.
- Sending never waits in the kernel (MSG_DONTWAIT): when the socket is full, the sender reads in between, for a node
  that cannot deliver its answers stops listening.
- An exception at an unexpected place (KeyboardInterrupt among them) leaves the byte stream in an unknown state, so the
  connection dies by it. After its death every slot has an error and every submit is Unsent.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Final

from leafdb.client.blocking_slot import Late, Slot
from leafdb.client.effects import Expired, Severed, Unsent
from leafdb.client.farewell import AGENT, farewell_of
from leafdb.client.pulse import Pulse
from leafdb.errors import LeafdbError, ProtocolError
from leafdb.limits import RECEIVE_BYTES
from leafdb.wire.connection import Connection
from leafdb.wire.frame import Frame, FrameReader, encode_frame
from leafdb.wire.handshake import ClientHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import MessageType

_TIMEVAL: Final = struct.Struct("ll")
_ROOM_POLL_S: Final = 0.1


class BlockingConnection:
    """An established connection. `deadline`s are times of `time.monotonic`."""

    __slots__ = (
        "_dead", "_kernel_ms", "_lock", "_next_id", "_poll", "_pulse", "_reader", "_reading", "_send_lock", "_socket",
        "facts", "waiting",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, reader: FrameReader, facts: ServerFacts) -> None:
        self._socket = sock
        self._reader = reader
        self.facts: ServerFacts = facts
        self.waiting: dict[int, Slot] = {}
        self._lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._next_id = 1
        self._reading = False
        self._dead: str | None = None
        self._kernel_ms = 0
        self._pulse = Pulse()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def establish(cls, sock: socket.socket, deadline: float) -> BlockingConnection:
        """Shake hands over a connected socket. Raises Unsent; the socket is then closed."""
        wire = Connection(ClientHello(AGENT))
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.sendall(wire.start())
            while wire.facts is None:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(RECEIVE_BYTES)
                if not data:
                    raise Unsent("the node closed the connection during the handshake")
                wire.receive(data)
            sock.settimeout(None)
        except TimeoutError:
            sock.close()
            raise Unsent("the node did not answer the handshake in time") from None
        except (OSError, LeafdbError) as error:
            sock.close()
            raise Unsent(f"the handshake failed: {error}") from None
        except BaseException:
            sock.close()
            raise
        assert isinstance(wire.facts, ServerFacts)
        return cls(sock, wire.reader, wire.facts)

    @property
    def usable(self) -> bool:
        """Whether to ask anything more here: it lives, and has not fallen silent."""
        return self._dead is None and not self._pulse.silent

    @property
    def dead(self) -> str | None:
        """Why the connection ended; None while it lives."""
        return self._dead

    def exchange(self, message_type: int, body: bytes, deadline: float, until: float = 0.0) -> Frame:
        """`submit` and `wait` in one: a thread that is alone takes both offices at once, to send and to read."""
        with self._lock:
            alone = not self.waiting and not self._reading and self._send_lock.acquire(blocking=False)
            if alone:
                try:
                    self._look_up(time.monotonic())
                    request_id = self._next_id
                    self._next_id += 1
                    slot = self.waiting[request_id] = Slot(request_id)
                    self._reading = True
                except BaseException:
                    self._send_lock.release()
                    if self._dead is not None:
                        self._bury()
                    raise
        if not alone:
            (slot,) = self.submit(((message_type, body),), deadline)
            return self.wait(slot, deadline, until)
        try:
            try:
                self._send_holding(encode_frame(message_type, request_id, body), deadline, leads=True)
            except BaseException:
                self._stop_reading()
                raise
            self._lead(slot, until or deadline)
            if slot.frame is not None:
                return slot.frame
            raise slot.error or self._overdue(slot, deadline)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise

    def _look_up(self, now: float) -> None:
        """Before sending, when nobody is owed anything: has something come all the same? Raises Unsent when dead.

        It is late answers, or the end of the connection: seen now, the request is provably unsent. The lock is held.
        """
        if self._dead is None and not self._pulse.fresh(now) and self._poll.poll(0):
            self._deliver(*self._receive(socket.MSG_DONTWAIT))
        if self._dead is not None:
            raise Unsent(self._dead)
        self._pulse.asked(now)

    def _overdue(self, slot: Slot, deadline: float) -> Expired | Late:
        """The time to wait is over: for good, or for now when the deadline has not come."""
        now = time.monotonic()
        with self._lock:
            if now < deadline:
                self._step_aside(slot)
                return Late(slot)
            self._pulse.expired(now)
        return Expired("wait", sent=True)

    def submit(self, requests: Sequence[tuple[int, bytes]], deadline: float) -> list[Slot]:
        """Send requests (type, body) with one send. Raises Unsent when no byte of them has gone."""
        with self._lock:
            if not self.waiting and not self._reading:
                self._look_up(time.monotonic())
            elif self._dead is not None:
                raise Unsent(self._dead)
            slots = []
            frames = []
            for message_type, body in requests:
                request_id = self._next_id
                self._next_id += 1
                slot = self.waiting[request_id] = Slot(request_id)
                slots.append(slot)
                frames.append(encode_frame(message_type, request_id, body))
        try:
            self._send(frames[0] if len(frames) == 1 else b"".join(frames), deadline)
        except BaseException:
            for slot in slots:
                self.abandon(slot)
            raise
        return slots

    def wait(self, slot: Slot, deadline: float, until: float = 0.0) -> Frame:
        """The answer to a submitted request. Raises Severed or Expired; the slot is given up then, but not by Late."""
        until = until or deadline
        try:
            while True:
                gate: threading.Lock | None = None
                with self._lock:
                    if slot.frame is not None:
                        return slot.frame
                    if slot.error is not None:
                        raise slot.error
                    if self._reading:
                        gate = slot.gate = threading.Lock()
                        gate.acquire()
                    else:
                        self._reading = True
                if gate is None:
                    self._lead(slot, until)
                else:
                    gate.acquire(timeout=max(0.0, until - time.monotonic()))
                if slot.frame is None and slot.error is None and time.monotonic() >= until:
                    raise self._overdue(slot, deadline)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise

    def abandon(self, slot: Slot, *, outrun: bool = False) -> None:
        """Nobody waits for this answer any more: it is dropped when it comes. `outrun`: another node was quicker."""
        with self._lock:
            self.waiting.pop(slot.request_id, None)
            self._step_aside(slot)
            if outrun:
                self._pulse.expired(time.monotonic())
            self._leave_silence()

    def _step_aside(self, slot: Slot) -> None:
        """Its thread stops waiting; it may have been woken to lead and be leaving instead. The lock is held."""
        slot.gate = None
        if not self._reading:
            self._promote()

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
        self._socket.close()

    def check(self) -> None:
        """The dead wait for nothing, and only threads that wait for a leader have a gate."""
        with self._lock:
            assert self._dead is None or not self.waiting
            assert all(slot.frame is None and slot.error is None for slot in self.waiting.values())
            assert all(request_id == slot.request_id < self._next_id for request_id, slot in self.waiting.items())

    # -- reading

    def _lead(self, slot: Slot, deadline: float) -> None:
        """Read for everybody until `slot` is answered or the deadline has passed."""
        try:
            while slot.request_id in self.waiting:
                left_ms = int((deadline - time.monotonic()) * 1000)
                if left_ms < 0:
                    break
                self._limit_receive(left_ms)
                data, reason = self._receive(0)
                with self._lock:
                    self._deliver(data, reason)
                    if slot.request_id not in self.waiting:
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

    def _limit_receive(self, left_ms: int) -> None:
        kernel_ms = 1 << max(0, left_ms.bit_length() - 1)
        if kernel_ms != self._kernel_ms:
            timeval = _TIMEVAL.pack(kernel_ms // 1000, kernel_ms % 1000 * 1000)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
            self._kernel_ms = kernel_ms

    def _receive(self, flags: int) -> tuple[bytes | None, str]:
        """One recv: (data, why there is none); None when the time was up first."""
        try:
            return self._socket.recv(RECEIVE_BYTES, flags), "the node closed the connection"
        except BlockingIOError:
            return None, ""
        except OSError as error:
            return b"", error.strerror or str(error)

    def _deliver(self, data: bytes | None, reason: str) -> None:
        """Hand out what came. The lock is held."""
        if not data:
            if data is not None:
                self._die(reason)
            return
        self._pulse.heard(time.monotonic())
        try:
            frames = self._reader.feed(data)
        except ProtocolError as error:
            self._die(str(error))
            return
        for frame in frames:
            if frame.type == MessageType.PING:
                # It goes unanswered: between calls nobody is here to answer it, so nodes cannot count on it.
                continue
            slot = self.waiting.pop(frame.request_id, None)
            if slot is not None:
                slot.frame = frame
                if slot.gate is not None:
                    slot.gate.release()
                    slot.gate = None
            elif frame.type == MessageType.ERROR and frame.request_id == 0:
                self._die(*farewell_of(frame))
            elif frame.request_id >= self._next_id:
                self._die("the node answered a request that was never made")
        self._leave_silence()

    def _die(self, reason: str, waiting: type[Severed | Unsent] = Severed) -> None:
        """The lock is held. The descriptor itself is closed once no thread is inside a call on it."""
        if self._dead is not None:
            return
        self._dead = reason
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

    # -- sending

    def _send(self, data: bytes, deadline: float) -> None:
        """Send all of it. Raises Unsent, or Expired with `sent` False, when no byte has gone; Severed or Expired."""
        if not self._send_lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise Expired("send", sent=False)
        self._send_holding(data, deadline, leads=False)

    def _send_holding(self, data: bytes, deadline: float, *, leads: bool) -> None:
        """As `_send`, by the holder of the send lock, which is released; `leads`: it is the reader, too."""
        sent = 0
        broken: str | None = "sending was interrupted"
        try:
            sent = self._send_some(data)
            if sent < len(data):
                view = memoryview(data)
                while sent < len(data):
                    left_s = deadline - time.monotonic()
                    if left_s <= 0.0:
                        broken = "a request was cut off by its deadline" if sent else None
                        raise Expired("send", sent=sent > 0)
                    self._await_room(left_s, leads)
                    sent += self._send_some(view[sent:])
            broken = None
        except OSError as error:
            broken = error.strerror or str(error)
            raise (Severed(broken) if sent else Unsent(broken)) from None
        finally:
            self._send_lock.release()
            if broken is not None or self._dead is not None:
                self._after_send(broken)

    def _after_send(self, broken: str | None) -> None:
        with self._lock:
            if broken is not None:
                self._die(broken)
            if self._dead is not None and not self._reading:
                self._bury()

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _await_room(self, left_s: float, leads: bool) -> None:
        """Wait until the socket may take more, and read meanwhile when nobody else does."""
        with self._lock:
            if self._dead is not None:
                raise OSError(self._dead)
            takes_over = not self._reading
            if takes_over:
                self._reading = leads = True
        try:
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT | select.POLLIN if leads else select.POLLOUT)
            events = poll.poll(min(left_s, _ROOM_POLL_S) * 1000)
            if leads and any(flags & ~select.POLLOUT for _, flags in events):
                data, reason = self._receive(socket.MSG_DONTWAIT)
                with self._lock:
                    self._deliver(data, reason)
        finally:
            if takes_over:
                self._stop_reading()
