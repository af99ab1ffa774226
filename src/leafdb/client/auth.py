"""Who a client is: `Scram(user, password)` or `Token(text)`, given to `connect(auth=...)`. Neither is ever shown.

A password never leaves the process (SCRAM-SHA-256), and the node proves that it knows the user. What it costs to turn
the password into a key, a sixth of a second, is paid once per salt and kept; a fresh connection pays microseconds.

A token is sent as it is, so only where nobody can read it: over TLS, or to an address of this machine.
"""

from __future__ import annotations

import base64
import ipaddress
import os
from threading import Lock
from typing import Any, Final, TypeAlias

from leafdb.client.url import Address
from leafdb.errors import ConfigError
from leafdb.limits import ACCOUNT_NAME_BYTES_MAX, SCRAM_ITERATIONS, SCRAM_SALT_BYTES
from leafdb.model.scram import Keys, keys_of, prepared, root_password, verifier_of
from leafdb.wire.login import Login, ScramLogin, TokenLogin
from leafdb.wire.scram import ClientScram

NONCE_BYTES: Final = 18
KEYS_KEPT_MAX: Final = 8
TOKEN_CHARS_MAX: Final = 512
ROOT_USER: Final = "@cluster"
"""Whoever has the cluster's own secret (docs/operations/accounts.md)."""


class Scram:
    """A user and a password, which stays here: nodes never see it, and no text form shows it."""

    __slots__ = ("_keys", "_lock", "_password", "user")

    def __init__(self, user: str, password: str) -> None:
        """Raises ConfigError, which does not quote the password."""
        if not isinstance(user, str) or not isinstance(password, str):
            raise ConfigError("Scram takes a user and a password, both text")
        if not user or not user.isprintable() or len(user.encode()) > ACCOUNT_NAME_BYTES_MAX:
            raise ConfigError(f"a user's name is printable text of 1 to {ACCOUNT_NAME_BYTES_MAX} bytes")
        try:
            self._password = prepared(password)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.user: str = user
        self._lock = Lock()
        self._keys: dict[tuple[bytes, int], Keys] = {}

    def __repr__(self) -> str:
        return f"Scram({self.user!r}, ...)"

    def __reduce__(self) -> tuple[object, ...]:
        raise ConfigError("a password is not pickled: make the Scram anew where it is needed")

    def login(self) -> Login:
        """One login's client side."""
        nonce = base64.b64encode(os.urandom(NONCE_BYTES)).decode()
        return ScramLogin(ClientScram(self.user, nonce, self._keys_for))

    def _keys_for(self, salt: bytes, iterations: int) -> Keys:
        with self._lock:  # threads that connect at once wait for who is at it already
            kept = self._keys.get((salt, iterations))
            if kept is None:
                kept = keys_of(self._password, salt, iterations)
                while len(self._keys) >= KEYS_KEPT_MAX:
                    del self._keys[next(iter(self._keys))]
                self._keys[(salt, iterations)] = kept
            return kept


class Token:
    """The text of a token that `leafdb token create` has shown once. No text form shows it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Raises ConfigError, which does not quote it."""
        if not isinstance(text, str):
            raise ConfigError("a token is text")
        self._text = text.strip()
        if not self._text.isascii() or not self._text.isprintable() or not 1 <= len(self._text) <= TOKEN_CHARS_MAX:
            raise ConfigError("this is no token: leafdb token create makes one")

    def __repr__(self) -> str:
        return "Token(...)"

    def __reduce__(self) -> tuple[object, ...]:
        raise ConfigError("a token is not pickled: make the Token anew where it is needed")

    def login(self) -> Login:
        """One login's client side."""
        return TokenLogin(self._text)


def verifier_for(password: str) -> dict[str, Any]:
    """What the nodes are to keep of a new password, with a fresh salt. It costs a sixth of a second.

    Raises ConfigError, which does not quote it.
    """
    try:
        made = prepared(password)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return verifier_of(made, os.urandom(SCRAM_SALT_BYTES), SCRAM_ITERATIONS).to_wire()


Auth: TypeAlias = Scram | Token


def checked_auth(auth: object) -> Auth | None:
    """What `connect` was given. Raises ConfigError."""
    if auth is None or isinstance(auth, Scram | Token):
        return auth
    raise ConfigError("auth is leafdb.Scram(user, password), leafdb.Token(text) or None")


def login_at(auth: Auth | None, address: Address, *, encrypted: bool) -> Login | None:
    """The login to a node at this address. Raises ConfigError for a token that others could read on its way."""
    if isinstance(auth, Token) and not encrypted and not _is_here(address.host):
        raise ConfigError(
            f"a token is sent over TLS (leafdbs://) or to this machine only, not to {address} in the clear"
        )
    return None if auth is None else auth.login()


def cluster_login(secret: bytes) -> Scram:
    """Who has the cluster's secret may do everything: how the first user is made."""
    return Scram(ROOT_USER, root_password(secret).decode())


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
