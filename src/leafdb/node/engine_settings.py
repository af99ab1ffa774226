"""What a node's configuration, and what a node is, mean for its storage engine."""

from __future__ import annotations

from typing import Final

from leafdb.config import StorageConfig
from leafdb.model.purge import expires_ms
from leafdb.node.kept_trees import TREES_TREE
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.storage.settings import EngineConfig
from leafdb.types import FIRST_BUCKET_ID, TreeId

EXPIRY: Final = f"{expires_ms.__module__}:{expires_ms.__name__}"


def keep_by_time(engine: Engine, metadata: ClusterMetadata) -> None:
    """Tell the engine in which trees values expire unless it is said otherwise."""
    engine.keep_by_time([TreeId(bucket.id) for bucket in metadata.buckets.values() if bucket.ttl_ms])


def salvages(tree: TreeId) -> bool:
    """Whether what a damaged table of this tree loses is brought back, or can be made anew (`lost_tables`)."""
    return tree >= FIRST_BUCKET_ID or tree == TREES_TREE


def engine_config(config: StorageConfig, store_id: bytes) -> EngineConfig:
    """For a store that will be called `store_id` if there is none yet."""
    return EngineConfig(
        memtable_bytes=config.memtable_bytes,
        flushed_bytes_max=config.memtable_bytes if config.flushed_in_memory else 0,
        block_cache_bytes=config.block_cache_bytes,
        wal_sync_interval_ms=max(1, int(config.wal_sync_interval_s * 1000)),
        salvages=salvages,
        expiry=EXPIRY,
        store_id=store_id,
    )
