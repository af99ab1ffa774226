"""The storage engine: ordered trees of bytes, durable, one log for all of them. It knows no rings, clocks or records.

Everything here runs on the loop and never waits: what may wait for the disk goes through the executors and the job
runner, and comes back as a callback. A write is in memory, and read by everyone, as soon as `write` returns; its
sequence number says what must be committed (`when_safe`) before anything that saw it may leave the node.

The first I/O error on the log, the manifest or a flush is final (`on_failure`): from then on every call raises
StoreFailed and everyone who waited gets it. What is on disk then is for the next open to judge.

The parts: `memtable` and `wal` hold a generation of writes, `committer` makes it durable, `maintenance` turns it into
tables, `tables` publishes those, `tree_search`, `lsm_tree` and `reads` read it all, `pressure` slows writers,
`snapshots` keeps moments of it, `recovery` opens. How they are put together, driven and ended is in `engine_life`; here
is what may be asked of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from leafdb.errors import CorruptionError, StorageError
from leafdb.storage.committer import Waiter
from leafdb.storage.descents import CompactDone, Compacted
from leafdb.storage.engine_life import EngineLife
from leafdb.storage.executor import Callback
from leafdb.storage.forgotten import Told
from leafdb.storage.inspection import file_target, targets
from leafdb.storage.lsm_tree import NOTHING, Scan, find_frozen, find_now
from leafdb.storage.memtable import ENTRY_OVERHEAD_BYTES, Memtable, Slot
from leafdb.storage.reads import GetDone, ScanDone
from leafdb.storage.snapshot_files import Snapshot
from leafdb.storage.snapshots import DropDone, SnapshotDone
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.verification import VerifyDone
from leafdb.storage.version import TableMeta, VersionEdit
from leafdb.storage.wal_format import WalEntry
from leafdb.types import Durability, TreeId


class Engine(EngineLife):
    """See the module. Made by `open`."""

    # -- trees

    def trees(self) -> list[TreeId]:
        return sorted(self._trees)

    def create_tree(self, tree_id: TreeId, done: Callback | None = None) -> None:
        """Make a tree, usable at once and durable before any write to it is; no-op when it is there.

        `done` is called when it is durable. A number that was dropped is taken again only when nothing written under
        it is left in the log, or in tables that reads still see.
        """
        self._usable()
        if tree_id in self._trees:
            self._later(done)
            return
        version = self._tables.version
        if tree_id in version.trees or self._parts.dropped.get(tree_id, 0) > version.flushed_lsn:
            raise StorageError(f"tree {tree_id} was dropped and its records are not yet out of the store")
        self._tables.submit(VersionEdit(created_trees=(tree_id,)), self._committer.precede(done))
        self._memtable.add(tree_id)

    def drop_tree(self, tree_id: TreeId, done: Callback | None = None) -> None:
        """Forget a tree and all in it, at once; its files go with the manifest. No-op when it is not there."""
        self._usable()
        if tree_id not in self._trees:
            self._later(done)
            return
        self._memtable.drop(tree_id)
        for memtable in self._maintenance.frozen:
            memtable.drop(tree_id)
        self._maintenance.flushed.drop(tree_id)
        self._parts.dropped[tree_id] = self._committer.next_lsn - 1
        self._tables.submit(VersionEdit(dropped_trees=(tree_id,)), done)

    def tree_bytes(self, tree_id: TreeId) -> int:
        """About how much a tree holds: the size of its tables with their values, and of what is in memory. 0: none.

        Keys that were written again count more than once, until a compaction.
        """
        tree = self._tables.version.trees.get(tree_id, ())
        memtables = [memtable.trees.get(tree_id) for memtable in (*self._maintenance.frozen, self._memtable)]
        return sum(meta.size + meta.value_bytes for meta in tree) + sum(
            table.bytes_about() for table in memtables if table is not None
        )

    # -- reading

    def get_now(self, tree_id: TreeId, key: bytes) -> Slot | None:
        """(value or None, sequence) if that takes no waiting for the disk, else None. Sequence 0: long committed."""
        if self._failure is not None:
            raise self._failure_now()
        try:
            slot = self._trees[tree_id].entries.get(key)
        except KeyError:
            raise no_such_tree(tree_id) from None
        if slot is not None:
            return slot
        maintenance = self._maintenance
        if maintenance.frozen:
            slot = find_frozen(maintenance.frozen, tree_id, key)
            if slot is not None:
                return slot
        if maintenance.flushed:
            slot = maintenance.flushed.find(tree_id, key)
            if slot is not None:
                return slot
        tables = self._tables
        try:
            search = tables.searches.get(tree_id)
            return NOTHING if search is None else find_now(search, tables.values, key)
        except CorruptionError as error:
            self._damaged(error)
            raise

    def get_soon(self, tree_id: TreeId, key: bytes, done: GetDone) -> None:
        """As `get_now`, waiting for the disk; `done` comes later, with the state of now. Raises ReadsOverloaded."""
        slot = self.get_now(tree_id, key)
        if slot is not None:
            self._reads.answer_soon(slot, done)
        else:
            self._reads.get(tree_id, key, done)

    def scan_soon(
        self,
        tree_id: TreeId,
        start: bytes,
        stop: bytes | None,
        *,
        limit: int,
        bytes_max: int,
        reverse: bool = False,
        done: ScanDone,
    ) -> None:
        """One page of start <= key < stop as of now; `done` comes later. Raises ReadsOverloaded.

        The page ends after `limit` items, or the item that reaches `bytes_max`, or earlier; `next_key` says where to
        go on. It may be shown once its `sequence` is safe.
        """
        self._usable()
        if tree_id not in self._trees:
            raise no_such_tree(tree_id)
        memtables = (self._memtable, *self._maintenance.frozen)
        scan = Scan(memtables, tree_id, start, stop, limit=limit, bytes_max=bytes_max, reverse=reverse)
        self._reads.scan(scan, done)

    # -- writing

    def admit(self) -> float:
        """0.0: go on and write. Else refuse, and say to come back after so many seconds. DiskFull: no room.

        Writes that must happen whatever the state (leases, promises) need not ask.
        """
        if self._failure is not None:
            raise self._failure_now()
        pressure = self._pressure
        return 0.0 if pressure.calm else pressure.admit(self._now_s())

    def write(
        self,
        writes: Sequence[WalEntry],
        durability: Durability = Durability.ALWAYS,
        done: Waiter | None = None,
        mark: bytes = b"",
    ) -> int:
        """Apply all of `writes` or, after a crash, none; in memory at once. `done(error | None)` when it is durable.

        A value of None deletes. `mark`, eight bytes, is logged with the first of them and given to whoever follows the
        replay. Answers the sequence number.
        """
        if self._failure is not None:
            raise self._failure_now()
        trees, memtable = self._trees, self._memtable
        for tree_id, _, _ in writes:
            if tree_id not in trees:
                raise no_such_tree(tree_id)
        lsn = self._committer.append(writes, durability, done, mark)
        grown = 0
        for tree_id, key, value in writes:  # Memtable.put, inlined
            entries = trees[tree_id].entries
            old = entries.get(key)
            entries[key] = (value, lsn)
            if old is None:
                grown += len(key) + ENTRY_OVERHEAD_BYTES
            elif old[0] is not None:
                grown -= len(old[0])
            if value is not None:
                grown += len(value)
        memtable.bytes_used += grown
        config = self.config
        if memtable.bytes_used >= config.memtable_bytes or self._committer.segment_bytes >= config.wal_segment_bytes:
            self._freeze()
        return lsn

    def flush_batch(self) -> None:
        """Hand what was written to the log thread, if it is idle. For the end of a burst of requests."""
        self._committer.flush_batch()

    @property
    def last_sequence(self) -> int:
        """The sequence number of the last write; 0: there was none."""
        return self._committer.next_lsn - 1

    def safe_sequence(self, durability: Durability) -> int:
        """Up to here writes are written (PERIODIC) or synced (ALWAYS)."""
        return self._committer.safe_lsn(durability)

    def when_safe(self, sequence: int, durability: Durability, done: Waiter) -> None:
        """`done(error | None)` once the commit has passed `sequence`; at once, inside the call, if it has."""
        self._committer.when_safe(sequence, durability, done)

    def flush_soon(self, done: Callback | None = None) -> None:
        """Bring everything written so far into tables; `done` when it is."""
        self._usable()
        if self._committer.next_lsn > self._memtable.first_lsn:
            self._freeze()
        if done is not None and self._maintenance.frozen:
            self._maintenance.when_flushed(self._maintenance.frozen[0].last_lsn, done)
        else:
            self._later(done)

    # -- snapshots

    def snapshots(self) -> tuple[Snapshot, ...]:
        """Those there are, by name, damaged ones too."""
        return self._snapshots.all()

    def snapshot_soon(
        self, name: str, done: SnapshotDone, trees: Collection[TreeId] | None = None, *, taken_ms: int = 0
    ) -> None:
        """Make `snapshots/NAME`, with everything written so far to these trees (None: all); `done` when it is durable.

        `taken_ms`: the wall clock, for people. Raises SnapshotRefused for a bad name, one that is taken, or one too
        many. `done` gets DiskFull or another StorageError when it could not be made; the store goes on.
        """
        self._usable()
        for tree_id in trees or ():
            if tree_id not in self._trees:
                raise no_such_tree(tree_id)
        self._snapshots.begin(name, done)
        self.flush_soon(partial(self._snapshots.take, name, self.identity, trees, taken_ms))

    def drop_snapshot_soon(self, name: str, done: DropDone) -> None:
        """Take a snapshot away, for good; `done(error | None)` later. Raises SnapshotRefused when there is none."""
        self._usable()
        self._snapshots.drop_soon(name, done)

    def compact_soon(self, tree_id: TreeId | None, done: CompactDone) -> None:
        """Flush what was written so far, and merge one tree, or all, down to the last level that holds data.

        `done` gets what it took. It yields to what is due by itself, and takes no more room at a time than that.
        StorageError: there is no such tree, or a compaction on demand is under way.
        """
        self._usable()
        if tree_id is not None and tree_id not in self._trees:
            raise no_such_tree(tree_id)

        def told(outcome: Compacted | StorageError) -> None:
            if isinstance(outcome, StorageError):
                done(outcome)
            else:
                self._later(partial(done, outcome))

        trees = sorted(self._trees) if tree_id is None else [tree_id]
        self.descents.start(trees, self._committer.next_lsn - 1, told)
        self.flush_soon()
        self._maintenance.pump()

    def verify_soon(self, *, bytes_per_s: int, done: VerifyDone) -> None:
        """Read every file of the store again, beside the cache; 0 bytes a second: as fast as it goes.

        `done` gets what was found; `verifier` knows how far it is and can end it. StorageError: one is under way.
        """
        self._usable()
        parts = self._parts
        files = targets(parts.fs, self._tables, self._maintenance, parts.manifest)
        self.verifier.start(files, bytes_per_s=bytes_per_s, done=done)

    def tables(self) -> Mapping[int, TableMeta]:
        """The tables of the store, by number."""
        return self._tables.version.tables

    def files(self) -> dict[int, TableMeta | ValueMeta]:
        """The tables and value files of the store, by number."""
        version = self._tables.version
        return {**version.tables, **version.values.metas}

    def scrub_soon(self, number: int, *, bytes_per_s: int, done: VerifyDone) -> None:
        """Read one table or value file again, beside `verify_soon`; `done` gets what was found: nothing, if it has
        left."""
        self._usable()
        meta = self.files().get(number)
        files = [] if meta is None else [file_target(self._parts.fs, self._tables, meta)]
        self.scrubber.start(files, bytes_per_s=bytes_per_s, done=done)

    # -- trees that are kept by time

    def keep_by_time(self, trees: Collection[TreeId]) -> None:
        """In these trees almost everything expires: their tables are kept by time and not by level (`window_picker`).
        In all others, as ever. To be told when it changes; `EngineConfig.expiry` says when something expires."""
        self._maintenance.windows.keep(trees)
        self._changed()
        self._maintenance.pump()

    def forgotten(self, start: bytes, stop: bytes | None, expires_ms: int) -> None:
        """Whatever expires before that time in trees kept by time, under keys from `start` and before `stop` (None: no
        end), has been deleted: tables that hold nothing else may be dropped whole, when these deletions are in tables.

        Always told of the same ranges.
        """
        self._windows.forgotten.tell(Told(start, stop, expires_ms, self._committer.next_lsn - 1))

    # -- inside

    def _freeze(self) -> None:
        """End the generation: seal its segment, begin another; the flush follows when the seal is durable."""
        memtable = self._memtable
        memtable.last_lsn = self._committer.next_lsn - 1
        self._segment += 1
        self._memtable = Memtable(self._trees, segments=[self._segment], first_lsn=self._committer.next_lsn)
        self._trees = self._memtable.trees
        self._maintenance.freeze(memtable)
        self._committer.seal(self._segment)
        self._changed()


def no_such_tree(tree_id: TreeId) -> StorageError:
    return StorageError(f"there is no tree {tree_id}")
