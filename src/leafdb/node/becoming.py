"""How a blank store becomes a member's: kept, stamped, in force, each synced before the next.

1. What the node was asked to be is kept in the META tree.
2. The store is stamped with cluster and number.
3. Metadata, and the seat of an acceptor where they name it one, are written and believed.

Cut off before the second it is a blank store. Cut off between the second and the third it belongs to a cluster it does
not know, and what was kept in the first says which: a founding goes on when it is run again (`founding`), a joiner by
itself at its next start (`joining`). Founding and joining hold `Belonging.becoming` meanwhile: one decides, the others
see.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from leafdb.errors import NotApplied, Reason, StorageError
from leafdb.node.register import META_TREE
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Durability, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node


async def become(node: Node, key: bytes, kept: bytes, metadata: ClusterMetadata, number: NodeId) -> None:
    """All three. Raises NotApplied when the store fails."""
    synced = _Synced()
    node.engine.write(((META_TREE, key, kept),), Durability.ALWAYS, synced)
    await synced.wait()
    await take_up(node, metadata, number)


async def take_up(node: Node, metadata: ClusterMetadata, number: NodeId) -> None:
    """The second and the third. Raises NotApplied when the store fails."""
    synced = _Synced()
    node.founded(metadata, number, synced)
    await synced.wait()


class _Synced:
    """Waits for a write, and raises what became of it."""

    def __init__(self) -> None:
        self._event = trio.Event()
        self._error: StorageError | None = None

    def __call__(self, error: StorageError | None) -> None:
        self._error = error
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        if self._error is not None:
            raise NotApplied(f"the store failed: {self._error}", reason=Reason.FAILED)
