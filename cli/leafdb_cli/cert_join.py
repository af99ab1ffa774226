"""How a new host gets its certificate: a token, one TLS connection, one signature.

    operator's machine, which has the CA         new host
    invite: listen, print the token
                                                 join: connect; is the certificate shown the one the token names?
                                                 <-- only then --> secret of the token, a key's request to be certified
    signs it for the NAME and hosts of the invitation, answers ca.crt and the certificate, ends

The token is good once, for as long as `invite` waits, and is never kept: 32 random bytes that admit its bearer, the
address, and the fingerprint of the CA's certificate. `invite` shows that very certificate as its own, so whoever sits
in between cannot answer without the CA's key, and the bearer sends nothing before it has seen it: not the secret, and
the key never leaves its host at all. What is certified is what the operator said, not what the bearer asks for.

    token = "leafdb-join-" base64url(version u8 = 1, fingerprint 32, secret 32, address UTF-8)
    message = length u32, JSON: {"secret": hex, "request": PEM} and {"ca": PEM, "certificate": PEM, "secret": base64}
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from leafdb.config import Address, parse_address
from leafdb.errors import ConfigError
from leafdb_cli import exits
from leafdb_cli.authority import (
    Authority,
    Subject,
    fingerprint,
    pem_of,
    write_private,
    write_public,
)
from leafdb_cli.exits import Quit

WAIT_S: Final = 600.0
JOIN_S: Final = 30.0
VISIT_S: Final = 10.0
"""How long one visitor may take in all: they come one after the other."""
MESSAGE_BYTES_MAX: Final = 1 << 16
PREFIX: Final = "leafdb-join-"
VERSION: Final = 1
SECRET_BYTES: Final = 32
DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Token:
    """What a new host is given."""

    address: Address
    fingerprint: bytes
    secret: bytes

    def __str__(self) -> str:
        packed = bytes((VERSION,)) + self.fingerprint + self.secret + str(self.address).encode()
        return PREFIX + base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")


def parse_token(text: str) -> Token:
    """Raises ConfigError."""
    body = text.strip().removeprefix(PREFIX)
    try:
        packed = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        if packed[0] != VERSION:
            raise ConfigError(f"this token is of version {packed[0]}: join with the version that made it")
        at = 1 + DIGEST_BYTES
        address = parse_address(packed[at + SECRET_BYTES :].decode())
    except (binascii.Error, ValueError, IndexError):
        raise ConfigError(f"this is not a token: it begins with {PREFIX} and is given whole") from None
    return Token(address, packed[1:at], packed[at : at + SECRET_BYTES])


# -- the operator's side


def invite(
    authority: Authority,
    subject: Subject,
    *,
    address: str,
    listen: str,
    secret: bytes,
    days: int,
    timeout_s: float,
    say: Callable[[str], None],
    note: Callable[[str], None],
) -> None:
    """Wait for the host that is to be `subject` and certify it. `say` gets the token, `note` what goes wrong. Raises
    ConfigError, OSError, Quit when nobody came."""
    here = _address("--listen", listen)
    if not address and here.wildcard:
        raise ConfigError("say where the new host reaches this machine: --address HOST:PORT")
    deadline = time.monotonic() + timeout_s
    context = _as_the_ca(authority)
    authority.issue(subject, authority.key.public_key(), days)  # whatever is wrong with it is said before anybody waits
    with socket.create_server((here.host, here.port), family=_family(here.host)) as listener:
        port = listener.getsockname()[1]
        there = _address("--address", address) if address else here._replace(port=port)
        token = Token(there, bytes.fromhex(fingerprint(authority.certificate)), os.urandom(SECRET_BYTES))
        say(str(token))
        # However many come with a wrong secret: nobody guesses 32 random bytes, so counting them would only let a
        # stranger end it.
        while (left_s := deadline - time.monotonic()) > 0:
            listener.settimeout(left_s)
            try:
                visitor, _ = listener.accept()
            except TimeoutError:
                continue
            with visitor:
                try:
                    if _receive_visitor(visitor, context, authority, subject, token, secret, days):
                        return
                    note("somebody came with a wrong secret")
                except (OSError, ValueError, KeyError, TypeError) as error:
                    note(f"a visitor left before it was certified: {error}")
    raise Quit(exits.UNAVAILABLE, "nobody came: the token is void", "invite again")


def _receive_visitor(
    visitor: socket.socket,
    context: ssl.SSLContext,
    authority: Authority,
    subject: Subject,
    token: Token,
    secret: bytes,
    days: int,
) -> bool:
    """Whether it had the token, and was certified."""
    deadline = time.monotonic() + VISIT_S
    visitor.settimeout(VISIT_S)
    with context.wrap_socket(visitor, server_side=True) as line:
        asked = _receive(line, deadline)
        if not hmac.compare_digest(bytes.fromhex(asked["secret"]), token.secret):
            return False
        request = x509.load_pem_x509_csr(str(asked["request"]).encode())
        public = request.public_key()
        if not request.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey):
            raise ValueError("its request is not signed with its key")
        certificate = authority.issue(subject, public, days)
        answer = {
            "ca": pem_of(authority.certificates).decode(),
            "certificate": pem_of([certificate]).decode(),
            "secret": base64.b64encode(secret).decode(),
        }
        _send(line, answer)
    return True


def _as_the_ca(authority: Authority) -> ssl.SSLContext:
    """A context that shows the CA's own certificate: what the token names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    key = authority.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with tempfile.NamedTemporaryFile() as file:  # nobody else's to read; OpenSSL takes keys from files only
        file.write(key + pem_of([authority.certificate]))
        file.flush()
        context.load_cert_chain(file.name)
    return context


# -- the new host's side


def join(text: str, out: Path, *, timeout_s: float) -> None:
    """Fetch ca.crt, node.crt and node.key into `out`, and `secret` where it is handed over. Raises ConfigError, Quit
    when whoever answers is not who invited, OSError."""
    token = parse_token(text)
    for name in ("ca.crt", "node.crt", "node.key", "secret"):
        if (out / name).exists():
            raise ConfigError(f"{out / name} is there already: join into another directory, or move it away")
    key = ec.generate_private_key(ec.SECP256R1())
    answer = _ask(token, key, timeout_s)
    authorities, certificate = _judged(answer, token, key)
    out.mkdir(mode=0o755, parents=True, exist_ok=True)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(out / "node.key", key_pem)
    write_public(out / "ca.crt", pem_of(authorities))
    if secret := base64.b64decode(answer["secret"]):
        write_private(out / "secret", secret)
    write_public(out / "node.crt", pem_of([certificate]))


def _ask(token: Token, key: ec.EllipticCurvePrivateKey, timeout_s: float) -> Mapping[str, Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # No CA is known yet: the token says which certificate is the right one, and that is asked before a byte is sent.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    asked = {
        "secret": token.secret.hex(),
        "request": request.public_bytes(serialization.Encoding.PEM).decode(),
    }
    deadline = time.monotonic() + timeout_s
    try:
        with (
            socket.create_connection((token.address.host, token.address.port), timeout_s) as sock,
            context.wrap_socket(sock) as line,
        ):
            shown = hashlib.sha256(line.getpeercert(binary_form=True) or b"").digest()
            if not hmac.compare_digest(shown, token.fingerprint):
                raise Quit(
                    exits.UNAUTHORIZED,
                    f"who answers at {token.address} is not who made this token: nothing was sent",
                    "ask for a new one, and whether somebody sits in between",
                )
            _send(line, asked)
            return _receive(line, deadline)
    except TimeoutError:
        raise Quit(
            exits.UNAVAILABLE,
            f"{token.address} does not answer in {timeout_s:.0f} s",
            "is leafdb cert invite still waiting there?",
        ) from None
    except (OSError, ValueError) as error:
        raise Quit(
            exits.UNAVAILABLE, f"{token.address}: {error}", "is leafdb cert invite still waiting, and the token unused?"
        ) from None


def _judged(
    answer: Mapping[str, Any], token: Token, key: ec.EllipticCurvePrivateKey
) -> tuple[list[x509.Certificate], x509.Certificate]:
    """The CAs and our certificate, if they are what was promised."""
    try:
        authorities = x509.load_pem_x509_certificates(answer["ca"].encode())
        certificate = x509.load_pem_x509_certificate(answer["certificate"].encode())
        (signer,) = [each for each in authorities if bytes.fromhex(fingerprint(each)) == token.fingerprint]
        certificate.verify_directly_issued_by(signer)
        if certificate.public_key() != key.public_key():
            raise ValueError("it is for another key")
    except (KeyError, TypeError, ValueError, InvalidSignature) as error:
        raise Quit(
            exits.FAILED, f"the answer makes no sense, and nothing was written: {error}", "invite again"
        ) from None
    return authorities, certificate


# -- both


def _send(line: ssl.SSLSocket, message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    line.sendall(len(data).to_bytes(4, "big") + data)


def _receive(line: ssl.SSLSocket, deadline: float) -> Mapping[str, Any]:
    """The next message, all of it by `deadline`. Raises OSError, TimeoutError among them, and ValueError."""
    size = int.from_bytes(_exactly(line, 4, deadline), "big")
    if size > MESSAGE_BYTES_MAX:
        raise ValueError("what it says is too long")
    try:
        found = json.loads(_exactly(line, size, deadline))
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("what it says makes no sense")
    return found


def _exactly(line: ssl.SSLSocket, size: int, deadline: float) -> bytes:
    data = b""
    while len(data) < size:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("it took too long to say what it wants")
        line.settimeout(left_s)
        part = line.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the connection was closed")
        data += part
    return data


def _address(option: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
