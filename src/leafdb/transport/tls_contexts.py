"""From a node's TLS files to what its connections are made with, or to what is wrong with the files.

Three contexts from one certificate and key: for nodes that come, for nodes we go to, for clients. All of them speak TLS
1.3 and nothing older: both ends are ours, so nobody needs it, and 1.3 has neither renegotiation nor weak ciphers to
switch off. There is no resumption (no tickets): every connection proves itself anew, so a certificate that was
exchanged is out of use with the next connection, and a session of a node lasts for days anyway.

Files are tried before they are believed: the node shakes hands with itself, in memory, by the host others will dial.
What would keep them out (another key, another CA, a name that is missing, a certificate that has run out or is a
client's) is found here, at the start or at the reload, in the words they would have got.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

from leafdb.errors import ConfigError
from leafdb.wire.sealed import Sealed
from leafdb.wire.tls_fault import TlsFault, is_node

FLIGHTS_MAX: Final = 8
"""More than any handshake of one side with the other takes."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where they are. All PEM; `client_ca` is empty where clients show no certificate."""

    ca: str
    cert: str
    key: str
    client_ca: str = ""

    def paths(self) -> tuple[str, ...]:
        """All that are named."""
        return tuple(path for path in (self.ca, self.cert, self.key, self.client_ca) if path)


@dataclass(frozen=True, slots=True)
class Contexts:
    """What connections are made with, until the files change."""

    from_peers: ssl.SSLContext
    to_peers: ssl.SSLContext
    from_clients: ssl.SSLContext
    not_after: float
    """When this node's certificate runs out, in unix seconds."""
    ca_not_after: float
    """When the last CA that is trusted does."""


def load(files: TlsFiles, host: str) -> Contexts:
    """Read the files; `host` is where others reach this node. ConfigError that names the file and what to do."""
    from_peers = _serving(files)
    _trust(from_peers, files.ca, "tls.ca_file")
    from_peers.verify_mode = ssl.CERT_REQUIRED
    to_peers = _modern(ssl.PROTOCOL_TLS_CLIENT)
    _identify(to_peers, files)
    _trust(to_peers, files.ca, "tls.ca_file")
    from_clients = _serving(files)
    if files.client_ca:
        _trust(from_clients, files.client_ca, "tls.client_ca_file")
        from_clients.verify_mode = ssl.CERT_REQUIRED
    try:
        certificate = rehearse(to_peers, from_peers, host)
    except TlsFault as fault:
        raise ConfigError(f"tls.cert_file: with {files.cert} other nodes would refuse this one: {fault}") from None
    if not is_node(certificate):
        raise ConfigError(f"tls.cert_file: {files.cert} is not a node's: leafdb cert issue makes one that is")
    return Contexts(
        from_peers,
        to_peers,
        from_clients,
        ssl.cert_time_to_seconds(str(certificate["notAfter"])),
        max(ssl.cert_time_to_seconds(str(ca["notAfter"])) for ca in to_peers.get_ca_certs()),
    )


def rehearse(to_peers: ssl.SSLContext, from_peers: ssl.SSLContext, host: str) -> dict[str, object]:
    """Both sides of a handshake in memory; the certificate as the dialler saw it. Raises TlsFault."""
    dialler = Sealed(to_peers, server_side=False, name=host)
    acceptor = Sealed(from_peers, server_side=True)
    said = b""
    for _ in range(FLIGHTS_MAX):
        satisfied = dialler.shake(said)
        if acceptor.shake(dialler.take()) and satisfied:
            return dict(dialler.certificate())
        said = acceptor.take()
    raise AssertionError("a handshake in memory does not come to an end")


def _modern(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def _serving(files: TlsFiles) -> ssl.SSLContext:
    context = _modern(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    _identify(context, files)
    return context


def _identify(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        # Without a password of ours OpenSSL would ask the terminal for one.
        context.load_cert_chain(files.cert, files.key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"tls.key_file: {files.key} is not the key of the certificate {files.cert}") from None
        raise ConfigError(
            f"tls.cert_file: {files.cert} and {files.key} cannot be read as a certificate and its key, in PEM and "
            f"without a password: {error.reason or error}"
        ) from None
    except OSError as error:
        raise ConfigError(f"tls.cert_file: {files.cert} or {files.key} cannot be read: {error.strerror}") from None


def _trust(context: ssl.SSLContext, path: str, setting: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise ConfigError(f"{setting}: {path} holds no certificates in PEM: {error.reason or error}") from None
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror}") from None
    if not context.get_ca_certs():
        raise ConfigError(f"{setting}: {path} holds no certificate of a CA")
