"""From a directory to a store: what the manifest and the log say, nothing invented, nothing dropped.

The order matters, because power may go at any point of it, again and again:

1. Lock. Finish a wipe that was cut off. Read the stamp; a directory without one must be empty.
2. Manifest, whole; open every table it names, damaged ones so that reads of them say so (`damaged_table`). Write a new
   manifest that leases file numbers.
3. Replay the segments that are not flushed, strictly contiguous. The clean mark, if there is one, must fit the end.
4. Only now, with all of it believed, change anything a second try would miss: put a copy without the torn tail in the
   place of the last segment, since what was only in the page cache must not be served as durable; remove the clean
   mark.
5. A new segment, for writes to come: old segments are never appended to.
6. Sweep orphans, and what is left of snapshots that were never finished. Stamp the new boot number. Serve.

Replay fills memtables, one for a segment or for several small ones. Beyond what the running store would hold it brings
the oldest into tables at once, on the spot. That the log may forget them is for the running store to say: whoever
follows the replay has nowhere to keep what it was told before there is one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from leafdb.errors import CorruptionError, DiskFull, StoreFailed
from leafdb.storage import identity as stamp
from leafdb.storage.block_cache import BlockCache
from leafdb.storage.damaged_table import DamagedTable, open_or_damaged
from leafdb.storage.flush import run_flush
from leafdb.storage.identity import LOCK_PATH, STORE_ID_BYTES, CleanMark, Identity, write_clean_mark
from leafdb.storage.jobs import FlushJob
from leafdb.storage.manifest import ManifestWriter, current_manifest, read_manifest
from leafdb.storage.memtable import Memtable
from leafdb.storage.quarantine import Kept, listing, put_away
from leafdb.storage.settings import EngineConfig
from leafdb.storage.snapshot_files import SNAPSHOTS_DIRECTORY, Snapshot, SnapshotRefused, find_snapshots
from leafdb.storage.sstable_reader import TableReader
from leafdb.storage.tables import open_readers
from leafdb.storage.value_files import VALUES_DIRECTORY, ValueMeta, value_path
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import TABLES_DIRECTORY, TableMeta, Version, VersionEdit, table_path
from leafdb.storage.wal import WAL_DIRECTORY, SegmentScan, WalWriter, segment_header, segment_numbers, segment_path
from leafdb.storage.wal_format import HEADER_BYTES, SegmentHeader, is_unborn
from leafdb.storage.wipe import finish_wipe
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem, Lock, read_file, replace_file

Replayed = Callable[[int, TreeId, bytes, bytes | None, bytes], None]
"""(lsn, tree, key, value, mark): one entry of the log that is not known to be in tables. An empty mark: none."""


def no_follower(lsn: int, tree_id: TreeId, key: bytes, value: bytes | None, mark: bytes) -> None:
    """Nobody follows the replay."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What an open found."""

    clean: bool
    """The last shutdown was clean: nothing that was ever acknowledged, shown or minted has been forgotten."""
    torn_bytes: int
    """Cut off the end of the log: writes nobody was told were durable."""
    replayed_records: int
    boot: int
    """How often the store was opened, this time included."""
    created: bool
    """There was no store before."""


@dataclass(slots=True)
class Recovered:
    """All parts of an open store, to be put together by the engine."""

    fs: FileSystem
    config: EngineConfig
    lock: Lock
    identity: Identity
    manifest: ManifestWriter
    cache: BlockCache
    version: Version = field(default_factory=Version)
    readers: dict[int, TableReader] = field(default_factory=dict)
    values: dict[int, ValueReader] = field(default_factory=dict)
    open_files: OpenFiles = field(default_factory=OpenFiles)
    next_number: int = 1
    frozen: list[Memtable] = field(default_factory=list)
    """Oldest first here; the engine reads newest first."""
    next_lsn: int = 1
    segment: int = 0
    """The last segment number in use."""
    writer: WalWriter | None = None
    replayed_records: int = 0
    torn_bytes: int = 0
    last_size: int = 0
    quarantined: tuple[Kept, ...] = ()
    dropped: dict[TreeId, int] = field(default_factory=dict)
    """Trees that have records in the log and are no more, with their last lsn."""
    snapshots: list[Snapshot] = field(default_factory=list)
    report: RecoveryReport | None = None

    def damaged(self) -> list[TableMeta]:
        """The tables that could not be opened."""
        return [reader.meta for reader in self.readers.values() if isinstance(reader, DamagedTable)]


def recover(fs: FileSystem, config: EngineConfig, replayed: Replayed = no_follower) -> Recovered:
    """Open the store in `fs`, telling `replayed` what the log brings back, in order.

    Raises a StorageError and leaves the lock free when the store cannot be trusted, SnapshotRefused when it is a
    snapshot and none is meant, or none and one is."""
    with _world_errors("the store cannot be opened"):
        lock = fs.lock(LOCK_PATH)
    state: Recovered | None = None
    try:
        with _world_errors("the store cannot be opened"):
            finish_wipe(fs)
            identity, created = _identity(fs, config)
            state = Recovered(
                fs=fs,
                config=config,
                lock=lock,
                identity=identity,
                manifest=ManifestWriter(fs, bytes_max=config.manifest_bytes_max),
                cache=BlockCache(config.block_cache_bytes),
            )
            _load_version(state)
            mark = stamp.read_clean_mark(fs)
            _replay(state, mark, replayed)
            _check_mark(state, mark)
            _settle_tail(state, clean=mark is not None)
            stamp.remove_clean_mark(fs)
            state.writer = WalWriter(fs)
            state.segment += 1
            state.writer.start_segment(state.segment, state.next_lsn)
            state.writer.sync()
            _sweep(state)
            state.snapshots = find_snapshots(fs)
            state.identity = replace(identity, boot=identity.boot + 1)
            stamp.write_identity(fs, state.identity)
            state.report = RecoveryReport(
                clean=mark is not None or identity.boot == 0,
                torn_bytes=state.torn_bytes,
                replayed_records=state.replayed_records,
                boot=state.identity.boot,
                created=created,
            )
            return state
    except BaseException:
        if state is not None:
            files: list[TableReader | ValueReader | ManifestWriter]
            files = [*state.readers.values(), *state.values.values(), state.manifest]
            for each in files:
                with suppress(OSError):
                    each.close()
        lock.release()
        raise


@contextmanager
def _world_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        path = str(error.filename or "")
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{what}: {error}", path=path) from error
        raise StoreFailed(f"{what}: {error}", path=path) from error


def _identity(fs: FileSystem, config: EngineConfig) -> tuple[Identity, bool]:
    """The stamp, made when the directory is empty; and whether the store has never been open before."""
    identity = stamp.read_identity(fs)
    if config.snapshot != bool(identity and identity.snapshot):
        found = "not a snapshot" if identity is None or not identity.snapshot else f"snapshot {identity.snapshot}"
        what = "and none was meant: no node lives in one, restore from it" if not config.snapshot else "as was meant"
        raise SnapshotRefused(f"this is {found}, {what}", path=stamp.IDENTITY_PATH)
    if identity is None:
        data = [name for name in fs.list("") if name == "CURRENT" or name.startswith("MANIFEST-")]
        if data or any(map(fs.list, (WAL_DIRECTORY, TABLES_DIRECTORY, VALUES_DIRECTORY))):
            raise CorruptionError("the directory holds data and no stamp", path=stamp.IDENTITY_PATH)
        _make_directories(fs)
        fs.sync_dir("")
        assert len(config.store_id) == STORE_ID_BYTES, "a store id has sixteen bytes"
        identity = Identity(store_id=config.store_id)
        stamp.write_identity(fs, identity)
    _make_directories(fs)  # a snapshot has no log, an older store no values; synced with the new manifest's name
    return identity, identity.boot == 0 and not identity.snapshot


def _make_directories(fs: FileSystem) -> None:
    for directory in (WAL_DIRECTORY, TABLES_DIRECTORY, VALUES_DIRECTORY, SNAPSHOTS_DIRECTORY):
        fs.mkdir(directory)


def _load_version(state: Recovered) -> None:
    """Step 2: the manifest's version, its tables opened, file numbers leased in a new manifest."""
    number = current_manifest(state.fs)
    if number is not None:
        state.version = read_manifest(state.fs, number)
    elif state.identity.boot > 0 or state.identity.snapshot:
        raise CorruptionError("CURRENT is missing", path="CURRENT")
    for meta in state.version.tables.values():
        state.readers[meta.file_number] = open_or_damaged(state.fs, meta, state.cache)
    for values in state.version.values.metas.values():
        _add_values(state, values)
    state.next_number = state.version.next_file_number
    lease = VersionEdit(next_file_number=state.next_number + state.config.file_number_lease)
    state.version = state.version.apply(lease)
    state.manifest.start(state.version)


def _add_values(state: Recovered, meta: ValueMeta) -> None:
    """A reader for the value file. A damaged one stops nobody: it fails the reads of its values, one by one."""
    reader = state.values[meta.file_number] = ValueReader(state.fs, meta, state.open_files)
    try:
        reader.check_file()
    except CorruptionError:
        return


def _replay(state: Recovered, mark: CleanMark | None, replayed: Replayed) -> None:
    """Step 3."""
    headers = _headers(state, mark)
    flushed = state.version.flushed_lsn
    if not headers:
        if state.identity.boot > 0:
            raise CorruptionError("the log is missing", path=WAL_DIRECTORY)
        state.next_lsn = flushed + 1
        return
    state.segment = headers[-1].number
    needed = [
        header
        for header, following in zip(headers, [*headers[1:], None], strict=True)
        if following is None or following.first_lsn > flushed + 1
    ]
    state.next_lsn = needed[0].first_lsn
    if state.next_lsn > flushed + 1:
        raise CorruptionError(
            f"the log begins at {state.next_lsn}, tables end at {flushed}: a segment is missing",
            path=segment_path(needed[0].number),
        )
    generation: Memtable | None = None
    for header in needed:
        if generation is None:
            first = max(state.next_lsn, flushed + 1)
            generation = Memtable(state.version.trees, segments=[], first_lsn=first)
        last = header is headers[-1]
        synced_upto = mark.size if mark and last else 0
        _replay_segment(state, header, generation, replayed, last=last, synced_upto=synced_upto)
        if last or generation.bytes_used >= state.config.memtable_bytes:
            if generation.last_lsn >= generation.first_lsn:
                state.frozen.append(generation)
                _stay_within_memory(state)
            generation = None


def _headers(state: Recovered, mark: CleanMark | None) -> list[SegmentHeader]:
    """The headers of all segments. A last one that was never synced before the power went, and lost its header to that,
    is removed."""
    fs = state.fs
    headers = []
    numbers = segment_numbers(fs)
    for number in numbers:
        path = segment_path(number)
        file = fs.open_read(path)
        try:
            head = file.read_at(0, HEADER_BYTES)
        finally:
            file.close()
        try:
            headers.append(segment_header(head, path))
        except CorruptionError:
            last = number == numbers[-1] and (headers or state.identity.boot == 0)
            content = read_file(fs, path)
            if not last or mark is not None or not is_unborn(content, number):
                raise
            state.torn_bytes += len(content)
            fs.unlink(path)
            fs.sync_dir(WAL_DIRECTORY)
    return headers


def _replay_segment(
    state: Recovered,
    header: SegmentHeader,
    generation: Memtable,
    replayed: Replayed,
    *,
    last: bool,
    synced_upto: int,
) -> None:
    path = segment_path(header.number)
    if header.first_lsn != state.next_lsn:
        raise CorruptionError(f"{path} begins at {header.first_lsn}, where {state.next_lsn} was due", path=path)
    scan = SegmentScan(state.fs, path, last=last, synced_upto=synced_upto)
    flushed = state.version.flushed_lsn
    trees = state.version.trees
    for lsn, write, mark in scan.writes():
        if lsn <= flushed:
            continue
        generation.replay(lsn, write)
        state.replayed_records += 1
        for tree_id, key, value in write:
            if tree_id in trees:
                replayed(lsn, tree_id, key, value, mark)
            else:
                state.dropped[tree_id] = lsn
            mark = b""  # it is the first one's
    state.next_lsn = scan.next_lsn
    generation.segments.append(header.number)
    if last:
        state.torn_bytes += scan.torn_bytes
        state.last_size = scan.end


def _settle_tail(state: Recovered, *, clean: bool) -> None:
    """Cut what was torn off the last segment and make what was replayed from it durable.

    It may have been read from the page cache alone, after a sync that failed, and the cut may have been tried before:
    another sync would say yes and write nothing. So the good bytes become a new file, unless a clean end vouches for
    the old one.
    """
    if state.segment and not clean:
        path = segment_path(state.segment)
        replace_file(state.fs, path, read_file(state.fs, path)[: state.last_size])


def _stay_within_memory(state: Recovered) -> None:
    """Bring the oldest memtables into tables here and now while there are more than a running store would hold.

    The manifest does not say yet that they are flushed: another recovery would replay them over those tables."""
    config = state.config
    allowed = config.memtable_bytes * config.frozen_memtables_max
    for memtable in state.frozen[:-1]:
        if sum(each.bytes_used for each in state.frozen) <= allowed:
            return
        if not memtable.bytes_used:
            continue
        trees = memtable.tree_ids()
        first = state.next_number
        state.next_number += 2 * len(trees)
        ceiling = state.next_number + config.file_number_lease
        if state.next_number > state.version.next_file_number:
            lease = VersionEdit(next_file_number=ceiling)
            state.version = state.version.apply(lease)
            state.manifest.append(lease, state.version)
        job = FlushJob(
            segments=tuple(segment_path(number) for number in memtable.segments),
            outputs=tuple(zip(trees, range(first, first + len(trees)), strict=True)),
            upto_lsn=memtable.last_lsn,
            after_lsn=memtable.first_lsn - 1,
            values=tuple(zip(trees, range(first + len(trees), state.next_number), strict=True)),
            inline_bytes_max=config.value_inline_bytes_max,
        )
        flushed = run_flush(state.fs, job)
        for reader in open_readers(state.fs, flushed.added, state.cache):
            state.readers[reader.meta.file_number] = reader
        for meta in flushed.values:
            _add_values(state, meta)
        edit = VersionEdit(added=flushed.added, values=flushed.values)
        state.version = state.version.apply(edit)
        state.manifest.append(edit, state.version)
        memtable.let_go()


def _check_mark(state: Recovered, mark: CleanMark | None) -> None:
    """A clean shutdown said where the log ends; it must end there."""
    if mark is None:
        return
    found = (state.segment, state.last_size, state.next_lsn - 1, state.identity.boot, state.torn_bytes)
    if found != (mark.segment, mark.size, mark.last_lsn, mark.boot, 0):
        raise CorruptionError(
            f"the log ends in segment {found[0]} at {found[1]} with {found[2]}, boot {found[3]}; a clean shutdown "
            f"left segment {mark.segment} at {mark.size} with {mark.last_lsn}, boot {mark.boot}",
            path=segment_path(state.segment),
            offset=state.last_size,
        )


def _sweep(state: Recovered) -> None:
    """Step 6: remove what nothing refers to. Names this build does not know are left alone."""
    fs = state.fs
    named = {table_path(number) for number in state.version.tables}
    named |= {value_path(number) for number in state.version.values.metas}
    salvaged = {table_path(lost.file_number) for lost in state.version.lost}
    for directory, ending in ((TABLES_DIRECTORY, ".sst"), (VALUES_DIRECTORY, ".val")):
        for name in fs.list(directory):
            path = f"{directory}/{name}"
            if path in salvaged:
                put_away(fs, path)
            elif name.endswith(ending) and path not in named:
                fs.unlink(path)
    state.quarantined = listing(fs)
    segments = {number for memtable in state.frozen for number in memtable.segments} | {state.segment}
    for number in segment_numbers(fs):
        if number not in segments:
            fs.unlink(segment_path(number))
    for name in (f"{stamp.CLEAN_PATH}.tmp", "CURRENT.tmp"):
        if fs.exists(name):
            fs.unlink(name)


def leave_clean_mark(parts: Recovered, last_lsn: int, boot: int) -> None:
    """The end of an orderly life: seal the log and say where it ended, for the next `recover`. Raises OSError."""
    writer = parts.writer
    assert writer is not None
    writer.seal()
    write_clean_mark(parts.fs, CleanMark(writer.number, writer.size, last_lsn, boot))
