"""A cluster in memory whose nodes have other settings of repair than the default ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from leafdb.config import RepairConfig
from leafdb.testing.cluster import MemoryCluster, memory_cluster


@asynccontextmanager
async def repairing_cluster(repair: RepairConfig, nodes: int = 3, seed: int = 1) -> AsyncIterator[MemoryCluster]:
    """A founded cluster in which nothing is owed."""
    async with memory_cluster(nodes, seed) as cluster:
        await configure(cluster, repair)
        yield cluster


async def configure(cluster: MemoryCluster, repair: RepairConfig) -> None:
    """Start all nodes again with these settings; returns when nothing is owed."""
    cluster.repair = repair
    running = tuple(cluster.nodes)
    await cluster.stop(*running)
    await cluster.restart(*running)
    await cluster.settle()
