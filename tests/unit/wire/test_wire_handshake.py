"""A peer is believed only after its proof; a client never reaches a peer's verbs; whoever is refused is told why."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from leafdb.codec import cbor
from leafdb.errors import LeafdbError, ProtocolError
from leafdb.limits import FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.types import Epoch, NodeId
from leafdb.wire.body import encode_map
from leafdb.wire.connection import Connection, ConnectionState
from leafdb.wire.errors import HandshakeRefused
from leafdb.wire.frame import HEADER_BYTES, Frame, encode_frame
from leafdb.wire.handshake import ClientHello, Handshake, PeerAcceptor, PeerDialer, ServerHello, Step, negotiate
from leafdb.wire.hello import ClientFacts, PeerFacts, PeerHello, Refusal, ServerFacts
from leafdb.wire.registry import Lane, MessageType

SECRET = b"s" * 32
CLUSTER = b"c" * 16
SERVER = ServerFacts(NodeId(2), "n2", "home", CLUSTER, Epoch(5))


def peer_facts(node: int, *, lane: Lane = Lane.REQUESTS, cluster_id: bytes = CLUSTER) -> PeerFacts:
    return PeerFacts(cluster_id, NodeId(node), 1, 3, bytes([node]) * 16, Epoch(5), lane)


def dialer(
    *, secret: bytes = SECRET, facts: PeerFacts | None = None, admit: Callable[[PeerFacts], str | None] | None = None
) -> PeerDialer:
    return PeerDialer(facts or peer_facts(1), secret, b"1" * 16, admit or (lambda _: None))


def acceptor(
    *, secret: bytes = SECRET, facts: PeerFacts | None = None, admit: Callable[[PeerFacts], str | None] | None = None
) -> PeerAcceptor:
    return PeerAcceptor(facts or peer_facts(2), secret, b"2" * 16, admit or (lambda _: None))


def converse(
    near: Handshake, far: Handshake, *, tamper: Callable[[bytes], bytes] = lambda data: data, piece: int = 1 << 20
) -> tuple[Connection, Connection, list[LeafdbError]]:
    """Join two connections back to back until neither has more to say; what each side raised, near side first."""
    a, b = Connection(near), Connection(far)
    errors: list[LeafdbError] = []
    to_b, to_a = a.start(), b.start()
    while to_a or to_b:
        to_b, data = b"", tamper(to_b)
        for at in range(0, len(data), piece):
            to_a += feed(b, data[at : at + piece], errors)
        to_a, data = b"", to_a
        for at in range(0, len(data), piece):
            to_b += feed(a, data[at : at + piece], errors)
        a.check()
        b.check()
    return a, b, errors


def feed(connection: Connection, data: bytes, errors: list[LeafdbError]) -> bytes:
    if connection.state is ConnectionState.FAILED:
        return b""
    try:
        assert all(frame.type == MessageType.ERROR for frame in connection.receive(data))
    except LeafdbError as error:
        errors.append(error)
        return connection.take_output() + connection.farewell(error)
    return connection.take_output()


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_a_client_and_a_node_meet(piece: int) -> None:
    client, node, errors = converse(ClientHello("test/1"), ServerHello(SERVER), piece=piece)
    assert not errors
    assert client.facts == SERVER
    assert node.facts == ClientFacts(1, "test/1")


@pytest.mark.parametrize("piece", [1, 3, 1000])
@pytest.mark.parametrize("lane", list(Lane))
def test_two_peers_meet_and_know_each_other(piece: int, lane: Lane) -> None:
    facts = peer_facts(1, lane=lane)
    near, far, errors = converse(dialer(facts=facts), acceptor(), piece=piece)
    assert not errors
    assert near.facts == replace(peer_facts(2), lane=lane)
    assert far.facts == facts


def test_another_secret_is_refused_before_anything_is_asked_about_the_peer() -> None:
    asked: list[PeerFacts] = []

    def admit(facts: PeerFacts) -> None:
        asked.append(facts)

    _, far, errors = converse(dialer(secret=b"x" * 32), acceptor(admit=admit))
    assert [refusal_of(error) for error in errors] == [Refusal.BAD_SECRET] * 2
    assert not asked
    assert far.facts is None


def test_an_acceptor_that_does_not_know_the_secret_is_not_believed() -> None:
    class Impostor(PeerAcceptor):
        def on_frame(self, frame: Frame) -> Step:
            if frame.type == MessageType.PROOF:
                return Step(welcome, None)
            return super().on_frame(frame)

    welcome = encode_frame(MessageType.WELCOME, 0, encode_map({"version": 1, "mac": bytes(32)}))
    near, _, errors = converse(dialer(), Impostor(peer_facts(2), b"?" * 32, b"2" * 16, lambda _: None))
    assert near.facts is None
    assert refusal_of(errors[0]) == Refusal.BAD_SECRET


def test_a_proof_sent_back_to_its_maker_proves_nothing() -> None:
    """The role is under the proof: an attacker cannot use the dialler's own proof as the acceptor's."""
    machine = dialer()
    machine.start()
    challenge = acceptor().on_frame(Frame(MessageType.HELLO, 0, body_of(machine.start()))).send
    proof = machine.on_frame(Frame(MessageType.CHALLENGE, 0, body_of(challenge))).send
    mac = body_of(proof)[-32:]
    welcome = encode_map({"version": 1, "mac": mac})
    with pytest.raises(HandshakeRefused) as caught:
        machine.on_frame(Frame(MessageType.WELCOME, 0, welcome))
    assert caught.value.refusal == Refusal.BAD_SECRET


def test_changing_any_covered_field_on_the_way_breaks_the_proof() -> None:
    """Including the version range: a downgrade by a third party is found."""
    for field, value in {"max": 9, "node": 9, "incarnation": 9, "boot": 9, "epoch": 9, "lane": 1}.items():

        def tamper(data: bytes, field: str = field, value: int = value) -> bytes:
            if data and data[8] == MessageType.HELLO:
                fields = cbor.loads(body_of(data))
                assert fields[field] != value
                return encode_frame(MessageType.HELLO, 0, cbor.dumps({**fields, field: value}))
            return data

        near, far, errors = converse(dialer(), acceptor(), tamper=tamper)
        assert near.facts is None, field
        assert far.facts is None, field
        assert refusal_of(errors[0]) == Refusal.BAD_SECRET, field


@pytest.mark.parametrize("refusal", [Refusal.BANNED, Refusal.ROLLED_BACK, Refusal.CLONE, Refusal.DUPLICATE])
def test_what_admit_answers_is_told_to_the_peer(refusal: Refusal) -> None:
    near, far, errors = converse(dialer(), acceptor(admit=lambda _: refusal))
    assert near.facts is None
    assert far.facts is None
    assert [refusal_of(error) for error in errors] == [refusal, refusal]
    assert near.farewell(errors[1]) == b"", "who has been told does not tell back"


def test_the_dialler_asks_about_the_acceptor_too() -> None:
    near, _, errors = converse(dialer(admit=lambda _: Refusal.BANNED), acceptor())
    assert near.facts is None
    assert refusal_of(errors[0]) == Refusal.BANNED


def test_another_cluster_is_named_even_when_its_secret_differs() -> None:
    facts = peer_facts(1, cluster_id=b"d" * 16)
    _, _, errors = converse(dialer(facts=facts, secret=b"x" * 32), acceptor())
    assert {refusal_of(error) for error in errors} == {Refusal.WRONG_CLUSTER}


def test_nodes_without_a_cluster_may_meet_and_admit_decides() -> None:
    near, _, errors = converse(dialer(facts=replace(peer_facts(1, cluster_id=b""), node=NodeId(0))), acceptor())
    assert not errors
    assert near.facts is not None


def test_a_node_does_not_talk_to_itself_or_to_its_copy() -> None:
    _, _, errors = converse(dialer(facts=peer_facts(2)), acceptor())
    assert {refusal_of(error) for error in errors} == {Refusal.CLONE}


def test_the_wrong_port_is_said() -> None:
    for near, far in ((ClientHello("x"), acceptor()), (dialer(), ServerHello(SERVER))):
        _, _, errors = converse(near, far)
        assert {refusal_of(error) for error in errors} == {Refusal.WRONG_PORT}


def test_versions_meet_at_the_newest_both_know() -> None:
    assert negotiate((1, 3), (2, 5)) == 3
    assert negotiate((2, 5), (1, 3)) == 3
    for offered, known in (((1, 1), (2, 3)), ((4, 9), (2, 3))):
        with pytest.raises(HandshakeRefused) as caught:
            negotiate(offered, known)
        assert caught.value.refusal == Refusal.VERSION


def test_before_the_handshake_frames_are_short_and_of_its_own_types() -> None:
    for stream in (
        encode_frame(MessageType.HELLO, 0, bytes(FRAME_BYTES_MAX_UNAUTHENTICATED)),
        encode_frame(MessageType.PUT, 0, b""),
        encode_frame(MessageType.REPLICA_PUT, 0, b""),
        encode_frame(MessageType.PROOF, 0, b""),
        encode_frame(MessageType.WELCOME, 0, b""),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        for machine in (ServerHello(SERVER), acceptor()):
            connection = Connection(machine)
            with pytest.raises(ProtocolError):
                connection.receive(stream)
            connection.check()
            with pytest.raises(ProtocolError):
                connection.receive(b"")


def test_what_follows_the_last_handshake_frame_is_read_under_the_next_rules() -> None:
    client = Connection(ClientHello("x"))
    stream = encode_frame(MessageType.WELCOME, 0, SERVER.encode()) + encode_frame(MessageType.GET_REPLY, 1, b"g" * 9999)
    assert client.receive(stream[:-1]) == []
    assert client.receive(stream[-1:]) == [Frame(MessageType.GET_REPLY, 1, b"g" * 9999)]
    node = Connection(ServerHello(SERVER))
    hello = ClientHello("x").start()
    with pytest.raises(ProtocolError, match="REPLICA_PUT is not allowed"):
        node.receive(hello + encode_frame(MessageType.REPLICA_PUT, 1, b""))


def test_a_client_session_refuses_every_peer_type() -> None:
    for message_type in MessageType:
        node = Connection(ServerHello(SERVER))
        node.receive(ClientHello("x").start())
        allowed = message_type in (
            MessageType.PUT, MessageType.GET, MessageType.SCAN, MessageType.ADMIN, MessageType.TRACED,
            MessageType.PING, MessageType.PONG, MessageType.ERROR,
        )  # fmt: skip
        if allowed:
            assert node.receive(encode_frame(message_type, 1, b"")) == [Frame(message_type, 1, b"")]
        else:
            with pytest.raises(ProtocolError):
                node.receive(encode_frame(message_type, 1, b""))


def test_mutated_handshakes_end_in_a_typed_error_or_facts() -> None:
    rng = random.Random(7)
    established = 0
    for _ in range(300):

        def tamper(data: bytes) -> bytes:
            if not data or rng.random() < 0.3:
                return data
            body = bytearray(body_of(data))
            for _ in range(rng.randrange(1, 4)):
                if body:
                    body[rng.randrange(len(body))] = rng.randrange(256)
            return encode_frame(data[8], 0, bytes(body))

        near, far, _ = converse(dialer(), acceptor(), tamper=tamper)
        if far.facts is not None:
            established += 1
            assert near.facts is not None
    assert established < 100


def body_of(frame: bytes) -> bytes:
    return frame[HEADER_BYTES:]


def refusal_of(error: LeafdbError) -> str:
    assert isinstance(error, HandshakeRefused), error
    return error.refusal


def test_what_a_hello_may_lack_or_have_more_is_no_obstacle() -> None:
    """Hellos of builds before stores and pasts were told, and of ones that tell more."""
    told = replace(peer_facts(1), store=b"s" * 16, past=b"p" * 32)
    fields = cbor.loads(PeerHello(told, b"1" * 16).encode())
    assert PeerHello.decode(encode_map({**fields, "later": 7})).facts == told
    for name in ("store", "past"):
        del fields[name]
    assert PeerHello.decode(encode_map(fields)).facts == peer_facts(1)


@pytest.mark.parametrize("field", [{"store": b"s" * 17}, {"past": b"p" * 257}, {"store": "s"}])
def test_a_hello_that_tells_too_much_of_itself_is_malformed(field: dict[str, object]) -> None:
    fields = cbor.loads(PeerHello(peer_facts(1), b"1" * 16).encode())
    with pytest.raises(ProtocolError):
        PeerHello.decode(encode_map({**fields, **field}))


def test_a_node_that_shows_no_number_is_taken_verbs_from_and_nothing_else() -> None:
    near, far, errors = converse(dialer(facts=peer_facts(0, cluster_id=b"")), acceptor())
    assert not errors
    verb = encode_frame(MessageType.PEER_ADMIN, 1, b"")
    assert [frame.type for frame in far.receive(verb)] == [MessageType.PEER_ADMIN]
    answer = encode_frame(MessageType.PEER_ADMIN_REPLY, 1, b"")
    assert [frame.type for frame in near.receive(answer)] == [MessageType.PEER_ADMIN_REPLY]
    for number in (MessageType.REPLICA_PUT, MessageType.REGISTER, MessageType.HINTS, MessageType.MEMBERSHIP):
        _, far, errors = converse(dialer(facts=peer_facts(0, cluster_id=b"")), acceptor())
        assert not errors
        with pytest.raises(ProtocolError):
            far.receive(encode_frame(number, 1, b""))
    _, far, errors = converse(dialer(), acceptor())
    assert not errors
    assert far.receive(encode_frame(MessageType.REPLICA_PUT, 1, b""))
