"""Who holds memory that grows with load on a node: the lines of its ledger (`memory`), each a gauge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from leafdb.node.memory import MemoryLedger

if TYPE_CHECKING:
    from leafdb.node.node import Node
    from leafdb.storage.engine import Engine

OPERATION_BYTES: Final = 2_048
"""What an operation under way holds, about: its objects, its frames in outboxes not counted."""


def account(node: Node) -> MemoryLedger:
    """A node's ledger, with every holder named. They are asked later, when all parts of the node are there."""
    ledger = MemoryLedger(node.config.limits.memory_bytes_max)
    hold = ledger.hold
    hold("memtables", lambda: _memtable_bytes(node.engine))
    hold("block_cache", lambda: node.engine.stats().block_cache_bytes)
    hold("table_readers", lambda: node.engine.stats().reader_bytes)
    hold("hash_trees", node.trees.kept.held_bytes)
    hold("sessions", node.pump.memory_bytes)
    hold("replaced_operations", lambda: node.replica.operations.held_bytes)
    hold("operations", lambda: len(node.coordinator.operations) * OPERATION_BYTES)
    return ledger


def _memtable_bytes(engine: Engine) -> int:
    stats = engine.stats()
    return stats.memtable_bytes + stats.frozen_bytes + stats.flushed_bytes + stats.backlog_bytes
