"""What the two sides of each exchange under way have agreed on: where both stores stood when it began (0008, 2).

A record that moves in an exchange is taken by these terms and no others. So an accord is spoilt by whatever changes
them, on either side: another horizon, a mark that is written or taken back, a session that is lost. A spoilt exchange
comes to nothing, and what still arrives of it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from leafdb.node.exchange_terms import Terms, terms_of
from leafdb.node.horizons import Horizons, Standing
from leafdb.types import BucketId, NodeId, PartitionId

CHANGED: Final = "a purge horizon, or who vouches below it, has changed meanwhile"


class Accord:
    """Of one exchange, on one side. `lost` is told when it is spoilt, `loss` when it proves one."""

    __slots__ = ("_loss", "bucket", "lost", "number", "ours", "partition", "peer", "spoilt", "terms", "theirs")

    def __init__(
        self,
        peer: NodeId,
        number: int,
        bucket: BucketId,
        partition: PartitionId,
        ours: Standing,
        lost: Callable[[str], None],
        loss: Callable[[Accord], None],
    ) -> None:
        self._loss: Callable[[Accord], None] | None = loss
        self.peer: NodeId = peer
        self.number: int = number
        self.bucket: BucketId = bucket
        self.partition: PartitionId = partition
        self.ours: Standing = ours
        self.theirs: Standing | None = None
        """None: they have not said it yet."""
        self.terms: Terms | None = None
        self.spoilt: str = ""
        """Why nothing more is taken by it; empty while it holds."""
        self.lost: Callable[[str], None] = lost

    @property
    def is_restored(self) -> bool:
        """Whether this store is made whole by the other."""
        return self.terms is Terms.MADE_WHOLE

    @property
    def restores(self) -> bool:
        """Whether the other store is made whole by this one."""
        return self.theirs is not None and self.ours.vouches and not self.theirs.vouches

    def prove_loss(self) -> None:
        """The other side has something that this store can only have lost. It is told of once."""
        loss, self._loss = self._loss, None
        if loss is not None:
            loss(self)

    def spoil(self, reason: str) -> None:
        """It holds no more."""
        if not self.spoilt:
            self.spoilt = reason
            self.lost(reason)


class Accords:
    """Those of this node. `nobody`: whether no owner of a range vouches, and all have said so; `heard` is told where a
    peer stands, `loss` of the exchanges that prove that this store has lost something."""

    def __init__(
        self,
        horizons: Horizons,
        nobody: Callable[[BucketId, PartitionId], bool],
        heard: Callable[[NodeId, PartitionId, Standing], None],
        loss: Callable[[Accord], None],
    ) -> None:
        self._loss = loss
        self._horizons = horizons
        self._nobody = nobody
        self._heard = heard
        self._all: dict[int, set[Accord]] = {}
        """By partition."""

    def begin(
        self,
        peer: NodeId,
        number: int,
        bucket: BucketId,
        partition: PartitionId,
        lost: Callable[[str], None] = lambda _: None,
    ) -> Accord:
        """As this store stands now. Give it back with `end`."""
        accord = Accord(peer, number, bucket, partition, self._horizons.standing(partition), lost, self._loss)
        self._all.setdefault(partition, set()).add(accord)
        return accord

    def agree(self, accord: Accord, *, vouches: bool) -> None:
        """The other side, of the same horizon, has said where it stands."""
        if accord.spoilt:
            return
        accord.theirs = Standing(accord.ours.horizon, vouches)
        self._heard(accord.peer, accord.partition, accord.theirs)
        nobody = not vouches and not accord.ours.vouches and self._nobody(accord.bucket, accord.partition)
        accord.terms = terms_of(accord.ours, accord.theirs, nobody=nobody)

    @contextmanager
    def with_source(self, source: NodeId, slot: tuple[BucketId, PartitionId]) -> Iterator[Accord]:
        """By what the pages of a source are taken: it shows some only while it vouches."""
        accord = self.begin(source, 0, *slot)
        accord.theirs = Standing(accord.ours.horizon, vouches=True)
        accord.terms = terms_of(accord.ours, accord.theirs, nobody=False)
        try:
            yield accord
        finally:
            self.end(accord)

    def end(self, accord: Accord) -> None:
        """The exchange is over."""
        kept = self._all[accord.partition]
        kept.discard(accord)
        if not kept:
            del self._all[accord.partition]

    def changed(self, partitions: Iterable[int]) -> None:
        """Horizons or marks have changed there."""
        for partition in partitions:
            for accord in tuple(self._all.get(partition, ())):
                if accord.ours != self._horizons.standing(partition):
                    accord.spoil(CHANGED)

    def lose(self, peer: NodeId) -> None:
        """The session with a peer is gone."""
        for accords in tuple(self._all.values()):
            for accord in tuple(accords):
                if accord.peer == peer:
                    accord.spoil("the session was lost")
