"""Every promise of the two clients, under trio, under asyncio and on blocking sockets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any

import anyio
import pytest

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
    assert len(found) > 40
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
