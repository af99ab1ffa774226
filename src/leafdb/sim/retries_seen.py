"""What a real client does without being asked: writes that it sends again, seen on its way to the nodes.

How often a write was sent decides how many dots it may have (I5), and the client's own account of it is what is to be
tested. So its connections are watched: every frame that leaves is read as a node would read it.
"""

from __future__ import annotations

from collections.abc import Callable

from leafdb.client.anyio_connection import Transport
from leafdb.client.anyio_driver import AsyncDial
from leafdb.client.url import Address
from leafdb.limits import FRAME_BYTES_MAX
from leafdb.wire.frame import FrameReader
from leafdb.wire.registry import CLIENT_REQUEST_TYPES, HANDSHAKE_TYPES, MessageType
from leafdb.wire.requests import FLAG_RETRY, decode_put


class WatchedTransport:
    """A connection of a client; `again` is told the operation id of each put that is marked as a retry."""

    def __init__(self, inner: Transport, again: Callable[[bytes], None]) -> None:
        self._inner = inner
        self._again = again
        self._reader = FrameReader(FRAME_BYTES_MAX, CLIENT_REQUEST_TYPES | HANDSHAKE_TYPES)

    async def send(self, item: bytes, /) -> None:
        """Send all of it."""
        for frame in self._reader.feed(item):
            if frame.type == MessageType.PUT:
                request = decode_put(frame.body)
                if request.flags & FLAG_RETRY:
                    self._again(request.op_id)
        await self._inner.send(item)

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        """Some bytes; b"" at the end."""
        return await self._inner.receive(max_bytes)

    async def aclose(self) -> None:
        """Close it."""
        await self._inner.aclose()


def watched(dial: AsyncDial, again: Callable[[bytes], None]) -> AsyncDial:
    """`dial`, with every connection watched."""

    async def watching(address: Address) -> Transport:
        return WatchedTransport(await dial(address), again)

    return watching
