"""A blocking socket under TLS, with the few calls `BlockingConnection` makes of a socket.

Reading waits in the kernel, outside any lock, and so does nothing else: one thread may read while another sends. The
cipher's state they share is behind a lock that is only held to compute. After a `recv` nothing that could be read is
left inside (`wire.sealed`), so polling the descriptor tells the truth.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from leafdb.client.blocking_driver import Dial, dial_tcp
from leafdb.client.tls import ClientTls
from leafdb.client.url import Address
from leafdb.limits import RECEIVE_BYTES
from leafdb.wire.sealed import Sealed
from leafdb.wire.tls_fault import TlsFault, cut_off_behind


def dialler(tls: ClientTls) -> Dial:
    """What connects a client over TLS."""

    def dial(address: Address, timeout_s: float) -> TlsSocket:
        deadline = time.monotonic() + timeout_s
        return secure(dial_tcp(address, timeout_s), tls, address, deadline)

    return dial


def secure(sock: socket.socket, tls: ClientTls, address: Address, deadline: float) -> TlsSocket:
    """Shake hands over a connected socket, which is closed when that fails. Raises OSError, TlsFault among them."""
    try:
        sealed = tls.sealed(address)
        sealed.shake(b"")
        done = False
        while not done:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            sock.sendall(sealed.take())
            try:
                done = sealed.hear(sock.recv(RECEIVE_BYTES))
            except TlsFault:
                with contextlib.suppress(OSError):
                    sock.sendall(sealed.take())
                raise
        sock.sendall(sealed.take())
    except BaseException:
        sock.close()
        raise
    return TlsSocket(sock, sealed)


class TlsSocket:
    """See the top of this file."""

    __slots__ = ("_lock", "_sealed", "_socket")

    def __init__(self, sock: socket.socket, sealed: Sealed) -> None:
        self._socket = sock
        self._sealed = sealed
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Plaintext, b"" at the end. BlockingIOError when the time is up, or with MSG_DONTWAIT, before there is any."""
        try:
            data = self._socket.recv(size, flags)
        except ConnectionError:
            data = b""
        if not data:
            if not self._sealed.heard:
                raise cut_off_behind()
            return b""
        with self._lock:
            plain = self._sealed.open(data)
        if plain is None:
            raise BlockingIOError("a record is not complete")
        return plain

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """How much of `data` is done with, perhaps nothing. Never waits: with MSG_DONTWAIT, or on a socket that does
        not block."""

        def put(sealed: bytes) -> int:
            try:
                return self._socket.send(sealed, flags)
            except BlockingIOError:
                return 0

        with self._lock:
            return self._sealed.send(data, put)

    def sendall(self, data: bytes) -> None:
        """Send all of it, waiting as long as `settimeout` says."""
        with self._lock:
            self._sealed.send(data, self._put_all)

    def _put_all(self, sealed: bytes) -> int:
        try:
            self._socket.sendall(sealed)
        except ConnectionError:
            if not self._sealed.heard:
                raise cut_off_behind() from None
            raise
        return len(sealed)

    def settimeout(self, seconds: float | None) -> None:
        """As a socket's."""
        self._socket.settimeout(seconds)

    def setblocking(self, flag: bool) -> None:
        """As a socket's."""
        self._socket.setblocking(flag)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """As a socket's."""
        self._socket.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        """As a socket's."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
