"""TLS on a node's connections: a network that speaks it, over the one that does not.

`TlsNetwork` is a `Network`, so nothing above it knows: what it dials is encrypted when it is handed over, what it
accepts becomes so when it is first read. The streams stay pollable (`wire.sealed`), so a session under TLS costs its
cipher and no task of its own.

Who is trusted is in the contexts (`tls_contexts`) and in `peers`: between nodes both sides show a certificate of the
cluster's CA that says it is a node's, and a dialler wants it made for the host it dialled. The cluster secret is proved
inside all the same (`wire.handshake`): the certificate says "a node of this cluster", the secret says it again, and who
has stolen one of them has not got the other.

What a stranger can cost: his connection has a place among those that greet and a deadline, as without TLS; until he
has sent a hello that begins as TLS does, nothing is made for him; and of all handshakes one computes per turn of the
event loop, so that a flood of hellos delays everybody else by one handshake's time a turn and no more.

`optional` is for the time in which a running cluster is moved to TLS: what begins in the clear is taken, and who does
not answer in TLS is dialled again without. Somebody in between can have that too, so it is no state to stay in.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Final, Protocol

import trio

from leafdb.errors import ProtocolError
from leafdb.limits import FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.transport.stream import ByteStream, Data, Listener, Network, PollableStream
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.sealed import RECORD_TYPES, Sealed
from leafdb.wire.tls_fault import TlsFault, Why, cut_off, is_node, not_tls

NOT_A_NODE: Final = "the certificate shown is a client's, not a node's: nodes get theirs by leafdb cert issue"
SPEAK_TLS: Final = "this port speaks TLS: clients connect with leafdbs://, nodes need the [tls] section the others have"

OnRefused = Callable[[str, str], None]


class Doors(Protocol):
    """The contexts to use for the next connection: they change when the files do."""

    @property
    def accepting(self) -> ssl.SSLContext:
        """For those who come."""

    @property
    def dialling(self) -> ssl.SSLContext:
        """For those we go to."""


class SecureStream:
    """A TCP connection and the TLS on it; in the clear when `sealed` is None. See `PollableStream`."""

    __slots__ = ("_inner", "_sealed", "remote")

    def __init__(self, inner: PollableStream, sealed: Sealed | None) -> None:
        self._inner = inner
        self._sealed = sealed
        self.remote: str = inner.remote

    @property
    def encrypted(self) -> bool:
        """Whether nobody on the way can read it."""
        return self._sealed is not None

    def fileno(self) -> int:
        """The socket's."""
        return self._inner.fileno()

    def receive_now(self, bytes_max: int) -> bytes | None:
        """Plaintext of what the socket has; None also while a record is incomplete."""
        data = self._inner.receive_now(bytes_max)
        return self._open(data) if data and self._sealed is not None else data

    async def receive_some(self, bytes_max: int) -> bytes:
        """Wait for plaintext."""
        while True:
            data = await self._inner.receive_some(bytes_max)
            if not data or self._sealed is None:
                return data
            plain = self._open(data)
            if plain is not None:
                return plain

    def _open(self, data: bytes) -> bytes | None:
        assert self._sealed is not None
        try:
            return self._sealed.open(data)
        except TlsFault as fault:
            raise trio.BrokenResourceError(str(fault)) from None

    def send_now(self, data: Data) -> int:
        """Encrypt and hand to the kernel what its buffer takes."""
        if self._sealed is None:
            return self._inner.send_now(data)
        return self._sealed.send(data, self._inner.send_now)

    async def send_all(self, data: bytes) -> None:
        """Encrypt and hand over everything."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            rest = rest[self.send_now(rest) :]
            if rest:
                await self._inner.wait_sendable()

    async def wait_sendable(self) -> None:
        """Wait for room in the kernel's buffer."""
        await self._inner.wait_sendable()

    def close(self) -> None:
        """Close the socket."""
        self._inner.close()

    async def aclose(self) -> None:
        """Close, then a checkpoint."""
        await self._inner.aclose()


class _Arrival(SecureStream):
    """A connection that has come and has said nothing yet: what it is turns out at the first `receive_some`. Until then
    it is written to in the clear, for whoever is told that there is no place."""

    __slots__ = ("_network", "_settled")

    def __init__(self, inner: PollableStream, network: TlsNetwork) -> None:
        super().__init__(inner, None)
        self._network = network
        self._settled = False

    @property
    def arriving(self) -> bool:
        """It has to be waited for before the kernel can watch it for anything of ours."""
        return not self._settled

    async def receive_some(self, bytes_max: int) -> bytes:
        """Shake hands first. BrokenResourceError when nothing comes of it."""
        if not self._settled:
            self._settled = True
            try:
                data = await self._settle(bytes_max)
            except TlsFault as fault:
                self._network.refused(self.remote, str(fault))
                raise trio.BrokenResourceError(str(fault)) from None
            if data:
                return data
        return await super().receive_some(bytes_max)

    async def _settle(self, bytes_max: int) -> bytes:
        """What came behind the handshake, or instead of one."""
        data = await self._inner.receive_some(bytes_max)
        if not data:
            raise cut_off()
        if data[0] not in RECORD_TYPES:
            if self._network.optional:
                return data
            self._say(SPEAK_TLS)
            raise not_tls()
        sealed = Sealed(self._network.doors.accepting, server_side=True)
        await shake(self._inner, sealed, data, self._network.turn)
        self._sealed = sealed
        if self._network.peers and not is_node(sealed.certificate()):
            self._say(NOT_A_NODE)
            raise TlsFault(NOT_A_NODE, Why.UNTRUSTED)
        return sealed.open(b"") or b""

    def _say(self, why: str) -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            self.send_now(encode_frame(MessageType.ERROR, 0, encode_error(ProtocolError(why))))


class _TlsListener:
    """Takes connections; who they are is found out by whoever reads them first."""

    def __init__(self, inner: Listener, network: TlsNetwork) -> None:
        self._inner = inner
        self._network = network
        self.address = inner.address

    async def accept(self) -> ByteStream:
        """The next connection."""
        stream = await self._inner.accept()
        assert isinstance(stream, PollableStream), "TLS is spoken over sockets"
        return _Arrival(stream, self._network)

    async def aclose(self) -> None:
        """Take no more."""
        await self._inner.aclose()


class TlsNetwork:
    """See the top of this file. `peers`: both sides are nodes; otherwise those who come are clients and nobody is
    dialled. `on_refused(remote, why)` hears of every handshake here that came to nothing."""

    def __init__(
        self, inner: Network, doors: Doors, *, peers: bool, optional: bool, turn: trio.Lock, on_refused: OnRefused
    ) -> None:
        self.doors = doors
        self.peers = peers
        self.optional = optional
        self.turn = turn
        self.refused = on_refused
        self._inner = inner

    async def listen(self, host: str, port: int) -> Listener:
        """As the network beneath."""
        return _TlsListener(await self._inner.listen(host, port), self)

    async def dial(self, host: str, port: int) -> ByteStream:
        """Connect, and shake hands with a node whose certificate is for `host`. Raises OSError, TlsFault among them."""
        try:
            return await self._dial_sealed(host, port)
        except TlsFault as fault:
            if not self.optional or fault.why not in (Why.PLAIN, Why.BROKEN):
                raise
        return await self._inner.dial(host, port)

    async def _dial_sealed(self, host: str, port: int) -> ByteStream:
        inner = await self._inner.dial(host, port)
        assert isinstance(inner, PollableStream), "TLS is spoken over sockets"
        sealed = Sealed(self.doors.dialling, server_side=False, name=host)
        try:
            await shake(inner, sealed, b"", self.turn)
            if not is_node(sealed.certificate()):
                raise TlsFault(NOT_A_NODE, Why.UNTRUSTED)
        except BaseException:
            inner.close()
            raise
        return SecureStream(inner, sealed)


async def shake(inner: PollableStream, sealed: Sealed, data: bytes, turn: trio.Lock) -> None:
    """Carry the handshake of one side to its end; `data` is what has come, of a dialler b"". Raises TlsFault.

    Whoever holds `turn` computes, and it is handed on in the next pass of the scheduler: see the top of this file.
    """
    done = False
    try:
        while not done:
            async with turn:
                done = sealed.hear(data) if data else sealed.shake(b"")
            if answer := sealed.take():
                await inner.send_all(answer)
            if not done and not (data := await inner.receive_some(FRAME_BYTES_MAX_UNAUTHENTICATED)):
                raise cut_off()
    except TlsFault:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            inner.send_now(sealed.take())
            # Unread bytes would make the kernel reset the connection, and the reason could be lost with it.
            inner.receive_now(FRAME_BYTES_MAX_UNAUTHENTICATED)
        raise
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise cut_off() from None
