"""Certificates made for a test: a CA in a directory of its own, and who has one of its certificates."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from leafdb.client.tls import TLS
from leafdb.transport.tls_contexts import Contexts, TlsFiles, load
from leafdb_cli import authority
from leafdb_cli.authority import Authority, Subject

HOSTS = ("127.0.0.1", "localhost")


class Pki:
    """One cluster's CA."""

    def __init__(self, directory: Path, name: str = "test") -> None:
        self.directory = directory
        authority.found(directory, name)

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    def equip(self, subject: Subject, *, days: int = 30) -> tuple[Path, Path]:
        """A certificate and its key, new or in place of the last."""
        stem = self.directory / subject.name
        Authority.load(self.directory).equip(subject, stem, days)
        return stem.with_name(f"{subject.name}.crt"), stem.with_name(f"{subject.name}.key")

    def node(
        self, name: str = "n1", hosts: tuple[str, ...] = HOSTS, *, days: int = 30, clients: bool = False
    ) -> TlsFiles:
        """A node's files; with `clients` it wants certificates of clients."""
        certificate, key = self.equip(Subject(name, hosts), days=days)
        return TlsFiles(str(self.ca), str(certificate), str(key), str(self.ca) if clients else "")

    def client(self, name: str = "alice", *, days: int = 30) -> TLS:
        """A client that has a certificate."""
        certificate, key = self.equip(Subject(name, client=True), days=days)
        return TLS(ca_file=self.ca, cert_file=certificate, key_file=key)

    def trusting(self, **more: Any) -> TLS:
        """A client that has none."""
        return TLS(ca_file=self.ca, **more)

    def contexts(self, name: str = "n1") -> Contexts:
        """What a node of this name runs with."""
        return load(self.node(name), HOSTS[0])


class Doors:
    """Fixed contexts, for a `TlsNetwork`. A test may change them between connections."""

    def __init__(self, accepting: ssl.SSLContext, dialling: ssl.SSLContext) -> None:
        self.accepting = accepting
        self.dialling = dialling


def peer_doors(contexts: Contexts) -> Doors:
    return Doors(contexts.from_peers, contexts.to_peers)


def client_doors(contexts: Contexts) -> Doors:
    return Doors(contexts.from_clients, contexts.to_peers)
