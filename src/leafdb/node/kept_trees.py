"""The hash tree of every (bucket, partition) here, in memory, right after every write: the one door by which records of
buckets are written to the store (decision 0008).

A write says what it replaces: its digest goes into the log as a mark, and both digests into the tree. The trees are
saved when the log is about to forget (`tree_saver`), loaded at the start, with the log applied to them (`tree_loader`),
and built by a scan beside traffic where one is not known (`tree_rebuild`): it is missing or damaged, or its log has no
marks, or it was found to disagree with the store.

How it is told that a tree is wrong: an exchange lists the keys of leaves that differ. The list of a leaf that nobody
wrote to meanwhile must add up to its hash (`tree_doubts`); if it does not, the tree is not known any more.

Trees are sparse, and there is one for each range that has ever had a record: with 256 partitions at most 5.8 MiB a
bucket. Beyond TREES_KEPT_BYTES_MAX a range that gets its first record here has no kept tree; its exchanges scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import TREES_KEPT_BYTES_MAX
from leafdb.merkle.building import Building
from leafdb.merkle.kept import NOTHING, LoggedChanges, bucket_key, encode_bucket, encode_tree, tree_key
from leafdb.merkle.tree import LEAF_MASK, LEAF_SEED, TREE_BASE_BYTES, Tree
from leafdb.model.record_format import lives_on
from leafdb.node.deaths import Deaths
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.ring.token import partition_bits, partition_range
from leafdb.storage.committer import Waiter
from leafdb.storage.engine import Engine
from leafdb.storage.wal_format import WalEntry
from leafdb.types import FIRST_BUCKET_ID, BucketId, Durability, PartitionId, TreeId

TREES_TREE: Final = TreeId(5)
_PLACE_BITS: Final = 16
"""A partition is told by so many bits of a storage key; there are no more partitions."""
_PARTITION_MASK: Final = (1 << _PLACE_BITS) - 1

log: Log = Log("trees")


class KeptRange:
    """What is kept of one (bucket, partition)."""

    __slots__ = ("building", "dirty", "held_bytes", "lsn", "saved", "touched", "tree")

    def __init__(self, tree: Tree | None) -> None:
        self.tree: Tree | None = tree
        """As of the last write; None: not known."""
        self.lsn: int = 0
        """The last write."""
        self.dirty: bool = False
        """What is saved is not what is here."""
        self.saved: bool = False
        """It has an entry in the store."""
        self.held_bytes: int = TREE_BASE_BYTES
        """Of memory, when it was last looked at."""
        self.building: Building | None = None
        """Another one than before: what was read so far counts for nothing."""
        self.touched: set[int] | None = None
        """Leaves written to since somebody began to list some."""


class KeptTrees:
    """Made before the store is opened, since it follows the log from the first byte; `open` gives it the store."""

    def __init__(self, metrics: Metrics, bytes_max: int = TREES_KEPT_BYTES_MAX) -> None:
        self.metrics = metrics
        self.logged: LoggedChanges = LoggedChanges()
        self.ranges: dict[int, KeptRange] = {}
        """By bucket and partition, as one number (`place`)."""
        self.buckets: set[TreeId] = set()
        """Buckets of which every tree is kept; a range that is not in `ranges` is empty."""
        self.dirty: dict[int, KeptRange] = {}
        self.unknown: dict[int, KeptRange] = {}
        self.deaths: Deaths = Deaths()
        """When what is written here dies."""
        self.partitions: int = 1
        self._shift = _PLACE_BITS
        self.saved_sequence: int = 0
        """Of the last write to the TREES tree."""
        self.on_unknown: Callable[[], None] = lambda: None
        """Told when there is a tree to be built."""
        self.on_doubt: Callable[[PartitionId], None] = lambda partition: None
        """Told of a range whose tree disagrees with the store."""
        self._held_bytes = 0
        self._bytes_max = bytes_max

    # -- the store

    def replayed(self, lsn: int, tree: TreeId, key: bytes, value: bytes | None, mark: bytes) -> None:
        """An entry of the log, as the store is opened."""
        if tree >= FIRST_BUCKET_ID:
            self.logged.add(lsn, tree, key, value, mark)

    def open(self, engine: Engine) -> None:
        """This is the store; it has a TREES tree."""
        self.engine = engine

    def set_partitions(self, partitions: int) -> None:
        """So many are in the ring, from now on and for ever."""
        assert not self.ranges or partitions == self.partitions
        self.partitions = partitions
        self._shift = _PLACE_BITS - partition_bits(partitions)

    def write(
        self,
        tree: TreeId,
        key: bytes,
        old: bytes | None,
        new: bytes | None,
        durability: Durability,
        done: Waiter | None = None,
        also: Sequence[WalEntry] = (),
    ) -> int:
        """Replace the record of a key: `old` is what the store has now, None stands for nothing. `also` is written with
        it, all or nothing. Answers the sequence number. Raises StorageError."""
        place = tree << _PLACE_BITS | (key[0] << 8 | key[1]) >> self._shift  # `place`, by hand: this is the hot path
        if new is None or not lives_on(new):
            also = (*self.deaths.entries(place & _PARTITION_MASK, tree, key, old, new), *also)
        before = 0 if old is None else xxh3_64(key + old)
        mark = NOTHING if old is None else before.to_bytes(8, "big")
        lsn = self.engine.write(((tree, key, new), *also), durability, done, mark)
        kept = self.ranges.get(place) or self._begin(place)
        kept.lsn = lsn
        leaf = xxh3_64(key, LEAF_SEED) & LEAF_MASK  # `leaf_of`, by hand
        delta = before if new is None else before ^ xxh3_64(key + new)
        keys = (new is not None) - (old is not None)
        known = kept.tree
        if known is not None:
            known.change(leaf, delta, keys)
            if not kept.dirty:
                self.soil(place, kept)
        if kept.building is not None:
            kept.building.changed(key, leaf, delta, keys)
        if kept.touched is not None:
            kept.touched.add(leaf)
        return lsn

    def _begin(self, place: int) -> KeptRange:
        """The first record of a range here."""
        assert place >> _PLACE_BITS in self.buckets, "a write to a bucket nobody has told of"
        if self.room:
            return self.keep(place, Tree())
        kept = self.keep(place, None)
        self.save(place, kept)
        return kept

    # -- buckets

    def installed(self, partitions: int, buckets: set[TreeId], created: set[TreeId]) -> None:
        """These are the buckets; of them the `created` have just been made, empty."""
        for tree in sorted(self.buckets - buckets):
            self._forget(tree)
        self.set_partitions(partitions)
        for tree in sorted(buckets - self.buckets):
            entries: list[WalEntry] = [(TREES_TREE, bucket_key(BucketId(tree)), encode_bucket(partitions))]
            if tree not in created:
                log.info("the hash trees of a bucket are not kept yet", bucket=int(tree))
                for partition in range(partitions):
                    place = tree << _PLACE_BITS | partition
                    entries.append(_entry(place, self.keep(place, None), 0))
            self._write(entries)
            self.buckets.add(tree)

    def _forget(self, tree: TreeId) -> None:
        self.buckets.discard(tree)
        entries: list[WalEntry] = [(TREES_TREE, bucket_key(BucketId(tree)), None)]
        for place in [place for place in self.ranges if place >> _PLACE_BITS == tree]:
            kept = self.ranges.pop(place)
            self._held_bytes -= kept.held_bytes
            self.dirty.pop(place, None)
            self.unknown.pop(place, None)
            if kept.saved:
                entries.append((TREES_TREE, tree_key(*split(place)), None))
        self._write(entries)

    # -- what is kept

    def keep(self, place: int, tree: Tree | None) -> KeptRange:
        """This is the tree of a range; None: it is not known."""
        kept = self.ranges.get(place)
        if kept is None:
            kept = self.ranges[place] = KeptRange(tree)
            self._held_bytes += kept.held_bytes
        kept.tree = tree
        self.measure(kept)
        if tree is None:
            self.unknown[place] = kept
            kept.dirty = False
            self.dirty.pop(place, None)
            self.on_unknown()
        else:
            self.unknown.pop(place, None)
        return kept

    def place(self, tree: TreeId, bits: int) -> int:
        """The range that a key of a bucket falls into, by its first 16 bits."""
        return tree << _PLACE_BITS | bits >> self._shift

    def soil(self, place: int, kept: KeptRange) -> None:
        """It has changed, and is to be saved."""
        kept.dirty = True
        self.dirty[place] = kept

    def measure(self, kept: KeptRange) -> None:
        """Look at how much memory it takes."""
        held = TREE_BASE_BYTES if kept.tree is None else kept.tree.held_bytes()
        self._held_bytes += held - kept.held_bytes
        kept.held_bytes = held

    @property
    def room(self) -> bool:
        """Whether one more tree may be kept."""
        return self._held_bytes < self._bytes_max

    def held_bytes(self) -> int:
        """About the memory that all of them take."""
        return self._held_bytes

    def of(self, tree: TreeId, partition: PartitionId) -> Tree | None:
        """The tree of a range of a bucket that is here; None when it is not known. To be read, at once."""
        assert tree in self.buckets
        kept = self.ranges.get(tree << _PLACE_BITS | partition)
        return Tree() if kept is None else kept.tree

    def doubt(self, tree: TreeId, partition: PartitionId, reason: str) -> None:
        """What is kept of a range is not what the store has: it is to be built anew."""
        place = tree << _PLACE_BITS | partition
        kept = self.ranges.get(place)
        if kept is None or kept.tree is None:
            return
        self.metrics.hash_trees_doubted_total += 1
        log.error("a hash tree disagrees with the store", bucket=int(tree), partition=int(partition), reason=reason)
        self.keep(place, None)
        self.save(place, kept)
        self.on_doubt(partition)

    def lose(self, tree: TreeId, partitions: Iterable[int]) -> None:
        """The store may have lost records of these ranges: their trees, also those being built, say too much."""
        places = [tree << _PLACE_BITS | partition for partition in partitions]
        gone = [(place, self.ranges[place]) for place in places if place in self.ranges]
        for place, kept in gone:
            self.keep(place, None)
            if kept.building is not None:
                kept.building = Building()
        for place, kept in gone:
            self.save(place, kept)

    def lose_all(self) -> None:
        """The store may have lost saved trees: what is not kept need not be empty, and what is may be old."""
        for tree in sorted(self.buckets):
            for partition in range(self.partitions):
                if tree << _PLACE_BITS | partition not in self.ranges:
                    self.keep(tree << _PLACE_BITS | partition, None)
            self.lose(tree, range(self.partitions))

    # -- saving

    def save(self, place: int, kept: KeptRange) -> None:
        """Write it as it is now, with the number of the last write. Raises StorageError."""
        self.write_saved([self.as_saved(place, kept)])

    def as_saved(self, place: int, kept: KeptRange) -> WalEntry:
        """What says how it is now, with the number of the last write: to be written before anything else is."""
        self.measure(kept)
        return _entry(place, kept, self.engine.last_sequence)

    def write_saved(self, entries: list[WalEntry]) -> None:
        """Raises StorageError."""
        self._write(entries)

    def _write(self, entries: list[WalEntry]) -> None:
        self.saved_sequence = self.engine.write(entries, Durability.PERIODIC, None)

    def check(self) -> None:
        """What is held together about ranges agrees; costly."""
        assert self._held_bytes == sum(kept.held_bytes for kept in self.ranges.values())
        for place, kept in self.ranges.items():
            assert TreeId(place >> _PLACE_BITS) in self.buckets
            assert (place in self.dirty) == kept.dirty
            assert (place in self.unknown) == (kept.tree is None)
            if kept.tree is not None:
                kept.tree.check()


def split(place: int) -> tuple[BucketId, PartitionId]:
    """Bucket and partition of a place."""
    return BucketId(place >> _PLACE_BITS), PartitionId(place & _PARTITION_MASK)


def place_of(bucket: BucketId, partition: PartitionId) -> int:
    """Bucket and partition as one number."""
    return bucket << _PLACE_BITS | partition


def span_of(trees: KeptTrees, place: int) -> tuple[bytes, bytes]:
    """The storage keys of a range."""
    return partition_range(split(place)[1], trees.partitions)


def _entry(place: int, kept: KeptRange, lsn: int) -> WalEntry:
    kept.saved = True
    return TREES_TREE, tree_key(*split(place)), encode_tree(lsn, kept.tree)
