"""A node of the purge model: what decides about forgetting, over a store that is a log and may lose its end.

One partition of a few keys. Records, minting and admission are the real ones (`leafdb.model`); store, clock and the
answers to a proof of the horizon are stripped to their rules (docs/decisions/0008, section 2), one method for each, so
that a test can break them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from leafdb.model.actor import ActorIdentity
from leafdb.model.admission import admitted, left_out, proves_loss
from leafdb.model.clock import CausalClock
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.purge import is_dead
from leafdb.model.record import PutResult, accept, accept_above, header, put, restored
from leafdb.types import Conflict, NodeId

Place = tuple[str, int, int]
"""A record ("r", key, 0), a hint ("h", key, target) or a number that the node remembers."""
Value = bytes | int | None

HORIZON: Final[Place] = ("horizon", 0, 0)
MARK: Final[Place] = ("mark", 0, 0)
"""The horizon below which this store vouches to have had everything; None: it cannot."""
DOUBT: Final[Place] = ("doubt", 0, 0)
"""1: it may have forgotten something of late, and is incomplete."""
EPOCHS: Final = 1 << 20


def record_of(key: int) -> Place:
    """Where an owner keeps it."""
    return "r", key, 0


def hint_of(key: int, target: int) -> Place:
    """Where a copy for somebody else is kept."""
    return "h", key, target


def bytes_of(value: Value) -> bytes | None:
    """A stored record, or None."""
    return value if isinstance(value, bytes) else None


class LogStore:
    """A dict whose last writes, those since the last sync, are lost from the end."""

    def __init__(self) -> None:
        self.data: dict[Place, Value] = {MARK: 0}
        self.synced: dict[Place, Value] = dict(self.data)
        self.older: dict[Place, Value] = {}
        """What was durable at a place before what is."""
        self._log: list[tuple[Place, Value]] = []
        self._waiting: list[Callable[[], None]] = []

    def write(self, place: Place, value: Value) -> None:
        """In memory, and at the end of the log. None removes."""
        if self.data.get(place) != value:
            _apply(self.data, place, value)
            self._log.append((place, value))

    def sync(self) -> None:
        """All of it is durable; whoever waited for that is told."""
        if self._log:
            for place in dict(self._log):
                self.older[place] = self.synced.get(place)
                _apply(self.synced, place, self.data.get(place))
            self._log.clear()
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done()

    def when_synced(self, done: Callable[[], None]) -> None:
        """`done` after the next sync; at once if nothing is to be synced."""
        if self._log:
            self._waiting.append(done)
        else:
            done()

    def lose_tail(self, rng: Random) -> None:
        """A crash: a prefix of the log remains."""
        self.data = dict(self.synced)
        for place, value in self._log[: rng.randint(0, len(self._log))]:
            _apply(self.data, place, value)
        self.replace(self.data)

    def replace(self, data: dict[Place, Value]) -> None:
        """Another disk."""
        self.data = dict(data)
        self.synced = dict(data)
        self.older.clear()
        self._log.clear()
        self._waiting.clear()

    def lose(self, place: Place) -> None:
        """Something durable is not there any more."""
        assert not self._log
        self.data.pop(place, None)
        self.synced.pop(place, None)

    def go_back(self, place: Place) -> None:
        """What was there before shows through."""
        self.lose(place)
        for data in (self.data, self.synced):
            _apply(data, place, self.older.get(place))


@dataclass(slots=True)
class Promise:
    """What a member has said to the beginning of a proof; gone with the process."""

    horizon: int
    taken: bool = False
    """A hint as old as the horizon was taken in since."""


class PurgeNode:
    """One member of the cluster."""

    def __init__(self, number: int, now_ms: Callable[[], int], conflict: Conflict, *, skew_ms: int) -> None:
        self.id: NodeId = NodeId(number)
        self.store: LogStore = LogStore()
        self.conflict = conflict
        self.up: bool = True
        self.boots: int = 1
        self.incarnation = 1
        self._now_ms = now_ms
        self.skew_ms = skew_ms
        self.ceiling: int = 0
        """Durable: below every stamp it will mint."""
        self._epoch_ceiling = 0
        self.backup: tuple[dict[Place, Value], int] = dict(self.store.data), 0
        self.start()

    # -- lives

    def start(self) -> None:
        """Come up with what the store has."""
        self.identity: ActorIdentity = ActorIdentity(1, self.id, self.incarnation)
        self.epochs: EpochLease = EpochLease.recovered(ceiling=self._epoch_ceiling, floor=0, clean=False)
        self._epoch_ceiling = self.epochs.next_epoch + EPOCHS
        self.epochs.grant(self._epoch_ceiling)
        self.last: int = self.ceiling
        self.lift(self.horizon)
        self.promises: dict[int, Promise] = {}
        self.exchanged: set[int] = set()
        """With whom it has exchanged everything since this start, or since it came to doubt itself."""
        self.levelled: set[int] = set()
        """With whom so while no owner vouched: each gave all it had."""
        self.swept: int = -1
        self.boots += 1
        self.up = True

    def replace(self, data: dict[Place, Value], ceiling: int) -> None:
        """Another disk: an empty one, or an old copy of its own."""
        self.store.replace(data)
        self.ceiling = ceiling

    def doubt(self, *, vouches: bool) -> None:
        """It may have forgotten something; unless it vouches still, of what lies below the horizon as well."""
        self.store.write(DOUBT, 1)
        if not vouches:
            self.store.write(MARK, None)
        self.exchanged.clear()
        self.levelled.clear()

    # -- what it is

    @property
    def horizon(self) -> int:
        """As far as it has heard."""
        return int(self.store.data.get(HORIZON) or 0)

    @property
    def vouches(self) -> bool:
        """Whether it had everything below the horizon once, and has only forgotten by right since."""
        return self.vouches_for(self.horizon)

    def vouches_for(self, horizon: int) -> bool:
        """As `vouches`, of a horizon of which it may not have heard."""
        mark = self.store.data.get(MARK)
        return isinstance(mark, int) and mark >= horizon

    @property
    def complete(self) -> bool:
        """Whether what is not here was never here, or has been forgotten by right."""
        return not self.store.data.get(DOUBT) and self.vouches

    def record(self, key: int) -> bytes | None:
        """An owner's."""
        return bytes_of(self.store.data.get(record_of(key)))

    def hints(self) -> list[tuple[Place, bytes]]:
        """All of them, in order."""
        found = ((place, bytes_of(value)) for place, value in self.store.data.items() if place[0] == "h")
        return sorted((place, value) for place, value in found if value is not None)

    # -- the clock

    def stamp(self) -> int:
        """A new stamp."""
        self.last = self.ceiling = max((self._now_ms() + self.skew_ms) << LOGICAL_BITS, self.last + 1)
        return self.last

    def lift(self, horizon: int) -> None:
        """Nothing is minted below it from now on, in this life."""
        self.last = max(self.last, horizon)

    def learn(self, horizon: int) -> None:
        """It hears of the register's horizon."""
        if horizon > self.horizon:
            self.store.write(HORIZON, horizon)
            self.lift(horizon)

    # -- records

    def mint(
        self, place: Place, context: CausalClock | None, floor: int, value: bytes | None, expires_ms: int, number: int
    ) -> PutResult:
        """A client's write over what is at `place`."""
        result = put(
            bytes_of(self.store.data.get(place)),
            context,
            identity=self.identity,
            epochs=self.epochs,
            stamp=self.stamp(),
            expires_ms=expires_ms,
            op_id=number.to_bytes(16, "big"),
            value=value,
            conflict=self.conflict,
            floor=floor,
        )
        self.store.write(place, result.data)
        return result

    def take(self, place: Place, incoming: bytes) -> bool:
        """A record that comes in any way but an exchange; whether all of it was taken."""
        local = bytes_of(self.store.data.get(place))
        whole = not left_out(local, incoming, self.horizon)
        self.store.write(place, self.accepted(local, incoming))
        return whole

    def accepted(self, local: bytes | None, incoming: bytes) -> bytes | None:
        """What it makes of the two."""
        return accept_above(
            local, incoming, self.conflict, identity=self.identity, epochs=self.epochs, horizon=self.horizon
        )

    def keep(self, place: Place, incoming: bytes) -> bool:
        """As `take`, of a copy for somebody else."""
        for promise in self.promises.values():
            promise.taken |= any(head.stamp < promise.horizon for head in header(incoming).heads.values())
        return self.take(place, incoming)

    def answer(self, record: bytes | None, horizon: int, *, owner: bool) -> bytes | None:
        """What a reader makes of what is here: below the `horizon` that somebody has named it believes who vouches."""
        if record is None or (owner and self.vouches_for(horizon)):
            return record
        return admitted(None, record, horizon)

    def sweep(self) -> None:
        """Forget what is dead below the horizon."""
        for place, value in sorted(self.store.data.items(), key=lambda item: item[0]):
            if place[0] == "r" and isinstance(value, bytes) and self.forgettable(value):
                self.store.write(place, None)
        self.swept = self.horizon

    def forgettable(self, record: bytes) -> bool:
        """Whether it may go."""
        return is_dead(record, self.horizon)

    # -- exchanges

    def compared(self, key: int, theirs: bytes | None, *, vouched: bool, mutual: bool) -> bool:
        """The other side's record in an exchange; whether it proves that something was lost here.

        `vouched`: the other vouches for what lies below the horizon. `mutual`: nobody does, and all give everything.
        """
        place, local = record_of(key), self.record(key)
        if local == theirs:
            return False
        if vouched and not self.vouches:
            self.store.write(place, self.made_whole(local, theirs))
        elif theirs is not None and (vouched or mutual):
            self.store.write(place, accept(local, theirs, self.conflict, identity=self.identity, epochs=self.epochs))
            if vouched and proves_loss(local, theirs, self.horizon):
                self.doubt(vouches=True)
                return True
        elif theirs is not None:
            self.take(place, theirs)
        return False

    def made_whole(self, local: bytes | None, vouched: bytes | None) -> bytes | None:
        """What becomes of the own record of a store that cannot vouch for it."""
        return restored(local, vouched, self.conflict, identity=self.identity, epochs=self.epochs, horizon=self.horizon)

    def met(self, other: int, owners: Iterable[int]) -> None:
        """An exchange that began in this life, and in this doubt, is done."""
        self.exchanged.add(other)
        if self.vouches and self.exchanged >= set(owners) - {self.id}:
            self.store.write(DOUBT, None)

    # -- proofs

    def begin(self, proof: int, horizon: int) -> bool:
        """The first answer of a member: nothing below `horizon` is minted from now on, and no hint is kept."""
        self.lift(horizon)
        self.promises[proof] = Promise(horizon)
        return not self.hints() and not self.marked_above(horizon)

    def marked_above(self, horizon: int) -> bool:
        """Whether it has vouched for more already, in a proof that came to nothing. Copies of its disk still do."""
        mark = self.store.data.get(MARK)
        return isinstance(mark, int) and mark > horizon

    def end(self, proof: int, *, owner: bool) -> bool:
        """The second: nothing that old was taken in as a hint since; an owner vouches, durably."""
        promise = self.promises.get(proof)
        if promise is None or not self.hints_clean(promise):
            return False
        if owner and not self.complete:
            return False
        self.ceiling = max(self.ceiling, promise.horizon)
        if owner:
            self.vouch(promise.horizon)
        return True

    def hints_clean(self, promise: Promise) -> bool:
        """Whether no hint that old has come since the beginning."""
        return not promise.taken

    def vouch(self, horizon: int) -> None:
        """In the log after all that it vouches for."""
        self.store.write(MARK, horizon)
        self.store.sync()


def _apply(data: dict[Place, Value], place: Place, value: Value) -> None:
    if value is None:
        data.pop(place, None)
    else:
        data[place] = value
