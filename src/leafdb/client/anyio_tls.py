"""A stream of trio or asyncio under TLS, as `AnyioConnection` wants one: read by one task, written by another."""

from __future__ import annotations

import contextlib

import anyio

from leafdb.client.anyio_connection import STREAM_ERRORS, Transport
from leafdb.client.anyio_driver import AsyncDial
from leafdb.client.dial_socket import dial_socket
from leafdb.client.tls import ClientTls
from leafdb.client.url import Address
from leafdb.limits import RECEIVE_BYTES
from leafdb.wire.sealed import Sealed
from leafdb.wire.tls_fault import TlsFault, cut_off_behind


def dialler(tls: ClientTls) -> AsyncDial:
    """What connects a client over TLS."""

    async def dial(address: Address) -> TlsTransport:
        stream = await dial_socket(address)
        try:
            return await secure(stream, tls, address)
        except BaseException:
            with anyio.CancelScope(shield=True) as scope:
                scope.cancel()
                await stream.aclose()
            raise

    return dial


async def secure(stream: Transport, tls: ClientTls, address: Address) -> TlsTransport:
    """Shake hands over a connected stream, which is the caller's to close. Raises TlsFault and what the stream does."""
    sealed = tls.sealed(address)
    sealed.shake(b"")
    done = False
    while not done:
        await stream.send(sealed.take())
        try:
            data = await stream.receive(RECEIVE_BYTES)
        except anyio.EndOfStream:
            data = b""
        try:
            done = sealed.hear(data)
        except TlsFault:
            with contextlib.suppress(*STREAM_ERRORS):
                await stream.send(sealed.take())
            raise
    await stream.send(sealed.take())
    return TlsTransport(stream, sealed)


class TlsTransport:
    """See `Transport`. What is encrypted is sent whole: the stream waits, so nothing is ever kept back."""

    __slots__ = ("_sealed", "_stream")

    def __init__(self, stream: Transport, sealed: Sealed) -> None:
        self._stream = stream
        self._sealed = sealed

    async def send(self, item: bytes, /) -> None:
        """Send all of it."""
        parts: list[bytes] = []

        def put(sealed: bytes) -> int:
            parts.append(sealed)
            return len(sealed)

        self._sealed.send(item, put)
        try:
            await self._stream.send(parts[0] if len(parts) == 1 else b"".join(parts))
        except STREAM_ERRORS:
            if not self._sealed.heard:
                raise cut_off_behind() from None
            raise

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        """Some plaintext; b"" at the end, however it came."""
        while True:
            try:
                data = await self._stream.receive(max_bytes)
            except STREAM_ERRORS:
                data = b""
            if not data:
                if not self._sealed.heard:
                    raise cut_off_behind()
                return b""
            plain = self._sealed.open(data)
            if plain is not None:
                return plain

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
