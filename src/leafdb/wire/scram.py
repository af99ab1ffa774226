"""The four messages of SCRAM-SHA-256 (RFC 5802 section 7, RFC 7677), sans-I/O: one class for each side.

    client first   n,,n=USER,r=NONCE
    node first     r=NONCE+NONCE,s=SALT,i=ITERATIONS
    client final   c=biws,r=NONCE+NONCE,p=PROOF
    node final     v=SIGNATURE

Left out: channel binding (`n,,` says so; Python's ssl offers none that TLS 1.3 defines), authorization identities, and
mandatory extensions, which are refused as the RFC says. What follows a message's last attribute is ignored.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from typing import Final, NamedTuple

from leafdb.errors import ProtocolError
from leafdb.limits import (
    SCRAM_ITERATIONS_MAX,
    SCRAM_ITERATIONS_MIN,
    SCRAM_MESSAGE_BYTES_MAX,
    SCRAM_SALT_BYTES_MAX,
)
from leafdb.model.scram import KEY_BYTES, Keys, Verifier, proof_of, signed

_GS2: Final = "n,,"
_BINDING: Final = "c=biws"
"""Base64 of "n,,"."""
_ITERATIONS_CHARS_MAX: Final = len(str(SCRAM_ITERATIONS_MAX))


class FirstMessage(NamedTuple):
    """What a client's first message says."""

    user: str
    nonce: str
    bare: str
    """Without its gs2 header: as it goes under the proof."""


class ClientScram:
    """The client's side. `keys` turns salt and iterations into keys, which costs; `nonce` is fresh and printable."""

    __slots__ = ("_auth_message", "_bare", "_keys", "_keys_used", "_nonce")

    def __init__(self, user: str, nonce: str, keys: Callable[[bytes, int], Keys]) -> None:
        self._nonce = nonce
        self._keys = keys
        self._bare = f"n={_escaped(user)},r={nonce}"
        self._auth_message = b""
        self._keys_used: Keys | None = None

    def first(self) -> bytes:
        """The first message."""
        return (_GS2 + self._bare).encode()

    def final(self, message: bytes, *, iterations_min: int = SCRAM_ITERATIONS_MIN) -> bytes:
        """The answer to the node's first message. Raises ProtocolError.

        A node that asks for few iterations would get proofs that are cheap to guess from, so it gets none.
        """
        if self._keys_used is not None:
            raise ProtocolError("a second challenge: a login has one, and each costs this side a key")
        text = _text(message)
        fields = _fields(text, "rsi")
        nonce = fields["r"]
        if not nonce.startswith(self._nonce) or len(nonce) <= len(self._nonce):
            raise ProtocolError("a login of another connection: the nonces differ")
        salt = _from_base64(fields["s"])
        if not 1 <= len(salt) <= SCRAM_SALT_BYTES_MAX:
            raise ProtocolError("a login with a salt that is too long")
        count = fields["i"]
        few_digits = count.isascii() and count.isdigit() and len(count) <= _ITERATIONS_CHARS_MAX
        if not (few_digits and iterations_min <= int(count) <= SCRAM_ITERATIONS_MAX):
            raise ProtocolError(f"a login with {count[:9]} iterations, not {iterations_min} to {SCRAM_ITERATIONS_MAX}")
        without_proof = f"{_BINDING},r={nonce}"
        self._auth_message = f"{self._bare},{text},{without_proof}".encode()
        self._keys_used = self._keys(salt, int(count))
        proof = _base64(proof_of(self._keys_used, self._auth_message))
        return f"{without_proof},p={proof}".encode()

    def verify(self, message: bytes) -> None:
        """Take the node's last message. Raises ProtocolError when the node has not shown that it knows the user."""
        if self._keys_used is None:
            raise ProtocolError("the node did not ask for the password before it took it for given")
        signature = _from_base64(_fields(_text(message), "v")["v"])
        if not signed(self._keys_used, self._auth_message, signature):
            raise ProtocolError("the node did not prove that it knows this user: it is not who it says it is")


class NodeScram:
    """The node's side of one login, from the client's first message on. `nonce` is fresh and printable."""

    __slots__ = ("_auth_message", "_first", "_nonce", "_server_first", "_verifier")

    def __init__(self, first: FirstMessage, verifier: Verifier, nonce: str) -> None:
        self._first = first
        self._verifier = verifier
        self._nonce = first.nonce + nonce
        self._server_first = f"r={self._nonce},s={_base64(verifier.salt)},i={verifier.iterations}"

    def challenge(self) -> bytes:
        """The node's first message."""
        return self._server_first.encode()

    def answer(self, message: bytes) -> bytes | None:
        """The node's last message, or None when the proof does not hold. Raises ProtocolError for what is none."""
        text = _text(message)
        fields = _fields(text, "crp")
        without_proof = text.rpartition(",p=")[0]
        if f"c={fields['c']}" != _BINDING or fields["r"] != self._nonce:
            raise ProtocolError("a login of another connection, or with channel binding")
        proof = _from_base64(fields["p"])
        if len(proof) != KEY_BYTES:
            raise ProtocolError("a login with a proof of the wrong size")
        auth_message = f"{self._first.bare},{self._server_first},{without_proof}".encode()
        if not self._verifier.proves(proof, auth_message):
            return None
        return f"v={_base64(self._verifier.signature(auth_message))}".encode()


def read_first(message: bytes) -> FirstMessage:
    """What a client's first message says. Raises ProtocolError."""
    text = _text(message)
    if not text.startswith(_GS2):
        raise ProtocolError("a login with channel binding or an authorization identity: this version knows neither")
    bare = text.removeprefix(_GS2)
    fields = _fields(bare, "nr")
    if not fields["r"]:
        raise ProtocolError("a login without a nonce")
    return FirstMessage(_unescaped(fields["n"]), fields["r"], bare)


def _text(message: bytes) -> str:
    if len(message) > SCRAM_MESSAGE_BYTES_MAX:
        raise ProtocolError(f"a login message of more than {SCRAM_MESSAGE_BYTES_MAX} bytes")
    try:
        return message.decode()
    except UnicodeDecodeError:
        raise ProtocolError("a login message that is no text") from None


def _fields(text: str, names: str) -> dict[str, str]:
    """The attributes that begin a message, which have to be these in this order."""
    fields = {}
    parts = text.split(",")
    if len(parts) < len(names):
        raise ProtocolError("a login message that is too short")
    for name, part in zip(names, parts, strict=False):
        if part[:2] != f"{name}=":
            raise ProtocolError(f"a login message without {name}= where it belongs")
        fields[name] = part[2:]
    return fields


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def _from_base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (ValueError, binascii.Error):
        raise ProtocolError("a login message with malformed base64") from None


def _escaped(user: str) -> str:
    return user.replace("=", "=3D").replace(",", "=2C")


def _unescaped(name: str) -> str:
    plain = name.replace("=2C", ",").replace("=3D", "\x00")
    if "=" in plain or not plain:
        raise ProtocolError("a login with a malformed name")
    return plain.replace("\x00", "=")
