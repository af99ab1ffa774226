"""The cluster's certificate authority: two files in a directory, and the certificates made with them.

    DIR/ca.crt    certificates of the CA in PEM, the one that signs first; a second one while one CA follows another
    DIR/ca.key    the key that signs, mode 0600: whoever has it can make nodes. Nodes do not need it.

What a certificate says. A node's: the hosts it is reached at, a URI `urn:leafdb:node:NAME`, and the uses of both sides,
for a node dials and is dialled. A client's: a URI `urn:leafdb:client:NAME` and the client's use alone. Keys are of
P-256: the fastest signatures OpenSSL has for TLS, and every hardware token's curve. Nothing is valid for longer than
the CA that signed it, and everything from an hour ago on, for clocks that differ.

A CA follows another in three steps, none of which cuts anybody off: `begin_rotation` puts the certificate of a new CA
before the old one's and signs with the new key from then on; nodes and clients are given ca.crt, then certificates of
the new CA; `finish_rotation` takes the old one out of ca.crt.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from leafdb.errors import ConfigError
from leafdb.types import CLIENT_MARK, NODE_MARK
from leafdb_cli.credentials import secret_in

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
CA_DAYS: Final = 3_650
DAYS: Final = 397
CLOCKS_DIFFER: Final = datetime.timedelta(hours=1)
HOSTS_MAX: Final = 64
PEM_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for."""

    name: str
    hosts: tuple[str, ...] = ()
    """Where a node is reached; a client has none."""
    client: bool = False


@dataclass(frozen=True, slots=True)
class Described:
    """What a certificate says."""

    kind: str
    """ca, node, client, or other for one that no CA of ours made."""
    name: str
    hosts: tuple[str, ...]
    issuer: str
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str
    """SHA-256 of its DER, in hexadecimal."""


def utc_now() -> datetime.datetime:
    """The time certificates are judged by."""
    return datetime.datetime.now(datetime.UTC)


# -- the CA


def found(directory: Path, name: str, days: int = CA_DAYS) -> x509.Certificate:
    """Make a CA for the cluster `name` in a directory that has none. Raises ConfigError, OSError."""
    _check_name(name)
    for path in (directory / "ca.crt", directory / "ca.key"):
        if path.exists():
            raise ConfigError(f"{path} is there already: leafdb cert rotate --authority replaces a CA")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(name, key, days)
    write_private(directory / "ca.key", _key_pem(key))
    write_public(directory / "ca.crt", pem_of([certificate]))
    return certificate


def begin_rotation(directory: Path, days: int = CA_DAYS) -> x509.Certificate:
    """Have another CA follow the one in this directory; both are trusted from now on. Raises ConfigError."""
    authority = Authority.load(directory)
    if len(authority.certificates) > 1:
        raise ConfigError(
            f"{directory / 'ca.crt'} holds two CAs already: leafdb cert rotate --authority --finish first"
        )
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _self_signed(_cluster_of(authority.certificates[0]), key, days)
    # In this order: a ca.crt with a certificate too many trusts nobody who is not to be trusted, whatever comes next.
    write_public(directory / "ca.crt", pem_of([certificate, *authority.certificates]))
    write_private(directory / "ca.key", _key_pem(key))
    return certificate


def finish_rotation(directory: Path) -> list[x509.Certificate]:
    """Trust the CA that signs, and no other; those that are trusted no more. Raises ConfigError."""
    authority = Authority.load(directory)
    gone = [certificate for certificate in authority.certificates if certificate != authority.certificate]
    if not gone:
        raise ConfigError(f"{directory / 'ca.crt'} holds one CA: there is nothing to finish")
    write_public(directory / "ca.crt", pem_of([authority.certificate]))
    return gone


class Authority:
    """A CA with its key, as a directory has it."""

    def __init__(self, certificates: Sequence[x509.Certificate], key: ec.EllipticCurvePrivateKey, where: Path) -> None:
        self.certificates = list(certificates)
        self.key = key
        public = key.public_key()
        mine = [each for each in certificates if each.public_key() == public]
        if not mine:
            raise ConfigError(f"{where / 'ca.key'} is not the key of a certificate in {where / 'ca.crt'}")
        self.certificate = mine[0]
        """The one that signs."""

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """Raises ConfigError."""
        certificates = certificates_in(directory / "ca.crt")
        try:
            key = serialization.load_pem_private_key(secret_in(str(directory / "ca.key"), "--ca"), password=None)
        except (ValueError, TypeError):
            raise ConfigError(f"{directory / 'ca.key'} is not a key in PEM without a password") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{directory / 'ca.key'} is no key of a CA made by leafdb cert init")
        return cls(certificates, key, directory)

    def subject_of(self, path: Path) -> Subject:
        """Whom a certificate of this CA is for, so that another can take its place. ConfigError for any other: the file
        may come from somebody who would like to be somebody else."""
        certificate = certificates_in(path)[0]
        said = describe(certificate)
        if said.kind not in ("node", "client"):
            raise ConfigError(f"{path} is no node's and no client's certificate, but of kind {said.kind}")
        if not any(_issued(each, certificate) for each in self.certificates):
            raise ConfigError(f"{path} is not from this CA: leafdb cert issue {said.name} makes one that is")
        return Subject(said.name, said.hosts, client=said.kind == "client")

    def issue(self, subject: Subject, public: ec.EllipticCurvePublicKey, days: int = DAYS) -> x509.Certificate:
        """A certificate for the holder of a key. Raises ConfigError."""
        _check_subject(subject)
        now = utc_now()
        mark = CLIENT_MARK if subject.client else NODE_MARK
        names: list[x509.GeneralName] = [_general_name(host) for host in subject.hosts]
        names.append(x509.UniformResourceIdentifier(mark + subject.name))
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if not subject.client:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.name)]))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCKS_DIFFER)
            .not_valid_after(min(now + datetime.timedelta(days=days), self.certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def equip(self, subject: Subject, stem: Path, days: int = DAYS) -> x509.Certificate:
        """Write STEM.crt and STEM.key, new or in place of what is there. Raises ConfigError, OSError."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.issue(subject, key.public_key(), days)
        write_private(with_suffix(stem, ".key"), _key_pem(key))
        write_public(with_suffix(stem, ".crt"), pem_of([certificate]))
        return certificate


# -- reading


def certificates_in(path: Path) -> list[x509.Certificate]:
    """All of a PEM file; ConfigError when there is none."""
    try:
        with path.open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(PEM_BYTES_MAX))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path} holds no certificate in PEM") from None
    return found


def describe(certificate: x509.Certificate) -> Described:
    """What it says."""
    hosts: list[str] = []
    kind, name = "other", _common_name(certificate.subject)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    for each in names or ():
        if isinstance(each, x509.DNSName | x509.IPAddress):
            hosts.append(str(each.value))
        elif isinstance(each, x509.UniformResourceIdentifier):
            for mark, is_of in ((NODE_MARK, "node"), (CLIENT_MARK, "client")):
                if each.value.startswith(mark):
                    kind, name = is_of, each.value.removeprefix(mark)
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            kind = "ca"
    except x509.ExtensionNotFound:
        pass
    return Described(
        kind=kind,
        name=name,
        hosts=tuple(hosts),
        issuer=_common_name(certificate.issuer),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=fingerprint(certificate),
    )


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, in hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _issued(ca: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# -- writing


def pem_of(certificates: Sequence[x509.Certificate]) -> bytes:
    """One after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def write_private(path: Path, content: bytes) -> None:
    """Put a file in place at once, for its owner's eyes alone."""
    _write(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Put a file in place at once, for everybody to read."""
    _write(path, content, 0o644)


def with_suffix(stem: Path, suffix: str) -> Path:
    """`stem` with another end. A name may hold dots: nothing is taken off."""
    return stem.with_name(stem.name + suffix)


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    beside.replace(path)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _self_signed(name: str, key: ec.EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    now = utc_now()
    serial = x509.random_serial_number()
    # Two CAs of one cluster have two names: a verifier looks issuers up by name.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"leafdb CA of {name} {serial % (1 << 32):08x}")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _cluster_of(certificate: x509.Certificate) -> str:
    return _common_name(certificate.subject).removeprefix("leafdb CA of ").rpartition(" ")[0]


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _check_subject(subject: Subject) -> None:
    _check_name(subject.name)
    if subject.client and subject.hosts:
        raise ConfigError("a client's certificate names no hosts: nobody dials a client")
    if not subject.client and not subject.hosts:
        raise ConfigError("a node's certificate names every host the node is reached at: give --host, once for each")
    if len(subject.hosts) > HOSTS_MAX:
        raise ConfigError(f"a certificate names at most {HOSTS_MAX} hosts")
    for host in subject.hosts:
        if not re.fullmatch(r"[A-Za-z0-9_*]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:]+", host):
            raise ConfigError(f"{host!r} is not a host: give a name or an address, without a port or brackets")


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name: 1 to 63 of a-z, 0-9, dot, dash and underscore")
