"""What exchanges have to do with purge horizons and marks, of one node: the parts, and what each is told of a change.

accords     by which terms the exchanges under way take records
wholeness   how this store comes to vouch again
gate        where nothing may begin yet
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from leafdb.node.accords import Accord, Accords
from leafdb.node.completeness import Completeness
from leafdb.node.debts import Debts, Masks
from leafdb.node.exchange_queue import Gate
from leafdb.node.horizons import Horizons
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.node.possible_losses import PossibleLosses
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.unswept import Unswept, mask_of
from leafdb.node.view import ClusterView
from leafdb.node.wholeness import Wholeness
from leafdb.types import NodeId

LOST: Final = "this store has lost something that another owner has"

log: Log = Log("anti_entropy")


class Standings:
    """See the top of this file. `whole` is told of partitions for which this store vouches again."""

    def __init__(
        self,
        *,
        view: ClusterView,
        shared: SharedRanges,
        horizons: Horizons,
        completeness: Completeness,
        debts: Debts,
        losses: PossibleLosses,
        metrics: Metrics,
        gate: Gate,
        owe: Callable[[Masks, str], None],
        whole: Callable[[Iterable[int]], None],
        wake: Callable[[], None],
    ) -> None:
        self.horizons = horizons
        self._completeness = completeness
        self._debts = debts
        self._metrics = metrics
        self._view = view
        self.wholeness: Wholeness = Wholeness(view, shared, horizons, debts, losses, owe, whole)
        self.accords: Accords = Accords(horizons, self.wholeness.nobody, self.wholeness.heard, self._loss_proved)
        self._shared = shared
        self._owe = owe
        self.gate: Unswept = Unswept(horizons, gate, wake)
        horizons.on_change.append(self._changed)
        horizons.on_swept.append(self.gate.changed)

    def _changed(self, partitions: Iterable[int]) -> None:
        changed = tuple(partitions)
        self._debts.spoil_partitions(mask_of(changed))
        self.accords.changed(changed)
        self.gate.changed(changed)
        self.wholeness.changed(changed)

    def lose(self, peer: NodeId) -> None:
        """The session with a peer is gone."""
        self.accords.lose(peer)
        self.wholeness.lost(peer)

    def _loss_proved(self, accord: Accord) -> None:
        """The peer has something of this range that this store can only have lost: it cannot say what is absent, until
        it has been exchanged with everybody."""
        self._metrics.losses_proved_total += 1
        log.error(
            "this store has lost data: another owner has what lies below the purge horizon and is not here",
            bucket=int(accord.bucket), partition=int(accord.partition), member=self._view.name_of(accord.peer),
        )  # fmt: skip
        self._completeness.doubt((accord.partition,))
        mask = 1 << accord.partition
        self._owe({slot: each & mask for slot, each in self._shared.with_all().items()}, LOST)
