"""The four sides of the two handshakes, sans-I/O: frames in, frames out, until facts are established.

    client                         node            dialling peer                        accepting peer
    HELLO kind=client ------------>                HELLO facts, nonce ----------------->
           [a login in between: login.py]                  <------------ CHALLENGE facts, nonce
           <------------ WELCOME | ERROR
                                                   PROOF mac(dialer) ------------------>
                                                           <------------ WELCOME version, mac(acceptor) | ERROR

A peer proves that it knows the cluster secret without sending it: mac = HMAC-SHA256(secret, role ‖ both hellos as they
went over the wire). Both hellos carry a fresh nonce, so a proof is good for one connection; the role keeps one side's
proof from being sent back as the other's; node numbers, lane, boot counter, cluster and version ranges are under it, so
none can be changed on the way and no version downgraded.

Rules: nothing is decided about a peer before its proof has verified, except what would fail anyway (versions, another
cluster, the wrong port), so an unauthenticated peer changes no state. `admit(facts)` is asked once, after the proof; it
answers None or why not, and whatever it remembers it may believe. The dialler asks its own `admit` about the acceptor.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple, NoReturn, Protocol

from leafdb.codec.fields import bytes_field, int_field
from leafdb.errors import ProtocolError
from leafdb.wire.body import decode_map, encode_map, refusing
from leafdb.wire.errors import HandshakeRefused, decode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.hello import (
    MAC_BYTES,
    NONCE_BYTES,
    VERSION_MAX,
    ClientFacts,
    PeerFacts,
    PeerHello,
    Refusal,
    ServerFacts,
    decode_client_hello,
    encode_client_hello,
    kind_of,
)
from leafdb.wire.login import Gate, Login, NodeLogin, encode_data, login_fields, read_data, read_login
from leafdb.wire.registry import (
    CLIENT_REPLY_TYPES,
    CLIENT_REQUEST_TYPES,
    PEER_TYPES,
    PROTOCOL_VERSION,
    STRANGER_REPLY_TYPES,
    STRANGER_REQUEST_TYPES,
    MessageType,
)

Facts = ClientFacts | ServerFacts | PeerFacts
Admit = Callable[[PeerFacts], str | None]

_DIALER: Final = b"leafdb peer proof 1: dialer"
_ACCEPTOR: Final = b"leafdb peer proof 1: acceptor"


class Step(NamedTuple):
    """What a machine answers to a frame: bytes to send, and the facts once the handshake is over."""

    send: bytes
    facts: Facts | None


class Handshake(Protocol):
    """One side of a handshake. `start` once, then `on_frame` for each frame until facts come or ProtocolError."""

    allowed_types: frozenset[int]
    """What may come from the other side afterwards."""

    def start(self) -> bytes:
        """The bytes this side sends before it has heard anything."""

    def on_frame(self, frame: Frame) -> Step:
        """Take the next frame of the other side."""


class ClientHello:
    """The client's side towards a node; with a `login` when it says who it is."""

    __slots__ = ("_agent", "_login")
    allowed_types = CLIENT_REPLY_TYPES

    def __init__(self, agent: str, login: Login | None = None) -> None:
        self._agent = agent
        self._login = login

    def start(self) -> bytes:
        """HELLO."""
        return encode_frame(MessageType.HELLO, 0, encode_client_hello(self._agent, login_fields(self._login)))

    def on_frame(self, frame: Frame) -> Step:
        """A CHALLENGE of a login, answered by PROOF; WELCOME, or the node's refusal, which is raised."""
        if self._login is not None and frame.type == MessageType.CHALLENGE:
            proof = self._login.answer(read_data(_expect(frame, MessageType.CHALLENGE)))
            return Step(encode_frame(MessageType.PROOF, 0, encode_data(proof)), None)
        body = _expect(frame, MessageType.WELCOME)
        facts = ServerFacts.decode(body)
        if facts.version != PROTOCOL_VERSION:
            raise ProtocolError(f"the node chose protocol version {facts.version}, which was not offered")
        if self._login is not None:
            if not facts.user:
                raise ProtocolError("the node took no notice of who connects: it knows no accounts, connect without")
            self._login.verify(read_data(body))
        return Step(b"", facts)


class ServerHello:
    """The node's side towards a client. Without a `gate` everybody is welcome and nobody is asked who it is."""

    __slots__ = ("_client", "_facts", "_gate", "_login")
    allowed_types = CLIENT_REQUEST_TYPES

    def __init__(self, facts: ServerFacts, *, gate: Gate | None = None) -> None:
        self._facts = facts
        self._gate = gate
        self._client: ClientFacts | None = None
        self._login: NodeLogin | None = None

    def start(self) -> bytes:
        """Nothing: the client speaks first."""
        return b""

    def on_frame(self, frame: Frame) -> Step:
        """HELLO, answered by WELCOME, or by CHALLENGE; then PROOF, answered by WELCOME."""
        if self._client is not None and self._login is not None:
            data = read_data(_expect(frame, MessageType.PROOF))
            return self._welcome(self._client, *self._login.prove(data))
        body = _expect(frame, MessageType.HELLO)
        if kind_of(body) != "client":
            _refuse(Refusal.WRONG_PORT, "this is the client port; peers connect to the peer port")
        offered, agent = decode_client_hello(body)
        client = ClientFacts(negotiate(offered, (PROTOCOL_VERSION, PROTOCOL_VERSION)), agent)
        if self._gate is None:
            return self._welcome(client, None, "", b"")
        login = read_login(body)
        if login is None:
            self._gate.anonymous()
            return self._welcome(client, None, "", b"")
        self._login = NodeLogin(self._gate)
        answer = self._login.begin(*login)
        if isinstance(answer, bytes):
            self._client = client
            return Step(encode_frame(MessageType.CHALLENGE, 0, encode_data(answer)), None)
        return self._welcome(client, *answer, b"")

    def _welcome(self, client: ClientFacts, principal: object, user: str, proof: bytes) -> Step:
        facts = replace(self._facts, version=client.version, user=user)
        welcome = encode_frame(MessageType.WELCOME, 0, facts.encode(proof))
        return Step(welcome, replace(client, principal=principal))


class PeerDialer:
    """The side of two nodes that opened the connection. `nonce` is 16 fresh random bytes."""

    __slots__ = ("_admit", "_hello", "_own", "_pending", "_secret", "_transcript", "allowed_types")

    def __init__(self, own: PeerFacts, secret: bytes, nonce: bytes, admit: Admit) -> None:
        assert len(nonce) == NONCE_BYTES
        self.allowed_types: frozenset[int] = PEER_TYPES if own.node else STRANGER_REPLY_TYPES
        self._own = own
        self._secret = secret
        self._admit = admit
        self._hello = PeerHello(own, nonce).encode()
        self._transcript = b""
        self._pending: PeerFacts | None = None

    def start(self) -> bytes:
        """HELLO."""
        return encode_frame(MessageType.HELLO, 0, self._hello)

    def on_frame(self, frame: Frame) -> Step:
        """CHALLENGE, answered by PROOF; then WELCOME, which proves the acceptor in turn."""
        if self._pending is None:
            body = _expect(frame, MessageType.CHALLENGE)
            self._pending = _meet(body, self._own)
            self._transcript = transcript(self._hello, body)
            proof = encode_map({"mac": prove(self._secret, _DIALER, self._transcript)})
            return Step(encode_frame(MessageType.PROOF, 0, proof), None)
        version, mac = _decode_welcome(_expect(frame, MessageType.WELCOME))
        _verify(self._secret, _ACCEPTOR, self._transcript, mac)
        if version != self._pending.version:
            raise ProtocolError(f"the peer chose protocol version {version}, not {self._pending.version}")
        if self._pending.lane is not self._own.lane:
            raise ProtocolError(f"the peer speaks of lane {self._pending.lane}, not {self._own.lane}")
        _ask(self._admit, self._pending)
        return Step(b"", self._pending)


class PeerAcceptor:
    """The side of two nodes that was connected to. `own.lane` is replaced by the lane the dialler asks for."""

    __slots__ = ("_admit", "_nonce", "_own", "_pending", "_secret", "_transcript", "allowed_types")

    def __init__(self, own: PeerFacts, secret: bytes, nonce: bytes, admit: Admit) -> None:
        assert len(nonce) == NONCE_BYTES
        self.allowed_types: frozenset[int] = PEER_TYPES
        self._own = own
        self._secret = secret
        self._nonce = nonce
        self._admit = admit
        self._transcript = b""
        self._pending: PeerFacts | None = None

    def start(self) -> bytes:
        """Nothing: the dialler speaks first."""
        return b""

    def on_frame(self, frame: Frame) -> Step:
        """HELLO, answered by CHALLENGE; then PROOF, answered by WELCOME."""
        if self._pending is None:
            body = _expect(frame, MessageType.HELLO)
            self._pending = _meet(body, self._own)
            if not self._pending.node:
                self.allowed_types = STRANGER_REQUEST_TYPES
            challenge = PeerHello(replace(self._own, lane=self._pending.lane), self._nonce).encode()
            self._transcript = transcript(body, challenge)
            return Step(encode_frame(MessageType.CHALLENGE, 0, challenge), None)
        _verify(self._secret, _DIALER, self._transcript, _decode_proof(_expect(frame, MessageType.PROOF)))
        _ask(self._admit, self._pending)
        mac = prove(self._secret, _ACCEPTOR, self._transcript)
        welcome = encode_map({"version": self._pending.version, "mac": mac})
        return Step(encode_frame(MessageType.WELCOME, 0, welcome), self._pending)


def negotiate(offered: tuple[int, int], known: tuple[int, int]) -> int:
    """The newest version in both ranges; HandshakeRefused when there is none."""
    version = min(offered[1], known[1])
    if version < max(offered[0], known[0]):
        _refuse(
            Refusal.VERSION,
            f"protocol versions {offered[0]} to {offered[1]} are offered, {known[0]} to {known[1]} are known here",
        )
    return version


def transcript(dialer_hello: bytes, acceptor_hello: bytes) -> bytes:
    """What both proofs cover: both hellos, each behind its length so that no byte can move from one to the other."""
    return b"".join(
        (len(dialer_hello).to_bytes(4, "big"), dialer_hello, len(acceptor_hello).to_bytes(4, "big"), acceptor_hello)
    )


def prove(secret: bytes, role: bytes, covered: bytes) -> bytes:
    """HMAC-SHA256 of the role and the transcript."""
    return hmac.new(secret, role + covered, hashlib.sha256).digest()


def _verify(secret: bytes, role: bytes, covered: bytes, mac: bytes) -> None:
    if not hmac.compare_digest(prove(secret, role, covered), mac):
        _refuse(Refusal.BAD_SECRET, "the proof of the cluster secret does not verify")


def _meet(body: bytes, own: PeerFacts) -> PeerFacts:
    """The other peer's facts, with the agreed version; refuses what no proof could make right."""
    if kind_of(body) != "peer":
        _refuse(Refusal.WRONG_PORT, "this is the peer port; clients connect to the client port")
    hello = PeerHello.decode(body)
    version = negotiate((hello.version_min, hello.version_max), (PROTOCOL_VERSION, PROTOCOL_VERSION))
    facts = hello.facts
    if facts.cluster_id and own.cluster_id and facts.cluster_id != own.cluster_id:
        _refuse(Refusal.WRONG_CLUSTER, "this node belongs to another cluster")
    if facts.node and facts.node == own.node:
        _refuse(Refusal.CLONE, f"both sides say they are node {facts.node}")
    return replace(facts, version=version)


def _ask(admit: Admit, facts: PeerFacts) -> None:
    refusal = admit(facts)
    if refusal is not None:
        _refuse(refusal, f"node {facts.node} is refused: {refusal.replace('_', ' ')}")


def _refuse(refusal: str, message: str) -> NoReturn:
    raise HandshakeRefused(message, refusal=refusal)


def _expect(frame: Frame, wanted: MessageType) -> bytes:
    """The body of the frame that is due; the other side's ERROR is raised as what it says."""
    if frame.type == MessageType.ERROR:
        raise decode_error(frame.body)
    if frame.type != wanted or frame.request_id:
        raise ProtocolError(f"{MessageType(frame.type).name} came where {wanted.name} was due")
    return frame.body


@refusing("a proof")
def _decode_proof(body: bytes) -> bytes:
    return bytes_field(decode_map(body, "a proof"), "mac", low=MAC_BYTES, high=MAC_BYTES)


@refusing("a welcome")
def _decode_welcome(body: bytes) -> tuple[int, bytes]:
    fields = decode_map(body, "a welcome")
    mac = bytes_field(fields, "mac", low=MAC_BYTES, high=MAC_BYTES)
    return int_field(fields, "version", high=VERSION_MAX), mac
