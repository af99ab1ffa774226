"""Every promise of the two clients, under trio, under asyncio and on blocking sockets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any

import anyio
import pytest

from leafdb.client import anyio_driver
from unit.client import (
    async_batches,
    async_failures,
    async_hedging,
    async_values,
    sync_batches,
    sync_failures,
    sync_hedging,
    sync_values,
)
from unit.client.fake_node import FakeCluster

BLOCKING = (sync_values, sync_batches, sync_failures, sync_hedging)
ASYNC = (async_values, async_batches, async_failures, async_hedging)


def stories(modules: Sequence[ModuleType]) -> list[Any]:
    functions = [each for module in modules for each in vars(module).values() if inspect.isfunction(each)]
    found = [each for each in functions if "cluster" in inspect.signature(each).parameters]
    assert len(found) >= 10 * len(modules)
    return [pytest.param(story, id=story.__name__) for story in found]


@pytest.mark.parametrize("story", stories(BLOCKING))
def test_blocking(story: Callable[[FakeCluster], None]) -> None:
    with FakeCluster() as cluster:
        story(cluster)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("story", stories(ASYNC))
def test_async(story: Callable[[FakeCluster], Awaitable[None]], backend: str) -> None:
    with FakeCluster() as cluster:
        anyio.run(story, cluster, backend=backend)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("story", stories((async_hedging,)))
def test_async_over_a_stream_that_is_no_socket(
    story: Callable[[FakeCluster], Awaitable[None]], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections of encryption and of embedded nodes wait in a way of their own."""
    monkeypatch.setattr(anyio_driver, "SocketTransport", type(None))
    with FakeCluster() as cluster:
        anyio.run(story, cluster, backend=backend)
