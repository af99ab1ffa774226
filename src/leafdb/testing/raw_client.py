"""A client of nodes in memory that hides nothing: one connection to one node, no retries, no routing.

Every request ends with an answer or one of the errors of leafdb.errors; `Severed` when the connection broke or nothing
came at all, which proves nothing about a write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import trio

from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key, partition_part
from leafdb.ring.token import OPERATION_CHANCE_BYTES, operation_id, token_of
from leafdb.transport.stream import ByteStream
from leafdb.types import Conflict, Key
from leafdb.wire.body import decode_map
from leafdb.wire.connection import Connection
from leafdb.wire.control import AdminRequest
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import ClientHello
from leafdb.wire.login import Login
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    FLAG_DELETE,
    FLAG_LOCAL,
    FLAG_LWW,
    FLAG_RETRY,
    FLAG_SLOPPY,
    FLAG_STRICT,
    GetReply,
    GetRequest,
    PutReply,
    PutRequest,
    decode_get_reply,
    decode_put_reply,
    encode_get,
    encode_put,
)

GRACE_S = 2.0
"""How much longer than the deadline the client listens for the node's own word about it."""


def op_id_of(bucket: BucketProperties, key: Key, number: int) -> bytes:
    """The operation id of write `number` of a key."""
    token = token_of(bucket.id, partition_part(encode_key(key)))
    return operation_id(token, number.to_bytes(OPERATION_CHANCE_BYTES, "big"))


class Severed(Exception):
    """The connection is gone, or the node says nothing."""


class RawClient:
    """One connection. Make it with `MemoryCluster.client`; with a `login` where accounts are asked for."""

    def __init__(self, stream: ByteStream, login: Login | None = None) -> None:
        self._stream = stream
        self._connection = Connection(ClientHello("test", login))
        self._waiting: dict[int, trio.Event] = {}
        self._answers: dict[int, Frame] = {}
        self._last_id = 0
        self._sending = trio.Lock()
        self.closed: bool = False

    async def greet(self) -> None:
        """Shake hands."""
        try:
            with trio.fail_after(GRACE_S):
                await self._stream.send_all(self._connection.start())
                while self._connection.facts is None:
                    data = await self._stream.receive_some(4096)
                    if not data:
                        raise Severed("closed in the handshake")
                    self._connection.receive(data)
                    if answer := self._connection.take_output():
                        await self._stream.send_all(answer)
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            raise Severed(str(error)) from None

    async def listen(self) -> None:
        """Hand answers out until the connection ends."""
        try:
            while True:
                data = await self._stream.receive_some(1 << 16)
                if not data:
                    break
                for frame in self._connection.receive(data):
                    event = self._waiting.pop(frame.request_id, None)
                    if event is not None:
                        self._answers[frame.request_id] = frame
                        event.set()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Hang up."""
        self.closed = True
        self._stream.close()
        for event in self._waiting.values():
            event.set()
        self._waiting.clear()

    async def ask(self, message_type: MessageType, body: bytes, timeout_s: float) -> Frame:
        """Send a request; the reply's frame. Raises the error it was answered with, or Severed."""
        if self.closed:
            raise Severed("not connected")
        self._last_id = request_id = self._last_id + 1
        answered = self._waiting[request_id] = trio.Event()
        try:
            with trio.move_on_after(timeout_s + GRACE_S):
                async with self._sending:  # a large frame goes out in pieces
                    await self._stream.send_all(encode_frame(message_type, request_id, body))
                await answered.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.close()
        self._waiting.pop(request_id, None)
        frame = self._answers.pop(request_id, None)
        if frame is None:
            raise Severed("the connection broke" if self.closed else "no answer")
        if frame.type == MessageType.ERROR:
            raise decode_error(frame.body, request_id=request_id)
        return frame

    async def put(
        self,
        bucket: BucketProperties,
        key: Key,
        value: bytes | None,
        context: bytes | None = None,
        *,
        w: int = 0,
        pw: int = 0,
        dw: int = 0,
        sloppy: bool | None = None,
        timeout_s: float = 5.0,
        ttl_ms: int = 0,
        op_id: bytes = bytes(16),
        retry: bool = False,
        generation: int | None = None,
    ) -> PutReply:
        """Write (value None: delete); without a context blindly. `retry`: it was sent before, under the same id."""
        flags = FLAG_BLIND if context is None else 0
        flags |= FLAG_DELETE if value is None else 0
        flags |= FLAG_LWW if bucket.conflict is Conflict.LWW else 0
        flags |= FLAG_RETRY if retry else 0
        flags |= 0 if sloppy is None else FLAG_SLOPPY if sloppy else FLAG_STRICT
        request = PutRequest(
            int(bucket.id), bucket.generation if generation is None else generation, 0, int(timeout_s * 1000), flags,
            w, pw, dw, ttl_ms, op_id, encode_key(key), context or b"", value or b"",
        )  # fmt: skip
        frame = await self.ask(MessageType.PUT, encode_put(request), timeout_s)
        return decode_put_reply(frame.body)

    async def get(
        self,
        bucket: BucketProperties,
        key: Key,
        *,
        r: int = 0,
        pr: int = 0,
        local: bool = False,
        sloppy: bool | None = None,
        timeout_s: float = 5.0,
    ) -> GetReply:
        """Read."""
        flags = FLAG_LOCAL if local else 0
        flags |= 0 if sloppy is None else FLAG_SLOPPY if sloppy else FLAG_STRICT
        flags |= FLAG_LWW if bucket.conflict is Conflict.LWW else 0
        deadline_ms = int(timeout_s * 1000)
        request = GetRequest(int(bucket.id), bucket.generation, 0, deadline_ms, flags, r, pr, encode_key(key))
        frame = await self.ask(MessageType.GET, encode_get(request), timeout_s)
        return decode_get_reply(frame.body)

    async def values(self, bucket: BucketProperties, key: Key, *, r: int = 0, timeout_s: float = 5.0) -> list[bytes]:
        """What a read shows, sorted."""
        reply = await self.get(bucket, key, r=r, timeout_s=timeout_s)
        return sorted(sibling.value for sibling in reply.siblings)

    async def admin(self, verb: str, timeout_s: float = 10.0, **args: Any) -> Mapping[str, Any]:
        """An admin verb."""
        frame = await self.ask(MessageType.ADMIN, AdminRequest(verb, args).encode(), timeout_s)
        return decode_map(frame.body, verb)
