"""What is kept here and belongs to others since the ring changed: leftovers of this node's own copies, and hints whose
target is gone. Both are worked off by tasks of their own, at the pace of background work. And `purge`, for hints that
somebody gives up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from leafdb.node.anti_entropy import AntiEntropy
from leafdb.node.heirs import Calls
from leafdb.node.hint_keeper import HintKeeper
from leafdb.node.hint_purge import HintPurge
from leafdb.node.hinted_handoff import HintedHandoff
from leafdb.node.leftovers import Leftovers
from leafdb.node.metrics import Metrics
from leafdb.node.orphan_hints import OrphanHints
from leafdb.node.replica import Replica
from leafdb.node.view import ClusterView
from leafdb.storage.engine import Engine
from leafdb.types import NodeId
from leafdb.wire.registry import Lane


class Sessions(Calls, Protocol):
    """What is needed of `transport.peers.Peers`."""

    def session(self, node: NodeId, lane: Lane) -> object | None:
        """The open session with a node."""


class Estate:
    """The two of them. Records are scanned, moved and paced by the parts of `repair`."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        replica: Replica,
        repair: AntiEntropy,
        keeper: HintKeeper,
        handoff: HintedHandoff,
        metrics: Metrics,
        peers: Sessions,
        forget: Callable[[], None],
        retract: Callable[[Iterable[int], str], None],
        now: Callable[[], float],
        paused: Callable[[NodeId], bool],
    ) -> None:
        def connected(node: NodeId) -> bool:
            return peers.session(node, Lane.BULK) is not None

        self.leftovers: Leftovers = Leftovers(
            view=view, replica=replica, scanner=repair.scanner, mover=repair.mover, pace=repair.pace,
            metrics=metrics, forget=forget, retract=retract, connected=connected, now=now,
        )  # fmt: skip
        self.orphans: OrphanHints = OrphanHints(
            engine=engine, view=view, replica=replica, keeper=keeper, handoff=handoff, store=repair.store,
            mover=repair.mover, pace=repair.pace, peers=peers, connected=connected, now=now, paused=paused,
        )  # fmt: skip

        self.purge: HintPurge = HintPurge(engine, keeper, handoff, repair.mark, repair.pace, now)

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.leftovers.run, name="leftovers")
            nursery.start_soon(self.orphans.run, name="orphan hints")

    def wake(self) -> None:
        """A peer is there that was not."""
        self.leftovers.wake()
        self.orphans.wake()

    def lost(self, node: NodeId) -> None:
        """A peer is gone that was there."""
        self.orphans.kept(node)

    @property
    def quiet(self) -> bool:
        """Nothing is known to be here that belongs to others, and there is nothing to look through."""
        return self.leftovers.quiet and self.orphans.quiet

    def problems(self) -> list[str]:
        """What keeps it here, in words."""
        return [problem for problem in (self.leftovers.problem(), self.orphans.problem()) if problem]
