"""Requests without the client: bytes for those who must spend next to nothing on each one, such as a load generator.

No connection, no retry, no routing: a caller sends what these functions give over a socket of its own, keeps at most
one request per request id in flight, and reads answers with `FrameReader`. `Placement` says which nodes hold a key, so
that it may be asked of one that does. Everything about leafdb's wire that such a caller needs is here; programs want
`leafdb.connect`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from leafdb.errors import LeafdbError, ProtocolError
from leafdb.limits import FRAME_BYTES_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key, partition_part
from leafdb.ring.metadata import decode
from leafdb.ring.ring import Ring
from leafdb.ring.token import TOKEN_BYTES, storage_key, token_of
from leafdb.types import BucketId, Conflict, Key
from leafdb.wire.connection import Connection
from leafdb.wire.control import ScanReply, ScanRequest
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import HEADER_BYTES, FrameReader, encode_frame
from leafdb.wire.handshake import ClientHello
from leafdb.wire.login import Login
from leafdb.wire.registry import CLIENT_REPLY_TYPES, PROTOCOL_VERSION, MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    FLAG_LWW,
    GetRequest,
    PutRequest,
    decode_get_reply,
    encode_get,
    encode_put,
)

__all__ = ["GET_REPLY", "HEADER", "HEADER_BYTES", "PROTOCOL_VERSION", "PUT_REPLY", "SCAN_REPLY", "Bucket", "Placement"]

HEADER: Final = struct.Struct(">IIBBQ")
"""body length, checksum, type, flags, request id: docs/formats/wire.md."""
PUT_REPLY: Final = int(MessageType.PUT_REPLY)
GET_REPLY: Final = int(MessageType.GET_REPLY)
SCAN_REPLY: Final = int(MessageType.SCAN_REPLY)
PUT_REPLY_CONTEXT_AT: Final = 6
"""Where the context begins in the body of a PUT_REPLY."""


def reader() -> FrameReader:
    """Cuts a node's answers into frames."""
    return FrameReader(FRAME_BYTES_MAX, CLIENT_REPLY_TYPES)


def greeting(agent: str, login: Login | None = None) -> Connection:
    """The near side of a handshake: send `start()`; then, until there are `facts`, give what comes to `receive`, which
    raises what the node refuses with, and send `take_output()`."""
    return Connection(ClientHello(agent, login))


def refusal(body: bytes) -> LeafdbError:
    """The error in an ERROR body."""
    try:
        return decode_error(body)
    except ProtocolError as error:
        return error


class Placement:
    """Where keys live, from the answer to the admin verb `ring`."""

    def __init__(self, reply: Mapping[str, Any]) -> None:
        self._ring = Ring(decode(bytes(reply["metadata"])))
        self.epoch: int = int(self._ring.epoch)

    def primaries(self, bucket: Bucket, encoded_key: bytes) -> tuple[str, ...]:
        """Client addresses of the key's primaries, in order."""
        ring = self._ring
        token = token_of(BucketId(bucket.properties.id), partition_part(encoded_key))
        nodes = ring.primaries(ring.partition_of(token), bucket.properties.n)
        return tuple(ring.member(node).client_address for node in nodes)


class Bucket:
    """Frames about one bucket, from the answer to the admin verb `bucket.get`. `r` and `w` are literal counts."""

    def __init__(self, reply: Mapping[str, Any], *, epoch: int, r: int, w: int, deadline_ms: int) -> None:
        self.properties: BucketProperties = BucketProperties.from_wire(reply)
        self._epoch = epoch
        self._r = r
        self._w = w
        self._deadline_ms = deadline_ms
        self._lww = FLAG_LWW if self.properties.conflict is Conflict.LWW else 0

    def key(self, key: Key) -> bytes:
        """The encoded key."""
        return encode_key(key)

    def token(self, encoded_key: bytes) -> bytes:
        """The first half of the operation ids of writes of this key."""
        return token_of(BucketId(self.properties.id), partition_part(encoded_key)).to_bytes(TOKEN_BYTES, "big")

    def get(self, request_id: int, encoded_key: bytes) -> bytes:
        """A GET."""
        properties = self.properties
        request = GetRequest(
            properties.id, properties.generation, self._epoch, self._deadline_ms, self._lww, self._r, 0, encoded_key
        )
        return encode_frame(MessageType.GET, request_id, encode_get(request))

    def put(self, request_id: int, encoded_key: bytes, context: bytes, op_id: bytes, value: bytes) -> bytes:
        """A PUT after a context taken from an answer; an empty one is a blind write. The operation id is the key's
        token and 8 bytes that no other write of the key has."""
        properties = self.properties
        flags = self._lww | (0 if context and not self._lww else FLAG_BLIND)
        request = PutRequest(
            properties.id, properties.generation, self._epoch, self._deadline_ms, flags, self._w, 0, 0, 0,
            op_id, encoded_key, b"" if self._lww else context, value,
        )  # fmt: skip
        return encode_frame(MessageType.PUT, request_id, encode_put(request))

    def scan(self, request_id: int, encoded_key: bytes, limit: int) -> bytes:
        """A SCAN of up to `limit` keys from this one on, in token order."""
        properties = self.properties
        request = ScanRequest(
            bucket_id=properties.id,
            generation=properties.generation,
            start=storage_key(BucketId(properties.id), encoded_key),
            stop=b"",
            limit=limit,
            bytes_max=1 << 20,
            reverse=False,
            r=self._r,
            deadline_ms=self._deadline_ms,
        )
        return encode_frame(MessageType.SCAN, request_id, request.encode())


def found(body: bytes) -> tuple[int, bytes]:
    """How many siblings a GET_REPLY shows, and its context. ProtocolError when it is malformed."""
    reply = decode_get_reply(body)
    return len(reply.siblings), reply.context


def scanned(body: bytes) -> int:
    """How many keys a SCAN_REPLY holds."""
    return len(ScanReply.decode(body).items)
