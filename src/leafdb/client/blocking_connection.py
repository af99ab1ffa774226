"""One connection on a blocking socket, shared by threads without a thread of its own.

Many requests may be in flight; answers come in any order, and the threads that wait for them read for one another
(`blocking_reader`). A thread alone is always leader and pays two system calls a round trip: send and recv.

- Sending never waits in the kernel (MSG_DONTWAIT): when the socket is full, the sender reads in between, for a node
  that cannot deliver its answers stops listening.
- An exception at an unexpected place (KeyboardInterrupt among them) leaves the byte stream in an unknown state, so the
  connection dies by it. After its death every slot has an error and every submit is Unsent.
- Who waits may set a time before the deadline: it is told `Late` then, and may ask another node and come back.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Final

from leafdb.client.blocking_reader import DONTWAIT, SharedReader
from leafdb.client.blocking_slot import Late, Slot
from leafdb.client.effects import Ended, Expired, Severed, Unsent
from leafdb.client.farewell import AGENT, no_handshake
from leafdb.client.line import Line
from leafdb.errors import LeafdbError
from leafdb.limits import RECEIVE_BYTES
from leafdb.wire.connection import Connection
from leafdb.wire.frame import Frame, FrameReader, encode_frame
from leafdb.wire.handshake import ClientHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.login import Login

_ROOM_POLL_S: Final = 0.1


class BlockingConnection(SharedReader):
    """An established connection. `deadline`s are times of `time.monotonic`."""

    __slots__ = ("_poll", "_send_now")

    def __init__(self, sock: Line, reader: FrameReader, facts: ServerFacts) -> None:
        super().__init__(sock, reader, facts)
        self._send_now = sock.send
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    @classmethod
    def establish(cls, sock: Line, deadline: float, login: Login | None = None) -> BlockingConnection:
        """Shake hands over a connected socket. Raises Unsent; the socket is then closed."""
        wire = Connection(ClientHello(AGENT, login))
        try:
            sock.settimeout(max(0.001, deadline - monotonic()))
            sock.sendall(wire.start())
            while wire.facts is None:
                sock.settimeout(max(0.001, deadline - monotonic()))
                try:
                    data = sock.recv(RECEIVE_BYTES)
                except BlockingIOError:
                    continue  # half a record of TLS
                if not data:
                    raise Unsent("the node closed the connection during the handshake")
                wire.receive(data)
                if answer := wire.take_output():
                    sock.sendall(answer)
            sock.settimeout(None)
        except TimeoutError:
            sock.close()
            raise Unsent("the node did not answer the handshake in time") from None
        except (OSError, LeafdbError) as error:
            sock.close()
            raise no_handshake(error) from None
        except BaseException:
            sock.close()
            raise
        assert isinstance(wire.facts, ServerFacts)
        return cls(sock, wire.reader, wire.facts)

    def exchange(self, message_type: int, body: bytes, deadline: float, until: float = 0.0) -> Frame:
        """`submit` and `wait` in one: a thread that is alone takes both offices at once, to send and to read."""
        with self._lock:
            alone = not self.waiting and not self._reading and self._send_lock.acquire(False)
            if alone:
                try:
                    now = monotonic()
                    if not self._pulse.asked(now) or self._dead is not None:
                        self._look_up()
                    request_id = self._next_id
                    self._next_id = request_id + 1
                    slot = self.waiting[request_id] = Slot(request_id)
                    self._reading = True
                except BaseException:
                    self._send_lock.release()
                    if self._dead is not None:
                        self._bury()
                    raise
        if not alone:
            return self.wait(self.submit(((message_type, body),), deadline)[0], deadline, until)
        sending = True
        try:
            try:
                frame = encode_frame(message_type, request_id, body)
                try:
                    sent = self._send_now(frame, DONTWAIT)
                except OSError:  # no room, or broken: what is to be done about it is decided in one place
                    sent = 0
                sending = False
                if sent == len(frame) and self._dead is None:
                    self._send_lock.release()
                else:
                    self._send_holding(frame, deadline, leads=True, sent=sent)
            except BaseException:
                if sending:
                    self._send_lock.release()
                    self._after_send("sending was interrupted")
                self._stop_reading()
                raise
            self._lead(slot, until or deadline, now)
            if slot.frame is not None:
                return slot.frame
            raise slot.error or self._overdue(slot, deadline)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise

    def _look_up(self) -> None:
        """Before sending, when nobody is owed anything: has something come all the same? Raises Ended when dead.

        It is late answers, or the end of the connection: seen now, the request is provably unsent. The lock is held.
        """
        if self._dead is None and self._poll.poll(0):
            self._deliver(*self._receive(), monotonic())
        if self._dead is not None:
            raise Ended(self._dead)
        self._pulse.asked(monotonic())

    def _overdue(self, slot: Slot, deadline: float) -> Expired | Late:
        """The time to wait is over: for good, or for now when the deadline has not come."""
        now = monotonic()
        with self._lock:
            if now < deadline:
                self._step_aside(slot)
                return Late(slot)
            self._unanswered(now)
        return Expired("wait", sent=True)

    def submit(self, requests: Sequence[tuple[int, bytes]], deadline: float) -> list[Slot]:
        """Send requests (type, body) with one send. Raises Unsent when no byte of them has gone."""
        with self._lock:
            if not self.waiting and not self._reading:
                if not self._pulse.asked(monotonic()) or self._dead is not None:
                    self._look_up()
            elif self._dead is not None:
                raise Ended(self._dead)
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
        """The answer to a submitted request. Raises Severed or Expired; the slot is given up then. With `until` before
        the deadline, raises Late at that time, and the slot keeps its place."""
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
                    self._lead(slot, until, monotonic())
                else:
                    gate.acquire(timeout=max(0.0, until - monotonic()))
                if slot.frame is None and slot.error is None and monotonic() >= until:
                    raise self._overdue(slot, deadline)
        except Late:
            raise
        except BaseException:
            self.abandon(slot)
            raise

    # -- sending

    def _send(self, data: bytes, deadline: float) -> None:
        """Send all of it. Raises Unsent, or Expired with `sent` False, when no byte has gone; Severed or Expired."""
        if not self._send_lock.acquire(timeout=max(0.0, deadline - monotonic())):
            raise Expired("send", sent=False)
        self._send_holding(data, deadline, leads=False)

    def _send_holding(self, data: bytes, deadline: float, *, leads: bool, sent: int = 0) -> None:
        """As `_send`, by the holder of the send lock, which is released; `leads`: it is the reader, too. `sent` bytes
        have gone already."""
        broken: str | None = "sending was interrupted"
        try:
            sent = sent or self._send_some(data)
            if sent < len(data):
                view = memoryview(data)
                while sent < len(data):
                    left_s = deadline - monotonic()
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
        with contextlib.suppress(BlockingIOError):
            return self._send_now(data, DONTWAIT)
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
                data, reason = self._receive()
                with self._lock:
                    self._deliver(data, reason, monotonic())
        finally:
            if takes_over:
                self._stop_reading()
