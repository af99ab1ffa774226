"""`leafdb://HOST[:PORT][,HOST[:PORT]...]`: the addresses a client starts from; `leafdbs://` to speak TLS with them.

An address is written `host:port` everywhere (an IPv6 host in brackets); that text is also the name by which routing,
errors and connections know a node's door. Only what this version can do is accepted: an option it would have to ignore
is a ConfigError, for silence would be a promise.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from leafdb.errors import ConfigError

DEFAULT_PORT: Final = 7411
_SCHEME: Final = "leafdb://"
_TLS_SCHEME: Final = "leafdbs://"
_HOST: Final = re.compile(r"[A-Za-z0-9._~-]+")
_ADDRESSES_MAX: Final = 1_024


class Address(NamedTuple):
    """Where a node listens for clients."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_url(url: str) -> tuple[Address, ...]:
    """The addresses of a URL, in its order, each once. Raises ConfigError."""
    if not isinstance(url, str):
        raise ConfigError(f"a leafdb URL is a str, not {type(url).__name__}")
    if not url.startswith((_SCHEME, _TLS_SCHEME)):
        raise ConfigError(f"a leafdb URL starts with {_SCHEME}, or with {_TLS_SCHEME} for TLS")
    rest = url.partition("://")[2]
    if "@" in rest:
        raise ConfigError("a leafdb URL carries no user or password: secrets do not belong in URLs")
    rest, _, query = rest.partition("?")
    rest = rest.removesuffix("/")
    if query or "/" in rest or "#" in rest:
        raise ConfigError("a leafdb URL holds addresses only: no path, no options")
    parts = rest.split(",")
    if len(parts) > _ADDRESSES_MAX:
        raise ConfigError(f"a leafdb URL names at most {_ADDRESSES_MAX} addresses")
    return tuple(dict.fromkeys(parse_address(part) for part in parts))


def wants_tls(url: str) -> bool:
    """Whether a URL that parses says that TLS is to be spoken."""
    return url.startswith(_TLS_SCHEME)


def parse_address(text: str) -> Address:
    """`host`, `host:port`, `[ipv6]` or `[ipv6]:port`. Raises ConfigError."""
    if text.startswith("["):
        host, closed, tail = text[1:].partition("]")
        if not closed or ":" not in host or not re.fullmatch(r"[0-9A-Fa-f:.%a-z0-9]+", host):
            raise ConfigError(f"{text!r} is not an address: an IPv6 host is written [::1] or [::1]:7411")
    else:
        host, colon, port_text = text.partition(":")
        tail = colon + port_text
        if ":" in port_text:
            raise ConfigError(f"{text!r} is not an address: put an IPv6 host in brackets")
        if not _HOST.fullmatch(host):
            raise ConfigError(f"{text!r} is not an address: host or host:port is wanted")
    if not tail:
        return Address(host, DEFAULT_PORT)
    number = tail[1:]
    if tail[0] != ":" or not number.isascii() or not number.isdigit() or not 0 < int(number[:6]) < 65_536:
        raise ConfigError(f"{text!r} is not an address: the port is a number from 1 to 65535")
    return Address(host, int(number))
