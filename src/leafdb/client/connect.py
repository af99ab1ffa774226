"""`connect` and `connect_async`: from a URL to a client. The seam for everything else that is a client, too.

`client_over` and `async_client_over` make the same clients over any dialer: an embedded node hands over one end of a
socket pair, a test an in-memory stream. Drivers are imported when they are asked for, so a synchronous program never
loads anyio.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from leafdb.client.core import Core, Routing
from leafdb.client.options import Seconds
from leafdb.client.url import Address, parse_url, wants_tls
from leafdb.errors import ConfigError
from leafdb.limits import REQUEST_TIMEOUT_S_DEFAULT

if TYPE_CHECKING:
    from leafdb.client.anyio_driver import AsyncDial
    from leafdb.client.async_client import AsyncClient
    from leafdb.client.auth import Auth
    from leafdb.client.blocking_driver import Dial
    from leafdb.client.sync_client import Client
    from leafdb.client.tls import TLS, ClientTls


def connect(
    url: str,
    *,
    tls: TLS | None = None,
    auth: Auth | None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
) -> Client:
    """A client for `leafdb://host[:port][,...]`, or `leafdbs://` for TLS, on blocking sockets. The first call connects:
    nothing but the files of `tls` is read before. `auth` says who it is, where accounts are asked for:
    `leafdb.Scram(user, password)` or `leafdb.Token(text)`. Raises ConfigError."""
    addresses, client_tls = _meant(url, tls)
    who = _checked(auth)
    if client_tls is None:
        return client_over(addresses, auth=who, zone=zone, timeout=timeout, routing=routing)
    from leafdb.client.blocking_tls import dialler

    dial = dialler(client_tls)
    return client_over(addresses, dial=dial, auth=who, encrypted=True, zone=zone, timeout=timeout, routing=routing)


def connect_async(
    url: str,
    *,
    tls: TLS | None = None,
    auth: Auth | None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
) -> AsyncClient:
    """The same for trio and asyncio; use it as `async with leafdb.connect_async(url) as db`."""
    addresses, client_tls = _meant(url, tls)
    who = _checked(auth)
    if client_tls is None:
        return async_client_over(addresses, auth=who, zone=zone, timeout=timeout, routing=routing)
    from leafdb.client.anyio_tls import dialler

    dial = dialler(client_tls)
    return async_client_over(
        addresses, dial=dial, auth=who, encrypted=True, zone=zone, timeout=timeout, routing=routing
    )


def client_over(
    addresses: Sequence[Address],
    *,
    dial: Dial | None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
    rng: Random | None = None,
    auth: Auth | None = None,
    encrypted: bool = False,
) -> Client:
    """A synchronous client whose connections `dial` makes (TCP when None). `encrypted`: nobody on the way can read
    them, so a token may be sent anywhere."""
    from leafdb.client.blocking_driver import BlockingDriver, dial_tcp
    from leafdb.client.sync_client import Client

    core = Core(
        addresses, zone=zone, timeout=timeout, routing=routing, clock=time.monotonic, rng=rng or Random(), auth=auth
    )
    core.encrypted = encrypted
    return Client(core, BlockingDriver(core, dial or dial_tcp))


def async_client_over(
    addresses: Sequence[Address],
    *,
    dial: AsyncDial | None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
    rng: Random | None = None,
    auth: Auth | None = None,
    encrypted: bool = False,
) -> AsyncClient:
    """The same, asynchronous."""
    from anyio import current_time

    from leafdb.client.anyio_driver import AnyioDriver
    from leafdb.client.async_client import AsyncClient
    from leafdb.client.dial_socket import dial_socket

    core = Core(
        addresses, zone=zone, timeout=timeout, routing=routing, clock=current_time, rng=rng or Random(), auth=auth
    )
    core.encrypted = encrypted
    return AsyncClient(core, AnyioDriver(core, dial or dial_socket))


def _meant(url: str, tls: TLS | None) -> tuple[tuple[Address, ...], ClientTls | None]:
    """Where to connect, and how. ConfigError also for files of TLS that make no sense."""
    addresses = parse_url(url)
    if not wants_tls(url):
        if tls is not None:
            raise ConfigError("tls is given and the URL says leafdb://: write leafdbs://")
        return addresses, None
    from leafdb.client.tls import TLS, ClientTls

    return addresses, ClientTls(TLS() if tls is None else tls)


def _checked(auth: object) -> Auth | None:
    if auth is None:
        return None
    from leafdb.client.auth import checked_auth

    return checked_auth(auth)
