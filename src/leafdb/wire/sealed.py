"""TLS, sans-I/O: what came from the other side in, what is to go there out. Over memory BIOs, so no socket is touched.

    hear(data) until it is over          open(data) -> plaintext          send(data, put) -> how much counts as taken

Whoever owns the socket moves the bytes. That is why a connection under TLS can be watched, read and written exactly as
one without: after `open` nothing that could be read is left inside (a record that is not complete waits for bytes the
socket does not have yet, and those wake whoever watches it), and `send` never waits.

The difficulty is a full socket. What was encrypted once cannot be encrypted again, so it must go out as it is, and the
caller, who will come back with "the rest" when the socket has room, must have a rest. So `send` then keeps one byte
back: it says that all but the last byte of what it encrypted was taken. The next call brings that byte again at the
front of its data, sends what was left over, and skips it. At most SEAL_BYTES wait here.

No close_notify is sent: a frame says where it ends, so a connection that was cut off is known by its half frame. Not
safe for threads: two that share one need a lock.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final

from leafdb.errors import LeafdbError
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import FrameReader
from leafdb.wire.registry import MessageType
from leafdb.wire.tls_fault import TlsFault, Why, cut_off, fault_of, not_tls

RECORD_BYTES: Final = 16_384
"""The most plaintext one record holds; OpenSSL never answers more at once."""
SEAL_BYTES: Final = 65_536
"""What is encrypted before the socket is asked to take it."""

RECORD_TYPES: Final = frozenset({0x14, 0x15, 0x16, 0x17})
"""How everything under TLS begins. A frame of ours begins with the length of its body, which before the handshake is
less than 4 KiB, so with a zero: the first byte tells the two apart."""


class Sealed:
    """One side of one connection. `name` is whom a client means to speak to; the other side's certificate must say so,
    where the context asks for it. Raises TlsFault for a name no certificate can have."""

    __slots__ = ("_begun", "_incoming", "_object", "_outgoing", "_owed", "_pending", "heard", "name")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str = "") -> None:
        self.name: str = name
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        if context.check_hostname and not server_side and not name:
            # The standard library would take that for "any name will do".
            raise TlsFault("nobody is named, so nobody can be believed", Why.UNTRUSTED)
        try:
            self._object = context.wrap_bio(
                self._incoming, self._outgoing, server_side=server_side, server_hostname=name or None
            )
        except ValueError:
            raise TlsFault(f"no certificate can be for {name!r}", Why.UNTRUSTED) from None
        self._pending = b""
        self._owed = 0
        self._begun = False
        self.heard: bool = False
        """Plaintext has come."""

    def hear(self, data: bytes) -> bool:
        """One step of the handshake with what has been received, b"" being the end of the connection; whether it is
        over. Then send `take()`, which after an error tells the other side. Raises TlsFault."""
        if not data:
            raise cut_off()
        if not self._begun and data[0] not in RECORD_TYPES:
            raise not_tls(said_in_the_clear(data))
        self._begun = True
        return self.shake(data)

    def shake(self, data: bytes) -> bool:
        """As `hear`, of one side that is known to speak TLS; b"" begins."""
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise fault_of(error, self.name) from None
        return True

    def take(self) -> bytes:
        """What the handshake wants sent since the last call."""
        return self._outgoing.read()

    def certificate(self) -> Mapping[str, Any]:
        """The other side's verified certificate, as `ssl.SSLSocket.getpeercert` describes it; empty without one."""
        return self._object.getpeercert() or {}

    def open(self, data: bytes) -> bytes | None:
        """The plaintext of all that has come; None while no record is complete, b"" at the end. Raises TlsFault."""
        incoming = self._incoming
        if data:
            incoming.write(data)
        read, unread = self._object.read, self._object.pending
        parts: list[bytes] = []
        try:
            while part := read(RECORD_BYTES):
                parts.append(part)
                if not incoming.pending and not unread():
                    break  # asking once more would cost an exception to be told so
        except ssl.SSLWantReadError:
            if not parts:
                return None
        except ssl.SSLError as error:
            raise fault_of(error, self.name) from None
        self.heard = self.heard or bool(parts)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, data: bytes | memoryview, put: Callable[[bytes], int]) -> int:
        """Encrypt `data` and give it to `put`, which answers how much it took without waiting; how much of `data` is
        done with. The rest is brought again, at the front of the next `data`. Raises what `put` raises."""
        if self._pending:
            self._pending = self._pending[put(self._pending) :]
            if self._pending:
                return 0
        taken, self._owed = self._owed, 0
        size = len(data)
        assert taken <= size, "what was kept back is brought again"
        view = memoryview(data)
        write = self._object.write
        while taken < size:
            stop = min(size, taken + SEAL_BYTES)
            while taken < stop:
                taken += write(view[taken:stop])
            sealed = self._outgoing.read()
            sent = put(sealed)
            if sent < len(sealed):
                assert taken > 1, "whoever sends one byte could not be told of a full socket"
                self._pending = sealed[sent:]
                self._owed = 1
                return taken - 1
        return taken

    @property
    def waiting_bytes(self) -> int:
        """What was encrypted and not taken yet."""
        return len(self._pending)

    def check(self) -> None:
        """A byte is kept back exactly while something waits for room."""
        assert self._owed == (1 if self._pending else 0)


def said_in_the_clear(data: bytes) -> str:
    """What a node says that will not have us, when it says it without TLS; "" when these bytes are something else."""
    reader = FrameReader(len(data), frozenset({int(MessageType.ERROR)}))
    try:
        frame = reader.feed_one(data)
        return str(decode_error(frame.body)) if frame is not None else ""
    except LeafdbError:
        return ""
