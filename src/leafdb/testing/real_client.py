"""The real clients over the network of nodes in memory: `leafdb.AsyncClient`, and `leafdb.Client` on a virtual loop.

The asynchronous client is the one that programs use, down to its connections; only the streams are memory. The
synchronous one waits on sockets when it is used in earnest, and those know nothing of virtual time: here its handles,
calls, retries and routing are the real ones, and what carries their requests is the asynchronous client's driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import TypeVar

import anyio
import trio

from leafdb.client.anyio_connection import Transport
from leafdb.client.anyio_driver import AnyioDriver, AsyncDial
from leafdb.client.async_client import AsyncClient
from leafdb.client.blocking_driver import BlockingDriver
from leafdb.client.call import KeyCall
from leafdb.client.core import Core, Routing
from leafdb.client.effects import Operation
from leafdb.client.options import Seconds
from leafdb.client.results import Failed
from leafdb.client.sync_client import Client
from leafdb.client.url import Address
from leafdb.testing.network import MemoryNetwork
from leafdb.testing.virtual_loop import VirtualLoop
from leafdb.transport.stream import ByteStream

T = TypeVar("T")


class MemoryTransport:
    """A stream in memory as the client wants one."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    async def send(self, item: bytes, /) -> None:
        """Send all of it."""
        try:
            await self._stream.send_all(item)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error
        except trio.ClosedResourceError as error:
            raise anyio.ClosedResourceError from error

    async def receive(self, max_bytes: int = 65_536, /) -> bytes:
        """Some bytes; b"" at the end."""
        try:
            return await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            raise anyio.BrokenResourceError from error
        except trio.ClosedResourceError as error:
            raise anyio.ClosedResourceError from error

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()


def dialler(network: MemoryNetwork, host: str) -> AsyncDial:
    """How a client on this host of the network connects."""

    async def dial(address: Address) -> Transport:
        return MemoryTransport(await network.at(host).dial(address.host, address.port))

    return dial


def client_core(
    addresses: Iterable[Address], rng: Random, *, clock: Callable[[], float], routing: Routing, timeout: Seconds
) -> Core:
    """What the calls of one client share. All of its chance is drawn from `rng`."""
    return Core(tuple(addresses), zone=None, timeout=timeout, routing=routing, clock=clock, rng=rng)


def async_client(core: Core, dial: AsyncDial) -> tuple[AsyncClient, AnyioDriver]:
    """An asynchronous client, to be opened, and its driver."""
    driver = AnyioDriver(core, dial)
    return AsyncClient(core, driver), driver


def blocking_client(core: Core, driver: AnyioDriver, loop: VirtualLoop) -> Client:
    """A synchronous client whose calls let virtual time pass until they are answered. The driver must be open."""
    return Client(core, VirtualDriver(core, driver, loop))


class VirtualDriver(BlockingDriver):
    """Performs the effects of a synchronous client by running the loop in which `driver` is open."""

    def __init__(self, core: Core, driver: AnyioDriver, loop: VirtualLoop) -> None:
        super().__init__(core)
        self._driver = driver
        self._loop = loop

    def run(self, operation: Operation[T]) -> T:
        """Run one operation to its end."""
        self._check_usable()
        result: T = self._loop.run(self._driver.run, operation)
        return result

    def run_key(self, call: KeyCall[T]) -> T:
        """Run a call that most likely needs one exchange."""
        self._check_usable()
        result: T = self._loop.run(self._driver.run_key, call)
        return result

    def run_all(self, operations: Iterable[Operation[T]]) -> list[T | Failed]:
        """Run many operations, pipelined; results in their order."""
        self._check_usable()
        return self._loop.run(self._driver.run_all, operations)

    def close(self) -> None:
        """Close every connection; calling it again does nothing."""
        if not self._closed:
            super().close()
            self._loop.run(self._driver.close)
