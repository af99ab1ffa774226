"""What SCRAM-SHA-256 keeps of a password and proves with it (RFC 5802 section 3, RFC 7677).

    SaltedPassword = PBKDF2-HMAC-SHA256(password, salt, iterations)
    ClientKey      = HMAC(SaltedPassword, "Client Key")          StoredKey = SHA256(ClientKey)
    ServerKey      = HMAC(SaltedPassword, "Server Key")
    ClientProof    = ClientKey xor HMAC(StoredKey, AuthMessage)  ServerSignature = HMAC(ServerKey, AuthMessage)

A node keeps salt, iterations, StoredKey and ServerKey: who steals them can pose as the node, and must still guess the
password, at full cost, to pose as the user. The expensive step is the client's alone; a node pays two HMACs a login.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from leafdb.codec.fields import as_map, bytes_field, int_field
from leafdb.limits import (
    PASSWORD_BYTES_MAX,
    SCRAM_ITERATIONS_MAX,
    SCRAM_ITERATIONS_MIN,
    SCRAM_SALT_BYTES,
    SCRAM_SALT_BYTES_MAX,
)

KEY_BYTES: Final = 32
_ROOT_PERSON: Final = b"leafdb root 1"
_FAKE_SALT: Final = b"leafdb salt of nobody 1: "


class Keys(NamedTuple):
    """What a client needs of its password, once the salt is known."""

    client_key: bytes
    server_key: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Verifier:
    """What a node keeps of a password. Its text form shows none of the keys."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        return f"Verifier(iterations={self.iterations})"

    def to_wire(self) -> dict[str, Any]:
        """A plain map for CBOR."""
        return {
            "salt": self.salt,
            "iterations": self.iterations,
            "stored_key": self.stored_key,
            "server_key": self.server_key,
        }

    @classmethod
    def from_wire(cls, value: object) -> Verifier:
        """The verifier in a decoded map. Raises ValueError, whose text quotes nothing of it."""
        fields = as_map(value, "verifier")
        return cls(
            salt=bytes_field(fields, "salt", low=SCRAM_SALT_BYTES, high=SCRAM_SALT_BYTES_MAX),
            iterations=int_field(fields, "iterations", low=SCRAM_ITERATIONS_MIN, high=SCRAM_ITERATIONS_MAX),
            stored_key=bytes_field(fields, "stored_key", low=KEY_BYTES, high=KEY_BYTES),
            server_key=bytes_field(fields, "server_key", low=KEY_BYTES, high=KEY_BYTES),
        )

    def proves(self, proof: bytes, message: bytes) -> bool:
        """Whether a client's proof over `message` is that of the password."""
        if len(proof) != KEY_BYTES:
            return False
        client_key = _xor(proof, _mac(self.stored_key, message))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self.stored_key)

    def signature(self, message: bytes) -> bytes:
        """By which the node proves that it had this verifier."""
        return _mac(self.server_key, message)


def prepared(password: str) -> bytes:
    """The password as it is hashed. Raises ValueError, which does not quote it.

    SASLprep (RFC 4013) asks for tables that Unicode has left behind; as RFC 8265 does since, this takes every space for
    a plain one, composes (NFKC, so that one password typed on two keyboards is one) and refuses control characters.
    """
    text = "".join(" " if unicodedata.category(each) == "Zs" else each for each in password)
    text = unicodedata.normalize("NFKC", text)
    if any(unicodedata.category(each) in ("Cc", "Cs", "Cn") for each in text):
        raise ValueError("a password has no control characters")
    made = text.encode()
    if not 1 <= len(made) <= PASSWORD_BYTES_MAX:
        raise ValueError(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes")
    return made


def keys_of(password: bytes, salt: bytes, iterations: int) -> Keys:
    """The costly step. `password` is `prepared`."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    return Keys(_mac(salted, b"Client Key"), _mac(salted, b"Server Key"))


def verifier_of(password: bytes, salt: bytes, iterations: int) -> Verifier:
    """What a node is to keep of a `prepared` password."""
    client_key, server_key = keys_of(password, salt, iterations)
    return Verifier(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


def proof_of(keys: Keys, message: bytes) -> bytes:
    """By which a client proves that it knows the password."""
    stored_key = hashlib.sha256(keys.client_key).digest()
    return _xor(keys.client_key, _mac(stored_key, message))


def signed(keys: Keys, message: bytes, signature: bytes) -> bool:
    """Whether the node that signed had the verifier."""
    return hmac.compare_digest(_mac(keys.server_key, message), signature)


def fake_verifier(secret: bytes, user: str, iterations: int) -> Verifier:
    """For a user there is not: the same salt whenever and wherever in the cluster it is asked for, and no password.

    Who asks for a name must not learn from the answer whether anybody has it.
    """
    made = _mac(secret, _FAKE_SALT + user.encode())
    stored_key, server_key = _mac(secret, made + b"stored"), _mac(secret, made + b"server")
    return Verifier(made[:SCRAM_SALT_BYTES], iterations, stored_key, server_key)


def root_password(secret: bytes) -> bytes:
    """What whoever has the cluster's secret gives for a password, as `prepared`: it says nothing of the secret."""
    return hashlib.blake2b(secret, digest_size=32, person=_ROOT_PERSON).hexdigest().encode()


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
