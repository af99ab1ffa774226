"""Who a client is, inside its handshake: two ways to say so, and what the node asks of its own side. Sans-I/O.

    client                                          node
    HELLO {.., "login": mechanism, "data": first} ->
                                                 <- CHALLENGE {"data"}            scram-sha-256 only
    PROOF {"data"}                               ->                               scram-sha-256 only
                                                 <- WELCOME {.., "user", "data"}  or ERROR unauthorized, then the end

A client that says who it is goes on with no node that took no notice of it: older nodes welcome everybody, and so would
somebody in the middle. With a password the node proves in WELCOME that it knows the user; with a token nothing proves
the node but TLS, so a token is sent over TLS or loopback only, and taken over nothing else.

Nothing of a failed login is told apart: who asks learns neither whether there is such a user nor what was wrong.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Protocol

from leafdb.codec.fields import bytes_field
from leafdb.errors import NotApplied, Reason
from leafdb.limits import SCRAM_MESSAGE_BYTES_MAX
from leafdb.model.scram import Verifier
from leafdb.wire.body import decode_map, encode_map, refusing, text_field
from leafdb.wire.scram import ClientScram, NodeScram, read_first

MECHANISM_CHARS_MAX: Final = 32


class Mechanism(StrEnum):
    """How a client says who it is; the names cross the wire."""

    SCRAM = "scram-sha-256"
    TOKEN = "token"  # noqa: S105 - the name of the mechanism


class Login(Protocol):
    """A client's side of one login."""

    mechanism: Mechanism

    def first(self) -> bytes:
        """What goes with HELLO."""

    def answer(self, challenge: bytes) -> bytes:
        """What answers a CHALLENGE; this may cost a fraction of a second. Raises ProtocolError."""

    def verify(self, data: bytes) -> None:
        """What came with WELCOME. Raises ProtocolError when the node has not proved what it has to."""


class ScramLogin:
    """A password, by SCRAM-SHA-256."""

    mechanism = Mechanism.SCRAM

    def __init__(self, scram: ClientScram) -> None:
        self._scram = scram

    def first(self) -> bytes:
        """The client's first message."""
        return self._scram.first()

    def answer(self, challenge: bytes) -> bytes:
        """Its final one."""
        return self._scram.final(challenge)

    def verify(self, data: bytes) -> None:
        """The node's signature."""
        self._scram.verify(data)


class TokenLogin:
    """A token, as it is. Whoever makes one has seen to it that nobody else can read the connection."""

    mechanism = Mechanism.TOKEN

    def __init__(self, text: str) -> None:
        self._text = text

    def first(self) -> bytes:
        """The token."""
        return self._text.encode()

    def answer(self, challenge: bytes) -> bytes:
        """There is nothing to add."""
        raise NotApplied("the node asks for more than the token", reason=Reason.UNAUTHORIZED)

    def verify(self, data: bytes) -> None:
        """The node proves nothing here: TLS has."""


class Gate(Protocol):
    """What a node's side of a login asks of the node; one for each connection. Refusals are raised."""

    def anonymous(self) -> None:
        """A client says nothing of who it is. Raises NotApplied where that will not do."""

    def begin(self, mechanism: str) -> None:
        """A login begins. Raises Overloaded when too many of this source have failed, NotApplied where this mechanism
        is not to be had."""

    def hold_up(self) -> None:
        """A proof has come. Raises Overloaded when too many of this source have failed since: any number of its logins
        may be under way at once, and each would be a guess."""

    def nonce(self) -> str:
        """Fresh, printable, without commas."""

    def verifier(self, user: str) -> Verifier:
        """What is kept of the user's password; of nobody's, when there is no such user."""

    def by_password(self, user: str) -> object:
        """Whoever has proved to know the password of that verifier; None: there is no such user. Opaque here."""

    def by_token(self, text: str) -> tuple[object, str]:
        """Whoever has that token, and the user's name; (None, ""): nobody."""

    def failed(self, mechanism: Mechanism, user: str) -> None:
        """A login came to nothing; `user` is what the client called itself, empty for a token."""


class NodeLogin:
    """The node's side, once HELLO has come with a login."""

    __slots__ = ("_gate", "_scram", "_user")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._scram: NodeScram | None = None
        self._user = ""

    def begin(self, mechanism: str, data: bytes) -> bytes | tuple[object, str]:
        """A challenge, or (who it is, name). Raises ProtocolError, NotApplied, Overloaded."""
        self._gate.begin(mechanism)
        match mechanism:
            case Mechanism.SCRAM:
                first = read_first(data)
                self._user = first.user
                self._scram = NodeScram(first, self._gate.verifier(first.user), self._gate.nonce())
                return self._scram.challenge()
            case Mechanism.TOKEN:
                principal, user = self._gate.by_token(data.decode(errors="replace"))
                if principal is None:
                    self._gate.failed(Mechanism.TOKEN, "")
                    raise rejected()
                return principal, user
            case _:
                known = " and ".join(Mechanism)
                raise NotApplied(f"this node knows the logins {known}", reason=Reason.UNAUTHORIZED)

    def prove(self, data: bytes) -> tuple[object, str, bytes]:
        """(who it is, name, the node's own proof). Raises ProtocolError, NotApplied, Overloaded."""
        assert self._scram is not None, "a proof answers a challenge"
        self._gate.hold_up()
        signature = self._scram.answer(data)
        principal = None if signature is None else self._gate.by_password(self._user)
        if signature is None or principal is None:
            self._gate.failed(Mechanism.SCRAM, self._user)
            raise rejected()
        return principal, self._user, signature


def rejected() -> NotApplied:
    """What every failed login is told."""
    return NotApplied("the login was rejected: wrong user, password or token", reason=Reason.UNAUTHORIZED)


def wanted() -> NotApplied:
    """What a client is told that does not say who it is."""
    told = "this cluster asks who you are: connect with auth=leafdb.Scram(user, password) or leafdb.Token(text)"
    return NotApplied(told, reason=Reason.UNAUTHORIZED)


def login_fields(login: Login | None) -> dict[str, Any]:
    """What a HELLO says beyond the rest."""
    return {} if login is None else {"login": login.mechanism.value, "data": login.first()}


@refusing("a client's hello")
def read_login(body: bytes) -> tuple[str, bytes] | None:
    """(mechanism, data) of a HELLO; None when it says nothing of who sends it."""
    fields = decode_map(body, "a client's hello")
    if "login" not in fields:
        return None
    return text_field(fields, "login", chars_max=MECHANISM_CHARS_MAX), _data(fields)


@refusing("a login message")
def read_data(body: bytes) -> bytes:
    """The message in a CHALLENGE or PROOF of a login."""
    return _data(decode_map(body, "a login message"))


def encode_data(data: bytes) -> bytes:
    """The body of such a frame."""
    return encode_map({"data": data})


def _data(fields: Any) -> bytes:
    return bytes_field(fields, "data", high=SCRAM_MESSAGE_BYTES_MAX)
