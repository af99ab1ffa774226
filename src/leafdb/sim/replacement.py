"""A member whose disk is gone gets a new one: the same number, a new incarnation, nothing in it.

No command of leafdb does this: an operator replaces the member by another, as seeds do in which the ring changes. It
is what a disk would be that was restored empty, and finds more faults of stores that have forgotten.
The store knows the metadata and that all its ranges are incomplete; it has no promises, so it has no vote in the
control set; and its boot number goes on where the lost one stood, or peers would take it for a rolled-back disk.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from leafdb.errors import StorageError
from leafdb.node.boot import INTERNAL_TREES
from leafdb.node.completeness import KEY as COMPLETENESS_KEY
from leafdb.node.completeness import encode_partitions
from leafdb.node.register import META_TREE, METADATA_KEY
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.identity import Identity, read_identity, remove_clean_mark, write_identity
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.settings import EngineConfig
from leafdb.testing.cluster import MemoryCluster
from leafdb.types import Durability, NodeId
from leafdb.vfs.memory import MemoryFileSystem


def replace_store(cluster: MemoryCluster, node: NodeId, last: Identity, metadata: ClusterMetadata, rng: Random) -> None:
    """Give a node that is down an empty store of its own, to follow on the one of the stamp `last`."""
    assert node not in cluster.nodes
    disk = MemoryFileSystem()
    disk.cold = cluster.disks[node].cold
    executor = QueuedExecutor()
    failures: list[StorageError] = []
    engine = Engine.open(
        disk,
        config=EngineConfig(store_id=rng.randbytes(16)),
        log_executor=executor,
        read_executor=executor,
        jobs=InlineJobRunner(disk),
        now_s=lambda: 0.0,
        on_failure=failures.append,
    )
    for tree in INTERNAL_TREES:
        engine.create_tree(tree)
    engine.stamp(cluster_id=metadata.cluster_id, node_id=node, incarnation=last.incarnation + 1)
    incomplete = encode_partitions(range(metadata.partitions))
    writes = ((META_TREE, METADATA_KEY, metadata.encode()), (META_TREE, COMPLETENESS_KEY, incomplete))
    engine.write(writes, Durability.ALWAYS, None)
    executor.run_pending()
    assert not failures
    engine.close()
    stamp = read_identity(disk)
    assert stamp is not None
    remove_clean_mark(disk)  # what this store may be asked about it has never known
    # Peers know a number by its store: what the simulation takes for the same member has the same.
    write_identity(disk, replace(stamp, boot=last.boot, store_id=last.store_id))
    disk.locks.clear()
    cluster.disks[node] = disk
