"""What a node does between its last request and its end, as far as the drain's time reaches: nothing here must happen
for the data to be safe, and whoever is in a hurry cuts it short.

Hints are handed over, to their targets or to others who keep them for those: while this node is away, nobody else has
the fallback copies it holds. What is in memory becomes tables, so that the next start has next to nothing to replay.
"""

from __future__ import annotations

from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.hints.ledger import Ledger
from leafdb.node.hint_pauses import HintPauses
from leafdb.node.orphan_hints import OrphanHints
from leafdb.storage.engine import Engine
from leafdb.transport.peers import Peers
from leafdb.wire.registry import Lane

LOOK_S: Final = 0.05
FLUSHES: Final = 2
"""The second is for the hash trees, which are saved, in the log, before the first may end."""


async def leave(engine: Engine, ledger: Ledger, orphans: OrphanHints, peers: Peers, pauses: HintPauses) -> None:
    """Hand hints over, then flush. Ends early when the store fails, and waits for nobody who cannot be reached.

    The node drains: what is kept for those who are away is on its way to others.
    """

    def hands_over() -> bool:
        there = (target for target in peers.connected(Lane.BULK) if not pauses.paused(target))
        return not orphans.parted or any(ledger.records(target) for target in there)

    while hands_over():  # noqa: ASYNC110  # hints are not hot
        await trio.sleep(LOOK_S)
    for _ in range(FLUSHES):
        flushed = trio.Event()
        try:
            engine.flush_soon(flushed.set)
        except StorageError:
            return
        await flushed.wait()
