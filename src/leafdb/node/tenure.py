"""How long a node serves: until it is asked to end, its store fails, or its cluster has it no more.

Asked politely it finishes what is under way, hands its hints over and flushes (`leaving`); in every other case it
serves nothing from the moment on at which `end` is called. A node may be told to take no work of clients for a while
(`drain`), which is the first half of a polite end and may be taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from leafdb.errors import LeafdbError, StorageError, StoreFailed
from leafdb.node.leaving import leave
from leafdb.node.logs import Log
from leafdb.storage.identity import STORE_ID_BYTES
from leafdb.storage.wipe import wipe

if TYPE_CHECKING:
    from leafdb.node.node import Node

log: Log = Log("node")


class Tenure:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._over = trio.Event()
        self.failure: LeafdbError | None = None
        """Why the node serves nothing any more, when it was not asked to end."""
        self.begins_anew: bool = False
        """It ends to be started again at once, its store emptied first (`storage.wipe`): its join was given up."""
        self.stopping = False
        """There is no way back from that."""

    @property
    def is_over(self) -> bool:
        """The node serves nothing any more."""
        return self._over.is_set()

    def end(self, failure: LeafdbError | None, *, anew: bool = False) -> None:
        """Serve nothing any more, at once."""
        self.failure, self.begins_anew = failure, anew
        if hasattr(self._node, "coordinator"):
            self._node.coordinator.draining = True
        self._over.set()

    def store_failed(self, error: StorageError) -> None:
        """The store serves nothing any more, so neither does the node."""
        if not isinstance(self.failure, StorageError):
            log.error("the store has failed", reason=str(error))
            self.end(error)

    async def run_out(self, drain: trio.Event, stop: trio.Event) -> None:
        """Return when the node is to end: at once on `stop` or after `end`, politely on `drain`."""
        node = self._node

        async def polite(left: trio.Event) -> None:
            await drain.wait()
            self.stopping = True
            node.drain.begin()
            await node.clients.drain(node.config.node.drain_timeout_s)
            await leave(node.engine, node.hints.ledger, node.estate.orphans, node.peers, node.hint_pauses)
            left.set()

        left = trio.Event()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(polite, left)
            for event in (stop, self._over, left):
                waiting.start_soon(_cancel_when, event, waiting.cancel_scope)


def empty_store(node: Node) -> None:
    """Wipe the store of a node that has ended to begin anew, before it does. Raises StorageError."""
    assert node.tenure.begins_anew, "no other store is ever emptied"
    try:
        wipe(node.world.fs, node.engine.identity, node.world.random_bytes(STORE_ID_BYTES))
    except OSError as error:
        raise StoreFailed(f"the store cannot be emptied: {error}", path=str(error.filename or "")) from error


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
