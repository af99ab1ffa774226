"""TLS towards nodes: what a user says about it, and the context that comes of it.

    leafdb.connect("leafdbs://db1,db2", tls=leafdb.TLS(ca_file="ca.crt"))

Files are read when the client is made, so a wrong path fails there, and looked at again whenever a connection is made:
a program that runs for months takes a CA over that was exchanged, and a certificate of its own that was issued anew.
Files that have become unsound change nothing: what was read last goes on.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass

from leafdb.client.url import Address
from leafdb.errors import ConfigError
from leafdb.wire.sealed import Sealed


@dataclass(frozen=True, slots=True)
class TLS:
    """How to speak TLS with a cluster.

    Attributes:
        ca_file: certificate of the cluster's CA, in PEM. None: the CAs the system trusts.
        cert_file: certificate that says who this client is, where the cluster asks for one, in PEM.
        key_file: the key of that certificate, in PEM, without a password.
        server_name: the name nodes' certificates must hold. None: the host each node is dialled at.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None
    server_name: str | None = None


class ClientTls:
    """The context of one client. Raises ConfigError when it is made and a file is unsound. Threads may share it."""

    def __init__(self, tls: TLS) -> None:
        if not isinstance(tls, TLS):
            raise ConfigError(f"tls is a leafdb.TLS, not {type(tls).__name__}")
        self._tls = tls
        self._paths = [os.fspath(path) for path in (tls.ca_file, tls.cert_file, tls.key_file) if path is not None]
        self._stamps = self._look()
        self._context = context_of(tls)

    def sealed(self, address: Address) -> Sealed:
        """The near side of a connection to a node. Raises TlsFault for a name no certificate can be for."""
        stamps = self._look()
        if stamps != self._stamps:
            try:
                self._context = context_of(self._tls)
                self._stamps = stamps
            except ConfigError:
                pass  # half written, perhaps: the next connection looks again
        return Sealed(self._context, server_side=False, name=self._tls.server_name or address.host)

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def context_of(tls: TLS) -> ssl.SSLContext:
    """Trust and identity as `tls` has them. Raises ConfigError."""
    if tls.server_name is not None and not tls.server_name:
        raise ConfigError("server_name: is empty: leave it out, and nodes are known by the hosts they are dialled at")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if tls.ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=os.fspath(tls.ca_file))
    except ssl.SSLError as error:
        raise ConfigError(f"ca_file: {tls.ca_file} holds no certificate in PEM: {error.reason}") from None
    except OSError as error:
        raise ConfigError(f"ca_file: {tls.ca_file} cannot be read: {error.strerror}") from None
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("cert_file and key_file belong together: give both or neither")
    if tls.cert_file is not None and tls.key_file is not None:
        try:
            context.load_cert_chain(os.fspath(tls.cert_file), os.fspath(tls.key_file), password=lambda: "")
        except ssl.SSLError as error:
            raise ConfigError(
                f"cert_file: {tls.cert_file} and {tls.key_file} are not a certificate and its key, in PEM and without "
                f"a password: {error.reason}"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"cert_file: {tls.cert_file} or {tls.key_file} cannot be read: {error.strerror}"
            ) from None
    return context
