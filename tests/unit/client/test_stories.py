"""Every promise of the two clients, under trio, under asyncio and on blocking sockets."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import anyio
import pytest

from unit.client import async_stories, sync_stories
from unit.client.fake_node import FakeCluster


def stories(module: ModuleType) -> list[Any]:
    found = [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and "cluster" in inspect.signature(value).parameters
    ]
    assert len(found) > 30
    return [pytest.param(story, id=story.__name__) for story in found]


@pytest.mark.parametrize("story", stories(sync_stories))
def test_blocking(story: Callable[[FakeCluster], None]) -> None:
    with FakeCluster() as cluster:
        story(cluster)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@pytest.mark.parametrize("story", stories(async_stories))
def test_async(story: Callable[[FakeCluster], Awaitable[None]], backend: str) -> None:
    with FakeCluster() as cluster:
        anyio.run(story, cluster, backend=backend)
