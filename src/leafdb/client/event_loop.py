"""The event loop an asynchronous client lives in, found out once, when its block opens.

anyio asks on every call which of its two libraries runs. A client belongs to one loop for its life, so what every
request needs (is this still that loop, what time is it, am I cancelled) is bound to that loop's own functions here,
and a TCP connection is watched in the way that is cheapest there (docs/decisions/0002-pure-drivers-and-callbacks.md).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio.lowlevel

from leafdb.client.anyio_connection import AnyioConnection


class EventLoop(NamedTuple):
    """What a client asks of its loop."""

    here: Callable[[], object]
    """The loop that runs now, or what there is one of in each. Raises RuntimeError where none of this kind does."""
    clock: Callable[[], float]
    checkpoint_if_cancelled: Callable[[], Awaitable[None]]
    over_socket: type[AnyioConnection]
    """The connection over a TCP socket."""


def running_loop() -> EventLoop:
    """The loop that runs now."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return _of_trio()
    from leafdb.client.asyncio_connection import AsyncioConnection

    loop = asyncio.get_running_loop()
    return EventLoop(asyncio.get_running_loop, loop.time, _checkpoint_of_asyncio(), AsyncioConnection)


def _checkpoint_of_asyncio() -> Callable[[], Awaitable[None]]:
    """anyio finds out on every call which library runs; its token, which it has since 4.11, holds what it found."""
    current_token = getattr(anyio.lowlevel, "current_token", None)
    if current_token is None:
        return anyio.lowlevel.checkpoint_if_cancelled
    checkpoint: Callable[[], Awaitable[None]] = current_token().backend_class.checkpoint_if_cancelled
    return checkpoint


def _of_trio() -> EventLoop:
    import trio

    from leafdb.client.trio_connection import TrioConnection

    lowlevel = trio.lowlevel
    clock = lowlevel.current_clock().current_time  # unlike trio.current_time it can be asked from anywhere
    return EventLoop(lowlevel.current_root_task, clock, lowlevel.checkpoint_if_cancelled, TrioConnection)
