"""Logins: the RFC's conversation, both sides prove themselves, and what a stranger sends changes nothing."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest

from leafdb.errors import LeafdbError, NotApplied, Overloaded, ProtocolError, Reason
from leafdb.limits import SCRAM_ITERATIONS_MIN
from leafdb.model.scram import Keys, Verifier, fake_verifier, keys_of, verifier_of
from leafdb.types import Epoch, NodeId
from leafdb.wire.body import encode_map
from leafdb.wire.connection import Connection, ConnectionState
from leafdb.wire.frame import encode_frame
from leafdb.wire.handshake import ClientHello, ServerHello
from leafdb.wire.hello import ClientFacts, ServerFacts, encode_client_hello
from leafdb.wire.login import Login, Mechanism, ScramLogin, TokenLogin, encode_data, rejected, wanted
from leafdb.wire.registry import MessageType
from leafdb.wire.scram import ClientScram, FirstMessage, NodeScram, read_first

SERVER = ServerFacts(NodeId(2), "n2", "home", b"c" * 16, Epoch(5))
SALT = b"s" * 16


class Door:
    """A gate that knows one user and one token, and notes what it was asked."""

    def __init__(self, *, required: bool = True) -> None:
        self.required = required
        self.kept = {"alice": verifier_of(b"pencil", SALT, SCRAM_ITERATIONS_MIN)}
        self.let_in: list[str] = []
        self.failures: list[tuple[Mechanism, str]] = []
        self.held_up = False

    def anonymous(self) -> None:
        if self.required:
            raise wanted()

    def begin(self, mechanism: str) -> None:
        self.hold_up()

    def hold_up(self) -> None:
        if self.held_up:
            raise Overloaded("too many", retry_after=3.0)

    def nonce(self) -> str:
        return "node"

    def verifier(self, user: str) -> Verifier:
        return self.kept.get(user) or fake_verifier(b"secret", user, SCRAM_ITERATIONS_MIN)

    def by_password(self, user: str) -> object:
        if user in self.kept:
            self.let_in.append(user)
        return user if user in self.kept else None

    def by_token(self, text: str) -> tuple[object, str]:
        if text != "leafdb_right":
            return None, ""
        self.let_in.append("alice by token")
        return "alice", "alice"

    def failed(self, mechanism: Mechanism, user: str) -> None:
        self.failures.append((mechanism, user))


def scram(user: str = "alice", password: bytes = b"pencil") -> ScramLogin:
    return ScramLogin(ClientScram(user, "client", lambda salt, count: keys_of(password, salt, count)))


def converse(
    login: Login | None, door: Door | None, tamper: Callable[[bytes], bytes] = lambda data: data
) -> tuple[Connection, Connection, LeafdbError | None]:
    """A client against a node; what the client was told when it failed. `tamper` changes what the node says."""
    client = Connection(ClientHello("test", login))
    node = Connection(ServerHello(SERVER, gate=door))
    to_node = client.start()
    told: LeafdbError | None = None
    while to_node:
        try:
            node.receive(to_node)
            to_client = node.take_output()
        except LeafdbError as error:
            to_client = node.take_output() + node.farewell(error)
        node.check()
        try:
            client.receive(tamper(to_client))
        except LeafdbError as error:
            told = error
        to_node = client.take_output()
        client.check()
    return client, node, told


def test_the_conversation_of_rfc_7677() -> None:
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    client = ClientScram("user", "rOprNGfwEbeRWgbNEkqO", lambda salt, count: keys_of(b"pencil", salt, count))
    assert client.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = read_first(client.first())
    node = NodeScram(first, verifier_of(b"pencil", salt, 4096), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert node.challenge() == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = client.final(node.challenge(), iterations_min=4096)
    assert final == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert node.answer(final) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_a_password_opens_the_door_and_both_know_who_they_met() -> None:
    door = Door()
    client, node, told = converse(scram(), door)
    assert told is None
    assert isinstance(client.facts, ServerFacts)
    assert client.facts.user == "alice"
    assert node.facts == ClientFacts(1, "test", "alice")
    assert (door.let_in, door.failures) == (["alice"], [])


def test_a_token_opens_the_door() -> None:
    door = Door()
    client, node, told = converse(TokenLogin("leafdb_right"), door)
    assert told is None
    assert node.facts == ClientFacts(1, "test", "alice")
    assert client.state is ConnectionState.ESTABLISHED


@pytest.mark.parametrize(
    ("login", "failure"),
    [
        (scram(password=b"pencils"), (Mechanism.SCRAM, "alice")),
        (scram(user="mallory"), (Mechanism.SCRAM, "mallory")),
        (TokenLogin("leafdb_wrong"), (Mechanism.TOKEN, "")),
    ],
)
def test_every_failed_login_is_told_the_same(login: Login, failure: tuple[Mechanism, str]) -> None:
    door = Door()
    _, node, told = converse(login, door)
    assert isinstance(told, NotApplied)
    assert told.reason is Reason.UNAUTHORIZED
    assert str(told) == str(rejected())
    assert (door.let_in, door.failures) == ([], [failure])
    assert node.facts is None


def test_nobody_and_somebody_are_asked_for_the_same() -> None:
    """What the node says before the proof has one form and one size, whoever is named, and stays as it is."""
    said = []
    for user in ("alice", "mallory", "mallory"):
        node = Connection(ServerHello(SERVER, gate=Door()))
        node.receive(ClientHello("test", scram(user=user)).start())
        said.append(node.take_output())
    assert len({len(each) for each in said}) == 1
    assert said[1] == said[2]


def test_who_does_not_say_who_it_is_is_told_what_to_do() -> None:
    _, _, told = converse(None, Door())
    assert isinstance(told, NotApplied)
    assert told.reason is Reason.UNAUTHORIZED
    assert "auth=leafdb.Scram" in str(told)
    _, node, told = converse(None, Door(required=False))
    assert told is None
    assert node.facts == ClientFacts(1, "test")


def test_a_login_counts_where_none_is_needed_too() -> None:
    _, node, told = converse(scram(), Door(required=False))
    assert told is None
    assert node.facts == ClientFacts(1, "test", "alice")
    _, _, told = converse(scram(password=b"wrong"), Door(required=False))
    assert isinstance(told, NotApplied)


def test_a_client_with_a_login_does_not_go_on_with_a_node_that_took_no_notice() -> None:
    """A node of an earlier build welcomes everybody; so would somebody in the middle."""
    for login in (scram(), TokenLogin("leafdb_right")):
        client, _, told = converse(login, None)
        assert "took no notice" in str(told)
        assert client.state is ConnectionState.FAILED


def test_a_node_that_does_not_know_the_user_is_found_out() -> None:
    """Somebody in the middle may welcome a user, but has no signature."""
    welcome = encode_frame(MessageType.WELCOME, 0, ServerFacts(NodeId(2), "n2", "home", b"", Epoch(5)).encode())
    for data in (b"", b"v=", b"v=AAAA", b"e=other-error"):
        facts = ServerFacts(NodeId(2), "n2", "home", b"c" * 16, Epoch(5), user="alice").encode(data)
        forged = encode_frame(MessageType.WELCOME, 0, facts)
        _, _, told = converse(scram(), Door(), lambda data, forged=forged: forged)  # type: ignore[misc]
        assert isinstance(told, ProtocolError), data
    _, _, told = converse(scram(), Door(), lambda data: welcome)
    assert "took no notice" in str(told)


def test_a_proof_is_good_for_one_connection() -> None:
    door = Door()
    client = Connection(ClientHello("test", scram()))
    first = Connection(ServerHello(SERVER, gate=door))
    first.receive(client.start())
    client.receive(first.take_output())
    proof = client.take_output()

    class Other(Door):
        def nonce(self) -> str:
            return "other"

    second = Connection(ServerHello(SERVER, gate=Other()))
    second.receive(ClientHello("test", scram()).start())
    with pytest.raises(ProtocolError):
        second.receive(proof)
    with pytest.raises(ProtocolError):
        first.receive(encode_frame(MessageType.PROOF, 0, encode_data(b"c=biws,r=clientnode,p=AAAA")))
    assert not door.let_in


def test_a_source_that_is_held_up_learns_nothing() -> None:
    door = Door()
    door.held_up = True
    for login in (scram(), TokenLogin("leafdb_right")):
        _, _, told = converse(login, door)
        assert isinstance(told, Overloaded)
    assert (door.let_in, door.failures) == ([], [])


def test_logins_that_are_under_way_when_their_source_is_held_up_are_not_judged() -> None:
    """Else whoever opens a thousand connections at once has a thousand guesses."""
    door = Door()
    under_way = []
    for password in (b"pencils", b"pencil"):
        client = Connection(ClientHello("test", scram(password=password)))
        node = Connection(ServerHello(SERVER, gate=door))
        node.receive(client.start())
        client.receive(node.take_output())
        under_way.append((node, client.take_output()))
    door.held_up = True
    for node, proof in under_way:
        with pytest.raises(Overloaded):
            node.receive(proof)
    assert (door.let_in, door.failures) == ([], [])


@pytest.mark.parametrize("count", [0, 1, SCRAM_ITERATIONS_MIN - 1, 10_000_001, 1 << 40])
def test_a_client_proves_nothing_for_few_iterations_and_computes_none_for_too_many(count: int) -> None:
    asked: list[int] = []

    def keys(salt: bytes, iterations: int) -> Keys:
        asked.append(iterations)
        return Keys(b"c" * 32, b"s" * 32)

    client = ClientScram("alice", "client", keys)
    with pytest.raises(ProtocolError, match="iterations"):
        client.final(f"r=clientnode,s=c2FsdA==,i={count}".encode())
    assert not asked


def test_a_client_counts_every_digit_of_the_iterations() -> None:
    """A number that begins like a good one and goes on would keep a client computing for hours."""
    asked: list[int] = []

    def keys(salt: bytes, iterations: int) -> Keys:
        asked.append(iterations)
        return Keys(b"c" * 32, b"s" * 32)

    for count in ("0000150000000", "000015000999999999", f"{SCRAM_ITERATIONS_MIN}".ljust(5_000, "0")):
        with pytest.raises(ProtocolError, match="iterations"):
            ClientScram("alice", "client", keys).final(f"r=clientnode,s=c2FsdA==,i={count}"[:1_024].encode())
    assert not asked


def test_a_client_answers_one_challenge_of_a_login() -> None:
    """Each answer costs the client a key; a false node could ask on and on, with a new salt each time."""
    login = scram()
    client = Connection(ClientHello("test", login))
    client.start()
    for salt in ("c2FsdA==", "c2FsdB=="):
        body = encode_data(f"r=clientnode,s={salt},i={SCRAM_ITERATIONS_MIN}".encode())
        challenge = encode_frame(MessageType.CHALLENGE, 0, body)
        if salt == "c2FsdA==":
            client.receive(challenge)
        else:
            with pytest.raises(ProtocolError, match="second challenge"):
                client.receive(challenge)


@pytest.mark.parametrize(
    "message",
    [
        b"", b"n,,", b"n,,r=x,n=alice", b"n,,n=alice", b"n,,n=alice,r=", b"n,,n=,r=x", b"y,,n=alice,r=x",
        b"p=tls-unique,,n=alice,r=x", b"n,a=bob,n=alice,r=x", b"n,,m=ext,n=alice,r=x", b"n,,n=a=2Db,r=x", b"\xff",
        b"n,,n=" + b"a" * 2_000 + b",r=x",
    ],
)  # fmt: skip
def test_a_malformed_first_message_is_refused(message: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_first(message)


def test_names_are_escaped_on_the_wire() -> None:
    for user in ("a=b", "a,b", "=2C", "=3D", "a,=b"):
        first = read_first(ClientScram(user, "client", lambda *_: Keys(b"", b"")).first())
        assert first == FirstMessage(user, "client", first.bare)


@pytest.mark.parametrize(
    "body",
    [
        encode_client_hello("x", {"login": 5, "data": b""}),
        encode_client_hello("x", {"login": "scram-sha-256"}),
        encode_client_hello("x", {"login": "scram-sha-256", "data": "text"}),
        encode_client_hello("x", {"login": "scram-sha-256", "data": bytes(2_000)}),
        encode_client_hello("x", {"login": "x" * 100, "data": b""}),
        encode_client_hello("x", {"login": "kerberos", "data": b""}),
    ],
)
def test_a_malformed_login_is_refused(body: bytes) -> None:
    door = Door()
    node = Connection(ServerHello(SERVER, gate=door))
    with pytest.raises(LeafdbError):
        node.receive(encode_frame(MessageType.HELLO, 0, body))
    assert (door.let_in, door.failures) == ([], [])


def test_what_strangers_send_lets_nobody_in() -> None:
    """Frames before a login, sound ones, changed ones, and pieces of a real conversation: no session, no state."""
    rng = random.Random(20_261_122)
    door = Door()
    known = verifier_of(b"pencil", SALT, SCRAM_ITERATIONS_MIN)
    keys = keys_of(b"guess", SALT, SCRAM_ITERATIONS_MIN)
    sound = [
        ClientHello("test").start(),
        ClientHello("test", ScramLogin(ClientScram("alice", "client", lambda *_: keys))).start(),
        ClientHello("test", TokenLogin("leafdb_guess")).start(),
        encode_frame(MessageType.PROOF, 0, encode_data(b"c=biws,r=clientnode,p=" + b"A" * 43 + b"=")),
        encode_frame(MessageType.PROOF, 0, encode_data(known.stored_key)),
        encode_frame(MessageType.WELCOME, 0, SERVER.encode()),
        encode_frame(MessageType.CHALLENGE, 0, encode_data(b"")),
        encode_frame(MessageType.PUT, 1, bytes(60)),
        encode_frame(MessageType.ADMIN, 1, encode_map({"verb": "user.create", "args": {}})),
        encode_frame(MessageType.ERROR, 0, b""),
    ]
    established = 0
    for _ in range(4_000):
        node = Connection(ServerHello(SERVER, gate=door))
        for _ in range(rng.randint(1, 4)):
            data = rng.choice(sound)
            if rng.random() < 0.5:
                at = rng.randrange(len(data))
                data = data[:at] + rng.randbytes(rng.randint(0, 3)) + data[at + rng.randint(0, 3) :]
            try:
                node.receive(data)
            except LeafdbError:
                break
        node.check()
        established += node.state is ConnectionState.ESTABLISHED
    assert established == 0
    assert door.let_in == []
    assert door.failures, "some of it came as far as a proof"
