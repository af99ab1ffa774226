"""Forgets what is dead below the horizon: one task, which follows the notes of deaths (`deaths`, decision 0008).

    horizon rises, or something is noted below it  ->  partition due  ->  notes below the horizon, a page at a time
        ->  the key's turn: is the note true?  ->  record and note go together, or the note alone

What is found in a key's turn decides, not the note (`model.purge.fate`). A removal is an ordinary deletion, with its
mark for the hash tree; it need not be synced: a crash that undoes it brings the note back with the record. It goes by
the horizon of the metadata in force, which were synced before they came into force: so wherever a removal stands in the
log, the horizon that allowed it stands before it.

Records of a range that is another's to hold stay until their holders have been offered them (leftovers.py); when the
ring changes they are looked at again. Notes of a bucket that is gone just go. Where something cannot be read or written
the partition stays due, and is tried again after a while; what is kept in memory is one page, and a number for each
partition. A full disk stops nothing: forgetting makes room.

When a partition has been gone through to the horizon, `Horizons.swept` says so, for this life of the process; and the
storage engine is told, which drops tables of which nothing is left: after their records have left the hash trees.

Notes are taken back by writes as well, and then what is known as the least death of a partition is less than the least
that is noted. That harms nobody, but a node that leads nothing would tell people for good of something dead that is not
there: so where nothing happens what is known is looked at again from time to time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

import trio

from leafdb.errors import StorageError
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.purge import NEVER, Fate, fate, record_death
from leafdb.node.deaths import DEATH, Deaths, note_start, split_note
from leafdb.node.engine_reads import read_page
from leafdb.node.horizons import PURGE_TREE, Horizons
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.node.pace import Pace
from leafdb.node.range_scanner import FIRST_COST_S, SCAN_COST_S
from leafdb.node.replica import Replica
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import partition_range
from leafdb.storage.engine import Engine
from leafdb.storage.reads import ReadsOverloaded
from leafdb.types import BucketId, Durability, PartitionId, TreeId

PAGE_NOTES: Final = 256
PAGE_BYTES: Final = 64 * 1024
GROUP_NOTES: Final = 16
"""Records that are fetched at once."""
AGAIN_S: Final = 1.0
"""Before what could not be done is tried again."""
STORE_FAILED_WAIT_S: Final = 10.0
LOOK_AGAIN_S: Final = 600.0

log: Log = Log("sweeper")


class _Round:
    """One way through a partition: what its turns have found."""

    __slots__ = ("_left", "_over", "failed", "horizon", "kept", "partition")

    def __init__(self, partition: int, horizon: int) -> None:
        self.partition: int = partition
        self.horizon: int = horizon
        self.kept: int = NEVER
        """The least death of what stays."""
        self.failed: str = ""
        """Why something could not be looked at, or not be removed."""
        self._left = 0
        self._over = trio.Event()

    def begin(self, turns: int) -> None:
        """So many turns are to come."""
        self._left = turns
        self._over = trio.Event()

    def one_less(self) -> None:
        """One is over."""
        self._left -= 1
        if not self._left:
            self._over.set()

    async def over(self) -> None:
        """All of them are."""
        await self._over.wait()


class _Turn(NamedTuple):
    """Look whether a note is true."""

    sweeper: Sweeper
    round: _Round
    note: bytes
    death: int
    tree: TreeId
    key: bytes

    def run(self, value: bytes | None, sequence: int) -> None:
        try:
            self.sweeper.judge(self, value)
        except StorageError as error:
            self.round.failed = str(error)
        self.round.one_less()

    def refuse(self, error: Exception) -> None:
        self.round.failed = str(error)
        self.round.one_less()


class Sweeper:
    """See the top of this file. `run` is its one task."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        replica: Replica,
        horizons: Horizons,
        deaths: Deaths,
        pace: Pace,
        metrics: Metrics,
    ) -> None:
        """Made before the first metadata are installed, and after `horizons` has begun to follow them."""
        self._engine = engine
        self._view = view
        self._replica = replica
        self._horizons = horizons
        self._deaths = deaths
        self._pace = pace
        self._metrics = metrics
        self._looked_through = False
        self._due: set[int] = set()
        self._waiting: set[int] = set()
        """Partitions with something dead that is another's to hold."""
        self._under_way = -1
        self._wake = trio.Event()
        deaths.on_death = self._noted
        horizons.on_change.append(self._changed)
        view.on_install.append(self._installed)

    # -- what is asked

    def oldest_death(self, partition: PartitionId | int) -> int | None:
        """The least death that is noted in a partition, or somewhat less; None: nothing dies there, or nobody has
        looked yet since the start."""
        return self._deaths.oldest(partition)

    def dead_since(self, now: int) -> list[int]:
        """Of each partition in which something that is dead at the stamp `now` is still stored, when the first of it
        died."""
        return [death for death in self._deaths.partitions().values() if death < now]

    @property
    def quiet(self) -> bool:
        """Nothing is due, or under way."""
        return self._looked_through and not self._due and self._under_way < 0

    # -- reasons

    def _changed(self, partitions: Iterable[int]) -> None:
        self._due.update(partitions)
        self._wake.set()

    def _installed(self, metadata: ClusterMetadata) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            self._changed(waiting)

    def _noted(self, partition: int, death: int) -> None:
        """Mostly of the future. A late deletion may be dead below the horizon as it comes."""
        if death < self._horizons.of(partition):
            self._horizons.has_swept(partition, 0)
            self._changed((partition,))

    # -- the task

    async def run(self) -> None:
        """Work until cancelled."""
        idle = False
        while True:
            self._wake = trio.Event()
            try:
                if not self._looked_through:
                    await self._look_through()
                if idle:
                    idle = False
                    await self._look_again()
                await self._sweep()
            except ReadsOverloaded:
                await trio.sleep(AGAIN_S)
            except StorageError as error:
                log.error("what has died cannot be read", reason=str(error))
                await trio.sleep(STORE_FAILED_WAIT_S)
            else:
                if self._due:
                    await trio.sleep(AGAIN_S)
                else:
                    with trio.move_on_after(LOOK_AGAIN_S) as pause:
                        await self._wake.wait()
                    idle = pause.cancelled_caught

    async def _look_through(self) -> None:
        """Find out in which partitions anything dies, and when first."""
        start = note_start(0, 0)
        while True:
            page = await read_page(self._engine, PURGE_TREE, start, _END, limit=1)
            await self._pace.spent(self._pace.begin(), FIRST_COST_S)
            partition = -1
            for note, _ in page.items:
                partition, death, _, _ = split_note(note)
                self._deaths.found(partition, death)
            if page.next_key is None or partition == 0xFFFF:
                break
            # A page may find nothing but notes that were removed: then it goes on where that one ended.
            start = page.next_key if partition < 0 else note_start(partition + 1, 0)
        self._looked_through = True

    async def _look_again(self) -> None:
        """Find out the least death anew, of each partition in which nothing stands below the horizon."""
        for partition in sorted(self._deaths.partitions()):
            least = self._deaths.oldest(partition)  # as of now: others were waited for since they were listed
            if least is None or partition in self._waiting or partition in self._due:
                continue
            began = self._pace.begin()
            self._deaths.look(partition)
            try:
                least = await self._first_after(partition, self._horizons.of(partition))
            finally:
                self._deaths.looked(partition, least)
            await self._pace.spent(began, FIRST_COST_S)

    async def _sweep(self) -> None:
        """Go once through every partition that is due."""
        began = self._pace.begin()
        for partition in sorted(self._due):
            if await self._pass(partition):
                began = self._pace.begin()
            elif self._pace.over(began):
                await self._pace.spent(began)
                began = self._pace.begin()

    async def _pass(self, partition: int) -> bool:
        """Go through a partition down to its horizon; answers whether there was anything to go through."""
        self._due.discard(partition)
        horizon, oldest = self._horizons.of(partition), self._deaths.oldest(partition)
        if oldest is None or oldest >= horizon:
            self._swept(partition, horizon)
            return False
        round = _Round(partition, horizon)
        least = oldest
        self._under_way = partition
        self._deaths.look(partition)
        try:
            await self._go_through(round, note_start(partition, oldest), note_start(partition, horizon))
            if not round.failed:
                least = round.kept if round.kept != NEVER else await self._first_after(partition, horizon)
        except StorageError as error:
            round.failed = str(error)
            raise
        finally:
            self._deaths.looked(partition, least)
            self._under_way = -1
            if round.failed:
                self._due.add(partition)
        if round.failed:
            log.info("something dead could not be removed yet", partition=partition, reason=round.failed)
        elif partition not in self._due:
            # Nothing was noted below the horizon meanwhile, and it is the same: either would have made it due.
            self._swept(partition, horizon, kept=round.kept != NEVER)
        return True

    def _swept(self, partition: int, horizon: int, *, kept: bool = False) -> None:
        """All that is noted below the horizon of a partition was looked at, and is gone but for what is `kept`.

        If nothing is, the store may drop tables that hold nothing else (decision 0009, section 5). Not where something
        may be dead that is not noted, since older states show in a hole: there this store does not vouch.
        """
        self._horizons.has_swept(partition, horizon)
        metadata = self._view.metadata
        if kept:
            self._waiting.add(partition)
        elif metadata is not None and (self._horizons.vouches(partition) or not self._is_holder(partition)):
            start, stop = partition_range(PartitionId(partition), metadata.partitions)
            self._engine.forgotten(start, stop, horizon >> LOGICAL_BITS)

    def _is_holder(self, partition: int) -> bool:
        return any(self._holds(TreeId(bucket), partition) for bucket in self._view.buckets)

    async def _go_through(self, round: _Round, start: bytes, stop: bytes) -> None:
        while True:
            page = await read_page(self._engine, PURGE_TREE, start, stop, limit=PAGE_NOTES, bytes_max=PAGE_BYTES)
            for at in range(0, len(page.items), GROUP_NOTES):
                await self._room()
                group = page.items[at : at + GROUP_NOTES]
                round.begin(len(group))
                began = self._pace.begin()
                for note, _ in group:
                    self._look_at(round, note)
                await self._pace.spent(began, SCAN_COST_S * len(group))
                await round.over()
            if page.next_key is None:
                return
            start = page.next_key

    async def _first_after(self, partition: int, horizon: int) -> int:
        """The first death in a partition that is not below the horizon; NEVER: there is none."""
        start, stop = note_start(partition, horizon), note_start(partition, NEVER)
        while True:
            page = await read_page(self._engine, PURGE_TREE, start, stop, limit=1)
            if page.items:
                return split_note(page.items[0][0])[1]
            if page.next_key is None:
                return NEVER
            start = page.next_key

    async def _room(self) -> None:
        """Return when the engine has no objection to writes, but for a full disk."""
        while True:
            try:
                self._replica.admit()
            except ReplicaOverloaded as error:
                await trio.sleep(error.retry_after_s)
                continue
            except StorageError:
                pass
            return

    # -- a note

    def _look_at(self, round: _Round, note: bytes) -> None:
        _, death, tree, key = split_note(note)
        turn = _Turn(self, round, note, death, tree, key)
        if tree in self._view.buckets:
            self._replica.queue.do(tree, key, turn)
        else:
            turn.run(None, 0)  # the bucket was dropped: numbers are never used again

    def judge(self, turn: _Turn, record: bytes | None) -> None:
        """Do what is to be done about a record that is here now. Raises StorageError."""
        round, tree, key = turn.round, turn.tree, turn.key
        match fate(record, turn.death, round.horizon, by_right=self._holds(tree, round.partition)):
            case Fate.FORGOTTEN:
                assert record is not None
                # Its own note goes with it (`Deaths.entries`); this may be one of what was here before it.
                also = () if record_death(record) == turn.death else ((PURGE_TREE, turn.note, None),)
                self._replica.remove(tree, key, record, Durability.PERIODIC, also=also)
                self._metrics.records_forgotten_total += 1
            case Fate.STALE:
                self._engine.write(((PURGE_TREE, turn.note, None),), Durability.PERIODIC, None)
            case Fate.KEPT:
                round.kept = min(round.kept, turn.death)

    def _holds(self, tree: TreeId, partition: int) -> bool:
        bucket, ring = self._view.buckets.get(BucketId(tree)), self._view.ring
        if bucket is None or ring is None:
            return False
        return ring.is_primary(self._view.self_id, PartitionId(partition), bucket.properties.n)

    def check(self) -> None:
        """What is known is of partitions that exist, and what was swept is what nobody has noted anything below."""
        metadata = self._view.metadata
        if metadata is None:
            return
        for partition in (*self._due, *self._waiting):
            assert partition < metadata.partitions
        for partition, oldest in self._deaths.partitions().items():
            swept = self._horizons.swept(partition)
            assert oldest >= swept or partition in (*self._waiting, *self._due, self._under_way)


_END: Final = bytes((DEATH + 1,))
