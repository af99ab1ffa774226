"""Why TLS between two sides did not come about, in words that say what to do.

OpenSSL has a number for what is wrong with a certificate it was shown, and a name for the alert by which the other side
says what is wrong with ours. Both become a `TlsFault`, which is an OSError: whoever dials treats it as any other reason
for which an address gave no connection. `why` tells apart what a program treats differently.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from leafdb.types import NODE_MARK


class Why(Enum):
    """What went wrong."""

    UNTRUSTED = "untrusted"
    """The other side's certificate is not one to be trusted."""
    REFUSED = "refused"
    """The other side does not trust ours, or wants one and got none."""
    PLAIN = "plain"
    """The other side does not speak TLS."""
    BROKEN = "broken"
    """It ended or broke before it was decided."""


class TlsFault(OSError):
    """No session under TLS. The text says why and what to do."""

    def __init__(self, message: str, why: Why) -> None:
        super().__init__(message)
        self.why = why


_EXPIRED: Final = 10
_NOT_YET: Final = 9
_WRONG_PURPOSE: Final = 26
_WRONG_NAMES: Final = frozenset({62, 64})
_UNKNOWN_ISSUER: Final = frozenset({2, 18, 19, 20, 21})

_ALERTS: Final[Mapping[str, str]] = {
    "UNKNOWN_CA": "the other side does not know the CA of our certificate: it needs that CA in its ca_file",
    "CERTIFICATE_REQUIRED": "the other side wants a certificate and was shown none: give cert_file and key_file",
    "CERTIFICATE_EXPIRED": "our certificate has run out: issue it anew (leafdb cert rotate)",
    "BAD_CERTIFICATE": "the other side does not accept our certificate: see its log",
    "CERTIFICATE_UNKNOWN": "the other side does not accept our certificate: see its log",
    "UNSUPPORTED_CERTIFICATE": "our certificate is not made for this: one for a node has another use than a client's",
    "PROTOCOL_VERSION": "the other side does not speak TLS 1.3",
}
_NOT_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "HTTP_REQUEST")


def fault_of(error: ssl.SSLError, name: str) -> TlsFault:
    """What OpenSSL's error means; `name` is whom we meant to speak to, empty for whoever comes to us."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFault(_distrust(error, name), Why.UNTRUSTED)
    reason = error.reason or ""
    for alert, text in _ALERTS.items():
        if reason.endswith(alert) and "ALERT" in reason:
            return TlsFault(text, Why.REFUSED)
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return TlsFault("it shows no certificate, and one is wanted here", Why.UNTRUSTED)
    if reason in _NOT_TLS:
        return not_tls()
    return TlsFault(f"TLS broke: {reason.lower().replace('_', ' ') or error}", Why.BROKEN)


def not_tls(said: str = "") -> TlsFault:
    """The other side answered in the clear; `said` is what it had to say."""
    hint = f", and says: {said}" if said else ": use leafdb://, or give the node its [tls] section"
    return TlsFault(f"the other side does not speak TLS here{hint}", Why.PLAIN)


def cut_off() -> TlsFault:
    """The connection ended during the TLS handshake."""
    return TlsFault(
        "the other side closed the connection during the TLS handshake: it may not speak TLS here; see its log",
        Why.BROKEN,
    )


def cut_off_behind() -> TlsFault:
    """It ended with our handshake: the other side judges our certificate only then, and its alert may get lost."""
    return TlsFault(
        "the other side closed the connection when the TLS handshake was over: it may want a certificate, or another "
        "one (cert_file, key_file); see its log",
        Why.REFUSED,
    )


def is_node(certificate: Mapping[str, Any]) -> bool:
    """Whether a verified certificate is a node's."""
    return any(kind == "URI" and name.startswith(NODE_MARK) for kind, name in certificate.get("subjectAltName", ()))


def _distrust(error: ssl.SSLCertVerificationError, name: str) -> str:
    code = error.verify_code
    if code in _WRONG_NAMES:
        return (
            f"its certificate is not for {name}: connect by a name it has, or issue it with --host {name} "
            "(leafdb cert show tells its names)"
        )
    if code == _EXPIRED:
        return "its certificate, or its CA's, has run out: issue it anew (leafdb cert rotate)"
    if code == _NOT_YET:
        return "its certificate is not valid yet: compare the clocks of the two machines"
    if code == _WRONG_PURPOSE:
        return "its certificate is not made for this: one for a node has another use than a client's"
    if code in _UNKNOWN_ISSUER:
        return (
            "its certificate is not from a CA in our ca_file: this is another cluster, or somebody in between, or a "
            "CA that was exchanged"
        )
    return f"its certificate does not verify: {error.verify_message}"
