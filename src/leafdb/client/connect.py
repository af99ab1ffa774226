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
from leafdb.client.url import Address, parse_url
from leafdb.errors import ConfigError
from leafdb.limits import REQUEST_TIMEOUT_S_DEFAULT

if TYPE_CHECKING:
    from leafdb.client.anyio_driver import AsyncDial
    from leafdb.client.async_client import AsyncClient
    from leafdb.client.blocking_driver import Dial
    from leafdb.client.sync_client import Client


def connect(
    url: str,
    *,
    tls: None = None,
    auth: None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
) -> Client:
    """A client for `leafdb://host[:port][,...]`, on blocking sockets. Does no I/O: the first call connects."""
    _refuse_security(tls, auth)
    return client_over(parse_url(url), zone=zone, timeout=timeout, routing=routing)


def connect_async(
    url: str,
    *,
    tls: None = None,
    auth: None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
) -> AsyncClient:
    """The same for trio and asyncio; use it as `async with leafdb.connect_async(url) as db`."""
    _refuse_security(tls, auth)
    return async_client_over(parse_url(url), zone=zone, timeout=timeout, routing=routing)


def client_over(
    addresses: Sequence[Address],
    *,
    dial: Dial | None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
    rng: Random | None = None,
) -> Client:
    """A synchronous client whose connections `dial` makes (TCP when None)."""
    from leafdb.client.blocking_driver import BlockingDriver, dial_tcp
    from leafdb.client.sync_client import Client

    core = Core(addresses, zone=zone, timeout=timeout, routing=routing, clock=time.monotonic, rng=rng or Random())
    return Client(core, BlockingDriver(core, dial or dial_tcp))


def async_client_over(
    addresses: Sequence[Address],
    *,
    dial: AsyncDial | None = None,
    zone: str | None = None,
    timeout: Seconds = REQUEST_TIMEOUT_S_DEFAULT,
    routing: Routing = "ring",
    rng: Random | None = None,
) -> AsyncClient:
    """An asynchronous client whose connections `dial` makes (TCP when None)."""
    from anyio import current_time

    from leafdb.client.anyio_driver import AnyioDriver
    from leafdb.client.async_client import AsyncClient
    from leafdb.client.dial_socket import dial_socket

    core = Core(addresses, zone=zone, timeout=timeout, routing=routing, clock=current_time, rng=rng or Random())
    return AsyncClient(core, AnyioDriver(core, dial or dial_socket))


def _refuse_security(tls: object, auth: object) -> None:
    if tls is not None:
        raise ConfigError("this version has no TLS yet: tls must be None")
    if auth is not None:
        raise ConfigError("this version has no TLS yet, and no authentication without it: auth must be None")
