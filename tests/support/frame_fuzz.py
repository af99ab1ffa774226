"""Conversations that go wrong: what an honest side says, changed in ways that bytes in the world are changed.

`honest(side, rng)` makes the frames that one side of a connection would say, the handshake's first, and
`spoil(frames, rng)` makes bytes of them: frames damaged, cut, repeated, left out, in another order; fields of their
maps of another type, too large, nested too deep; lengths, types, flags and checksums that are wrong; pure noise between
them. A change of a body gets a fitting checksum most of the time, so that what is behind the checksum is reached. All
chance is `rng`'s.

`run(side, rng)` feeds one such conversation to the other side, without any I/O, and says what it promises:

- what is raised is a LeafdbError, and after one the connection takes nothing more;
- `check()` holds at every step, and what is kept is within the bound of the state the connection is in;
- nothing is asked about a peer, and no facts exist, unless its hello and its proof are the honest ones;
- bodies of frames that came through are read by the readers of their type, which raise PEER_FAULTS at most.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from random import Random
from typing import Any, Final, NamedTuple

from leafdb.codec import cbor
from leafdb.errors import LeafdbError, Overloaded
from leafdb.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.model.bucket import BucketProperties
from leafdb.quorum.messages import decode_replica_get, decode_replica_put, decode_reply
from leafdb.types import BucketId, Conflict, Epoch, NodeId
from leafdb.wire import explanations
from leafdb.wire.connection import Connection, ConnectionState
from leafdb.wire.control import AdminRequest, MetadataFetch, MetadataReply, ScanReply, ScanRequest
from leafdb.wire.errors import PEER_FAULTS, decode_error, encode_error
from leafdb.wire.frame import HEADER_BYTES, Frame, encode_frame
from leafdb.wire.handshake import ClientHello, PeerAcceptor, PeerDialer, ServerHello
from leafdb.wire.hello import PeerFacts, ServerFacts
from leafdb.wire.registry import KNOWN_TYPES, Lane, MessageType
from leafdb.wire.requests import (
    FLAG_BLIND,
    GetRequest,
    PutRequest,
    decode_get,
    decode_get_reply,
    decode_put,
    decode_put_reply,
    encode_get,
    encode_get_reply,
    encode_put,
    encode_put_reply,
)

SECRET: Final = b"s" * 32
CLUSTER: Final = b"c" * 16
SERVER: Final = ServerFacts(NodeId(2), "n2", "home", CLUSTER, Epoch(5))
PIECES_MAX: Final = 12

_HEADER: Final = struct.Struct(">IIBBQ")
_ODD: Final[tuple[object, ...]] = (
    None, True, False, 0, -1, 1, 255, 256, 65_536, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 64) - 1, -(1 << 63), 0.5,
    float("nan"), float("inf"), "", "x", "é" * 300, "client", "peer", b"", b"\x00", b"\xff" * 16, b"y" * 5_000,
    [], [1, 2], [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]], {}, {"a": 1}, {1: 2},
)  # fmt: skip


class Side(Enum):
    """Who speaks."""

    CLIENT = "a client, to a node"
    NODE = "a node, to a client"
    DIALER = "a peer that connects"
    ACCEPTOR = "a peer that was connected to"


class Said(NamedTuple):
    """One frame before it is encoded."""

    type: int
    request_id: int
    body: bytes


def facts_of(node: int) -> PeerFacts:
    """What a peer of this number says of itself."""
    return PeerFacts(CLUSTER, NodeId(node), 1, 3, bytes([node]) * 16, Epoch(5), Lane.REQUESTS)


class Listener:
    """The other side of a conversation, and what was asked of it about peers."""

    def __init__(self, side: Side) -> None:
        self.asked: list[PeerFacts] = []
        self.connection = Connection(self._handshake(side))
        self.connection.start()

    def _handshake(self, side: Side) -> ServerHello | ClientHello | PeerAcceptor | PeerDialer:
        match side:
            case Side.CLIENT:
                return ServerHello(SERVER)
            case Side.NODE:
                return ClientHello("fuzz")
            case Side.DIALER:
                return PeerAcceptor(facts_of(2), SECRET, b"2" * 16, self._admit)
            case Side.ACCEPTOR:
                return PeerDialer(facts_of(1), SECRET, b"1" * 16, self._admit)

    def _admit(self, facts: PeerFacts) -> None:
        self.asked.append(facts)


# -- what an honest side says


def greeting_of(side: Side) -> list[Said]:
    """The frames of the handshake that this side says."""
    match side:
        case Side.CLIENT:
            return [_said(ClientHello("fuzz").start())]
        case Side.NODE:
            return [Said(MessageType.WELCOME, 0, SERVER.encode())]
        case Side.DIALER | Side.ACCEPTOR:
            dialer = PeerDialer(facts_of(1), SECRET, b"1" * 16, lambda _: None)
            acceptor = PeerAcceptor(facts_of(2), SECRET, b"2" * 16, lambda _: None)
            hello = _said(dialer.start())
            challenge = _said(acceptor.on_frame(Frame(*hello)).send)
            proof = _said(dialer.on_frame(Frame(*challenge)).send)
            welcome = _said(acceptor.on_frame(Frame(*proof)).send)
            return [hello, proof] if side is Side.DIALER else [challenge, welcome]


def _said(frame: bytes) -> Said:
    _, _, message_type, _, request_id = _HEADER.unpack_from(frame)
    return Said(message_type, request_id, frame[HEADER_BYTES:])


_BUCKET: Final = BucketProperties(id=BucketId(256), name="b", generation=1, conflict=Conflict.SIBLINGS)
_GET_REPLY: Final = encode_get_reply(5, b"c" * 48, [(b"actor-of-14-by", 7, 1 << 60, b"value")] * 2)
_ERROR: Final = encode_error(Overloaded("busy", retry_after=0.5), node="n2")
_ADMIN: Final = AdminRequest(verb="bucket.get", args={"name": "b"}).encode()
_SESSION: Final = ((MessageType.PING, b""), (MessageType.PONG, b""), (MessageType.ERROR, _ERROR))
_BODIES: Final[Mapping[Side, Sequence[tuple[MessageType, bytes]]]] = {
    Side.CLIENT: (
        *_SESSION[:2],
        (MessageType.GET, encode_get(GetRequest(256, 1, 5, 500, 0, 0, 0, b"k\x00\x01", (b"c" * 48,)))),
        (
            MessageType.PUT,
            encode_put(PutRequest(256, 1, 5, 500, FLAG_BLIND, 0, 0, 0, 0, b"o" * 16, b"k\x00\x01", b"c" * 48, b"v")),
        ),
        (MessageType.SCAN, ScanRequest(256, 1, b"a" * 9, b"z" * 9, 100, 1_000, False, 0, 500).encode()),
        (MessageType.ADMIN, _ADMIN),
    ),
    Side.NODE: (
        *_SESSION,
        (MessageType.GET_REPLY, _GET_REPLY),
        (MessageType.PUT_REPLY, encode_put_reply(5, 2, 2, b"c" * 48)),
        (MessageType.SCAN_REPLY, ScanReply(((b"a" * 11, _GET_REPLY),), b"b" * 11, 5).encode()),
        (MessageType.ADMIN_REPLY, cbor.dumps(dict(_BUCKET.to_wire()))),
        (MessageType.GET_EXPLAINED, explanations.join(b"\xa0", _GET_REPLY)),
    ),
    Side.DIALER: (
        *_SESSION,
        (MessageType.REPLICA_GET, b"g" * 60),
        (MessageType.REPLICA_PUT, b"p" * 90),
        (MessageType.REPLICA_SCAN, ScanRequest(256, 1, b"a" * 9, b"z" * 9, 100, 1_000, False, 0, 500).encode()),
        (MessageType.METADATA_FETCH, cbor.dumps({"epoch": 5})),
        (MessageType.MEMBERSHIP, cbor.dumps({"kind": "ping", "incarnation": 1, "epoch": 5, "claims": []})),
    ),
    Side.ACCEPTOR: (
        *_SESSION,
        (MessageType.REPLICA_GET_REPLY, b"\x00" + b"r" * 60),
        (MessageType.REPLICA_PUT_REPLY, b"\x00"),
        (MessageType.METADATA_REPLY, cbor.dumps({"epoch": 5, "metadata": b"m"})),
    ),
}  # fmt: skip

READERS: Final[Mapping[int, Callable[[bytes], object]]] = {
    MessageType.GET: decode_get,
    MessageType.PUT: decode_put,
    MessageType.SCAN: ScanRequest.decode,
    MessageType.ADMIN: AdminRequest.decode,
    MessageType.GET_REPLY: decode_get_reply,
    MessageType.PUT_REPLY: decode_put_reply,
    MessageType.SCAN_REPLY: ScanReply.decode,
    MessageType.ERROR: decode_error,
    MessageType.REPLICA_GET: decode_replica_get,
    MessageType.REPLICA_PUT: decode_replica_put,
    MessageType.REPLICA_GET_REPLY: decode_reply,
    MessageType.REPLICA_PUT_REPLY: decode_reply,
    MessageType.REPLICA_SCAN: ScanRequest.decode,
    MessageType.METADATA_FETCH: MetadataFetch.decode,
    MessageType.METADATA_REPLY: MetadataReply.decode,
    MessageType.GET_EXPLAINED: explanations.split,
}


def honest(side: Side, rng: Random) -> list[Said]:
    """A whole conversation of this side."""
    bodies = _BODIES[side]
    asked = [rng.choice(bodies) for _ in range(rng.randrange(10))]
    return [*greeting_of(side), *(Said(kind, number, body) for number, (kind, body) in enumerate(asked, 1))]


# -- what becomes of it


def spoil(frames: Sequence[Said], rng: Random) -> bytes:
    """The bytes of a conversation in which something is wrong, most of the time."""
    frames = list(frames)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        _misplace(frames, rng)
    parts = [encode_frame(*frame) for frame in frames]
    for _ in range(rng.choice((0, 1, 1, 2))):
        if parts:
            at = rng.randrange(len(parts))
            parts[at] = _damage(parts[at], rng)
    data = b"".join(parts)
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data


def _misplace(frames: list[Said], rng: Random) -> None:
    """Change one frame, or where it stands; checksums will fit."""
    if not frames:
        return
    at = rng.randrange(len(frames))
    match rng.randrange(9):
        case 0:
            del frames[at]
        case 1:
            frames.insert(rng.randrange(len(frames) + 1), frames[at])
        case 2:
            other = rng.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        case 3:
            frames[at] = frames[at]._replace(type=rng.choice(sorted(KNOWN_TYPES)))
        case 4:
            frames[at] = frames[at]._replace(request_id=rng.choice((0, 1, 1 << 63, (1 << 64) - 1, rng.getrandbits(64))))
        case 5:
            stranger = rng.choice(_BODIES[rng.choice(list(Side))])
            frames.insert(at, Said(stranger[0], rng.randrange(5), stranger[1]))
        case _:
            frames[at] = frames[at]._replace(body=_other_body(frames[at].body, rng))


def _other_body(body: bytes, rng: Random) -> bytes:
    """Another body: of a map another map, most of the time; of anything other bytes."""
    if rng.random() < 0.6:
        try:
            fields = cbor.loads(body)
        except cbor.DecodeError:
            fields = None
        if isinstance(fields, dict) and fields:
            return _encoded(_other_map(fields, rng)) or body
    return _other_bytes(body, rng)


def _other_map(fields: dict[Any, Any], rng: Random) -> dict[Any, Any]:
    name = rng.choice(list(fields))
    changed = dict(fields)
    match rng.randrange(4):
        case 0:
            del changed[name]
        case 1:
            changed[rng.choice(("", "extra", "x" * 100))] = rng.choice(_ODD)
        case _:
            changed[name] = rng.choice(_ODD)
    return changed


def _encoded(fields: object) -> bytes:
    """CBOR of anything, or b"" where our own encoder would not write it."""
    try:
        return cbor.dumps(fields)
    except (ValueError, TypeError, OverflowError):
        return b""


def _other_bytes(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    match rng.randrange(6):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + rng.randbytes(rng.choice((1, 4, 40))) + data[at:]
        case 2:
            return data[:at] + data[at + rng.choice((1, 2, 8)) :]
        case 3:
            return data[:at] + data[:at]
        case 4:
            return rng.randbytes(rng.choice((0, 1, 17, 64, 3_000)))
        case _:
            if not data:
                return b"\x00"
            at = rng.randrange(len(data))
            return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]


def _damage(frame: bytes, rng: Random) -> bytes:
    """Change the bytes of a frame; its checksum knows nothing of it."""
    if len(frame) < HEADER_BYTES:
        return _other_bytes(frame, rng)
    length, checksum, message_type, flags, request_id = _HEADER.unpack_from(frame)
    body = frame[HEADER_BYTES:]
    match rng.randrange(7):
        case 0:
            length = rng.choice((0, 1, length ^ 1, length >> 1, 4_078, 4_079, 1 << 24, (1 << 32) - 1))
        case 1:
            message_type = rng.randrange(256)
        case 2:
            flags = rng.randrange(1, 256)
        case 3:
            checksum ^= 1 << rng.randrange(32)
        case 4:
            return rng.randbytes(rng.choice((1, 17, 18, 400))) + frame
        case _:
            return _other_bytes(frame, rng)
    return _HEADER.pack(length, checksum, message_type, flags, request_id) + body


def cut(data: bytes, rng: Random) -> list[bytes]:
    """The pieces in which the bytes arrive."""
    if len(data) < 2 or rng.random() < 0.4:
        return [data]
    edges = sorted(rng.randrange(len(data)) for _ in range(rng.randrange(1, PIECES_MAX)))
    return [data[start:stop] for start, stop in zip([0, *edges], [*edges, len(data)], strict=True) if start < stop]


# -- one conversation


def run(side: Side, rng: Random) -> int:
    """One spoilt conversation, to its end; about how many frames it had. AssertionError when a promise is broken."""
    frames = honest(side, rng)
    data = spoil(frames, rng)
    listener = Listener(side)
    connection = listener.connection
    heard = b""
    for piece in cut(data, rng):
        heard += piece
        broken: LeafdbError | None = None
        came: list[Frame] = []
        try:
            came = connection.receive(piece)
        except LeafdbError as error:
            broken = error
        connection.take_output()
        _judge(side, listener, heard)
        for frame in came:
            _read(frame)
        if broken is not None:
            assert len(connection.farewell(broken)) <= FRAME_BYTES_MAX_UNAUTHENTICATED
            break
    return len(frames)


def _judge(side: Side, listener: Listener, heard: bytes) -> None:
    connection = listener.connection
    if connection.state is not ConnectionState.FAILED:
        connection.check()
    bound = FRAME_BYTES_MAX_UNAUTHENTICATED if connection.state is ConnectionState.HANDSHAKE else FRAME_BYTES_MAX
    assert connection.reader.buffered_bytes <= bound + HEADER_BYTES
    if side in (Side.CLIENT, Side.NODE):
        return
    first = greeting_of(side)[0]
    if listener.asked or connection.facts is not None:
        assert heard.startswith(encode_frame(*first)), "a peer was believed whose hello was not the one it has proved"
        assert listener.asked == [facts_of(1 if side is Side.DIALER else 2)]


def _read(frame: Frame) -> None:
    reader = READERS.get(frame.type)
    if reader is not None:
        with contextlib.suppress(*PEER_FAULTS):
            reader(frame.body)
