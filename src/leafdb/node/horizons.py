"""The horizons of this node: below which stamps partitions may forget, and below which this store vouches.

A horizon is a fact of the metadata (`ring/horizons.py`): the stamp below which every owner of the partition was proved
to have had everything. What this store itself can say is its *mark*: that below this stamp it has had everything, and
has let go only by right. It *vouches* while its mark is not below the horizon. A mark stands in the PURGE tree of the
same log as the records, behind all that it speaks of: so a store that lost its end, or is an old copy, has just as much
of a mark as it is entitled to (docs/decisions/0008, section 2; docs/formats/purge.md).

Whoever decides about records asks here, by partition or by storage key; nobody else reads marks or horizons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from leafdb.codec.varint import decode_varint, encode_varint
from leafdb.errors import CorruptionError, StorageError
from leafdb.limits import PARTITIONS_MAX
from leafdb.model.hlc import STAMP_MAX
from leafdb.node.engine_reads import read_page
from leafdb.node.logs import Log
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.types import Durability, PartitionId, TreeId

PURGE_TREE: Final = TreeId(6)
MARK: Final = 1
"""First byte of the keys of marks; what dies has another (docs/formats/purge.md)."""

log: Log = Log("purge")


class Standing(NamedTuple):
    """Where a store stands in one partition. Two stores exchange records as these two say, and for as long."""

    horizon: int
    vouches: bool


class Horizons:
    """Of one node. `changed` is told of every partition of which the horizon here or the own mark has changed: nothing
    that began under the old ones may go on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stamps: tuple[int, ...] = ()
        """By partition; empty while nothing has been proved."""
        self._shift = 16
        self._marks: dict[int, int] = {}
        self._swept: dict[int, int] = {}
        self.on_change: list[Callable[[Iterable[int]], None]] = []
        self.on_swept: list[Callable[[Iterable[int]], None]] = []
        """Told of partitions in which the sweeper has passed another horizon."""

    async def load(self) -> None:
        """Take the marks that the store has. Raises StorageError."""
        page = await read_page(self._engine, PURGE_TREE, bytes((MARK,)), bytes((MARK + 1,)), limit=PARTITIONS_MAX)
        assert page.next_key is None, "a mark for each partition"
        for key, value in page.items:
            try:
                stamp, end = decode_varint(value, 0)
                if len(key) != 3 or end != len(value) or not 0 < stamp <= STAMP_MAX:
                    raise ValueError("a malformed mark")
            except ValueError as error:
                raise CorruptionError(f"what this store vouches for cannot be read: {error}") from None
            self._marks[int.from_bytes(key[1:], "big")] = stamp

    def installed(self, metadata: ClusterMetadata) -> None:
        """This metadata is in force, and stands in the log before whatever is written from now on."""
        stamps = tuple(horizon.stamp for horizon in metadata.horizons)
        before, self._stamps = self._stamps, stamps
        self._shift = 16 - (metadata.partitions - 1).bit_length()
        if stamps != before:
            known = before or (0,) * len(stamps)
            self._changed(at for at, (old, new) in enumerate(zip(known, stamps, strict=True)) if old != new)

    # -- what is asked

    def of(self, partition: PartitionId | int) -> int:
        """The horizon of a partition, a stamp; 0: nothing has been proved."""
        return self._stamps[partition] if self._stamps else 0

    def at(self, storage_key: bytes) -> int:
        """The horizon of the partition that a storage key falls into."""
        stamps = self._stamps
        return stamps[(storage_key[0] << 8 | storage_key[1]) >> self._shift] if stamps else 0

    def mark(self, partition: PartitionId | int) -> int:
        """Below which stamp this store has had everything; 0: it cannot say."""
        return self._marks.get(partition, 0)

    def vouches(self, partition: PartitionId | int) -> bool:
        """Whether this store had everything below the horizon, and has let go only by right."""
        stamps = self._stamps
        return not stamps or self._marks.get(partition, 0) >= stamps[partition]

    def vouches_below(self, partition: PartitionId | int, stamp: int) -> bool:
        """As `vouches`, and below a horizon that somebody else has heard of as well; 0: nobody has."""
        stamps = self._stamps
        if stamps and stamps[partition] > stamp:
            stamp = stamps[partition]
        return not stamp or self._marks.get(partition, 0) >= stamp

    def doubted(self, storage_key: bytes, horizon: int = 0, *, holder: bool = True) -> int:
        """Below which stamp readers who know of `horizon` believe nothing of what is here of a key. 0: they believe all
        of a holder of the range that vouches below that horizon, and the one known here. Whoever does not, or keeps it
        for somebody else, cannot say of what lies below the newer one that it was not deleted since."""
        stamps = self._stamps
        if not stamps and not horizon:
            return 0
        partition = (storage_key[0] << 8 | storage_key[1]) >> self._shift
        if stamps and stamps[partition] > horizon:
            horizon = stamps[partition]
        return 0 if holder and self._marks.get(partition, 0) >= horizon else horizon

    def standing(self, partition: PartitionId | int) -> Standing:
        """Both."""
        return Standing(self.of(partition), self.vouches(partition))

    def swept(self, partition: PartitionId | int) -> int:
        """The horizon down to which what died has been removed here, in this life of the process. An exchange begins,
        or is answered, only where that is the horizon: else one side names what the other has forgotten."""
        return self._swept.get(partition, 0)

    # -- what happens

    def has_swept(self, partition: PartitionId | int, stamp: int) -> None:
        """The sweeper has passed this horizon in the partition."""
        self._swept[partition] = stamp
        for callback in self.on_swept:
            callback((int(partition),))

    def vouch(
        self, partitions: Iterable[int], stamp: int, done: Callable[[StorageError | None], None] | None = None
    ) -> None:
        """From now on this store vouches below `stamp`; `done` once that is on the disk, with all that was written
        before. A mark never falls so."""
        engine = self._engine
        raised = sorted(at for at in partitions if self._marks.get(at, 0) < stamp)
        if raised:
            self._marks.update(dict.fromkeys(raised, stamp))
            value = encode_varint(stamp)
            engine.write([(PURGE_TREE, mark_key(at), value) for at in raised], Durability.ALWAYS, done)
            self._changed(raised)
        elif done is not None:
            engine.when_safe(engine.last_sequence, Durability.ALWAYS, done)

    def retract(self, partitions: Iterable[int], reason: str) -> None:
        """This store cannot vouch for these any more. It stands in the log before whatever is dropped for it."""
        gone = sorted(at for at in partitions if at in self._marks)
        if gone:
            for at in gone:
                del self._marks[at]
            log.warning("this store vouches no more for what was deleted long ago", partitions=len(gone), reason=reason)
            self._engine.write([(PURGE_TREE, mark_key(at), None) for at in gone], Durability.ALWAYS, None)
            self._changed(gone)

    def _changed(self, partitions: Iterable[int]) -> None:
        changed = tuple(partitions)
        if changed:
            for callback in self.on_change:
                callback(changed)


def mark_key(partition: int) -> bytes:
    """Where the mark of a partition is kept."""
    return bytes((MARK,)) + partition.to_bytes(2, "big")
