"""The room of lost bytes: what storage engines got wrong between a write and the platter, and on the way back."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

COMMITTER: Final = "leafdb.storage.committer"
COMPACTION: Final = "leafdb.storage.compaction"
MANIFEST: Final = "leafdb.storage.manifest"
RECOVERY: Final = "leafdb.storage.recovery"
VALUE_FILES: Final = "leafdb.storage.value_files"
WAL: Final = "leafdb.storage.wal"
FORMAT: Final = "leafdb.storage.wal_format"

TAIL: Final = "        replace_file(state.fs, path, read_file(state.fs, path)[: state.last_size])\n"
"""What recovery does to the last segment."""

LOST: Final = (
    Invariant.PREFIX_DURABLE, Invariant.CRASH_IDEMPOTENT, Invariant.NO_PHANTOMS, Invariant.CORRUPTION_DETECTED,
)  # fmt: skip
"""A store that does not open is called the same: what it holds is as lost. The last: a damaged copy read wrongly."""


def store_mutation(
    name: str, title: str, *edits: tuple[str, str, str], caught_by: tuple[Invariant, ...] = LOST, seeds_max: int = 20
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.STORE,
        caught_by=caught_by,
        seeds_max=seeds_max,
        nodes=1,
        operations=1_000,
    )


MUTATIONS: Final = (
    store_mutation(
        "missing-directory-sync",
        "A log segment's name is not synced: after a power cut the file is nowhere (ALICE: LevelDB and ten others).",
        (
            WAL,
            "            if not self.synced_upto:\n                self._fs.sync_dir(WAL_DIRECTORY)\n",
            "",
        ),
    ),
    store_mutation(
        "table-names-not-synced",
        "The manifest names tables whose directory entries are not durable (ALICE: rename and create before data).",
        (
            "leafdb.storage.job_execution",
            "            self._fs.sync_dir(directory)\n",
            "            assert directory\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "current-before-manifest-sync",
        "CURRENT is switched to a manifest that is not synced (LevelDB before 1.15).",
        (MANIFEST, '        file.sync()\n        self._fs.sync_dir("")\n', '        self._fs.sync_dir("")\n'),
    ),
    store_mutation(
        "acknowledged-before-sync",
        "A commit is acknowledged as durable after write(), without its sync.",
        (
            COMMITTER,
            "                writer.sync()\n                batch.synced_in_s",
            "                batch.synced_in_s",
        ),
    ),
    store_mutation(
        "wal-hole-at-rotation",
        "The old log is not synced when the next begins: a newer write survives, an older is lost (LevelDB issue 187).",
        (COMMITTER, "        batch.seal_as = number\n        batch.sync = True\n", "        batch.seal_as = number\n"),
        (
            WAL,
            "        self.sync()\n        file, self._file = self._file, None\n",
            "        file, self._file = self._file, None\n",
        ),
    ),
    store_mutation(
        "fsync-retried",
        "A failed fsync is tried again, and its success believed (PostgreSQL, 2018; the pages are clean and lost).",
        (
            WAL,
            "            self._file.sync()\n            if not self.synced_upto",
            "            try:\n                self._file.sync()\n            except OSError:\n"
            "                self._file.sync()\n            if not self.synced_upto",
        ),
        seeds_max=60,
    ),
    store_mutation(
        "sync-covers-what-came-later",
        "A sync is taken for one of all that was appended until it was done, and not of what was there when it began.",
        (
            COMMITTER,
            "        if batch.sync:\n            self.synced_lsn = batch.last_lsn\n",
            "        if batch.sync:\n            self.synced_lsn = self.written_lsn\n",
        ),
        seeds_max=40,
    ),
    store_mutation(
        "page-cache-believed-at-recovery",
        "After a failed fsync and a restart the log is read from the page cache and synced, which writes nothing. "
        "Ours, found by this simulation.",
        (
            RECOVERY,
            TAIL,
            "        file = state.fs.open_append(path)\n        file.truncate(state.last_size)\n"
            "        file.sync()\n        file.close()\n",
        ),
        seeds_max=60,
    ),
    store_mutation(
        "replayed-tail-not-synced",
        "What a recovery replayed from the page cache is served as durable, and is not.",
        (
            RECOVERY,
            TAIL,
            "        file = state.fs.open_append(path)\n        file.truncate(state.last_size)\n        file.close()\n",
        ),
    ),
    store_mutation(
        "short-write-ignored",
        "A write that wrote less than it was given is taken for whole.",
        (
            WAL,
            "        self._file.append(frame)\n",
            "        try:\n            self._file.append(frame)\n        except OSError:\n            pass\n",
        ),
        seeds_max=40,
    ),
    store_mutation(
        "manifest-used-after-error",
        "An edit queued behind one that failed is written after its torn record: the store never opens again. Ours: "
        "found by this simulation.",
        (MANIFEST, "            self.lost = error\n            raise\n", "            raise\n"),
        seeds_max=40,
    ),
    store_mutation(
        "close-before-edits",
        "A close commits the last writes while the tree they are for is still queued for the manifest. Ours: found by "
        "this simulation.",
        (
            COMMITTER,
            "        self._executor.drain()  # manifest edits, too: what is committed last may be for a tree that one "
            "of them makes\n",
            "",
        ),
        seeds_max=60,
    ),
    store_mutation(
        "torn-tail-not-cut",
        "A torn tail is left in the segment; when later segments exist it is damage in the middle.",
        (RECOVERY, "read_file(state.fs, path)[: state.last_size]", "read_file(state.fs, path)"),
    ),
    store_mutation(
        "recycled-log-ghost",
        "A frame that an earlier segment left in the same blocks is taken for ours (RocksDB, recycled logs).",
        (FORMAT, "kind != FRAME_BATCH or number != segment or stop", "kind != FRAME_BATCH or stop"),
        seeds_max=60,
    ),
    store_mutation(
        "log-checksum-not-checked",
        "A frame is believed for its length alone.",
        (
            FORMAT,
            "    if _CRC.unpack_from(data, offset)[0] != crc32c(data[offset + 4 : stop]):\n        return None\n",
            "",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
        seeds_max=40,
    ),
    store_mutation(
        "mid-log-damage-skipped",
        "Damage in the middle of the log is taken for a torn tail (RocksDB's tolerant recovery modes).",
        (
            WAL,
            "        if proof is not None or self.end < self._synced_upto:",
            "        if self.end < self._synced_upto:",
        ),
        caught_by=(Invariant.CORRUPTION_DETECTED,),
        seeds_max=60,
    ),
    store_mutation(
        "segment-unlinked-early",
        "The log is removed before the manifest knows the tables that replace it (LevelDB: unlink before the edit).",
        (
            "leafdb.storage.maintenance",
            "        edit = VersionEdit(added=tuple(metas), flushed_lsn=memtable.last_lsn, values=values)\n",
            "        edit = VersionEdit(added=tuple(metas), flushed_lsn=memtable.last_lsn, values=values)\n"
            "        self._tables.remove_soon([segment_path(number) for number in memtable.segments])\n",
        ),
    ),
    store_mutation(
        "clean-mark-not-removed",
        "The mark of a clean shutdown outlives the next start: after a crash the store claims to have lost nothing.",
        (RECOVERY, "            stamp.remove_clean_mark(fs)\n", ""),
    ),
    store_mutation(
        "dropped-number-taken-again",
        "A tree's number is used again while records of the dropped one are in the log: they come back.",
        (
            "leafdb.storage.engine",
            "        if tree_id in version.trees or self._parts.dropped.get(tree_id, 0) > version.flushed_lsn:\n",
            "        if tree_id in version.trees:\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
        seeds_max=60,
    ),
    store_mutation(
        "flush-keeps-older",
        "A flush keeps the first write of a key instead of the last.",
        (
            "leafdb.storage.flush",
            "                    newest[key] = (lsn, value)\n",
            "                    newest.setdefault(key, (lsn, value))\n",
        ),
    ),
    store_mutation(
        "flush-believes-the-log",
        "A flush takes the end of a segment for the end of what was written: a tail that is gone is dropped unnoticed.",
        ("leafdb.storage.flush", "    if last != job.upto_lsn:\n", "    if last < 0:\n"),
        ("leafdb.storage.flush", "            if first != last + 1:\n", "            if first < 0:\n"),
        seeds_max=100,
    ),
    store_mutation(
        "merge-keeps-older",
        "A compaction keeps the older of two entries of a key.",
        ("leafdb.storage.merge_iterator", "held[0] <= sequence", "held[0] >= sequence"),
    ),
    store_mutation(
        "tombstone-dropped-early",
        "A compaction drops a tombstone over data that lies deeper: the deleted key is back.",
        (
            COMPACTION,
            "        kept = [value is not None or self.covers(key) for key, value in zip(keys, values, strict=True)]\n",
            "        kept = [value is not None for value in values]\n",
        ),
        seeds_max=60,
    ),
    store_mutation(
        "tombstones-never-dropped",
        "Compaction never drops a tombstone: every answer is right and the disk fills (TigerBeetle, one character).",
        (COMPACTION, "if deletions else None", "if not job.inputs else None"),
        caught_by=(Invariant.SPACE_RECLAIMED,),
    ),
    store_mutation(
        "bloom-false-negative",
        "The filter's writer and reader disagree on a bit: keys that are there are denied.",
        ("leafdb.storage.bloom", "| patterns[digest >> 12 & 4095]", "| patterns[digest >> 13 & 4095]"),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "scan-skips-at-page-end",
        "The item that did not fit a page is not on the next one either.",
        (
            "leafdb.storage.lsm_tree",
            "                return Page(items, self._after(last), self.sequence)\n",
            "                return Page(items, self._after(key), self.sequence)\n",
        ),
    ),
    store_mutation(
        "scan-beyond-its-memory",
        "A page goes on with tables' entries beyond the part of the memtable it took: newer writes are passed over.",
        (
            "leafdb.storage.lsm_tree",
            "            beyond = cut is not None and (key < cut if reverse else key > cut)\n",
            "            beyond = False\n",
        ),
    ),
    store_mutation(
        "value-file-unlinked-early",
        "The file of a flush's large values is taken for a number that was not used, and unlinked under its table.",
        (
            "leafdb.storage.maintenance",
            "        used = {meta.file_number for meta in flushed.added} | {meta.file_number for meta in values}\n",
            "        used = {meta.file_number for meta in flushed.added}\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "value-move-forgets",
        "A compaction moves a value out of a dying file and forgets to say where it is now.",
        (
            COMPACTION,
            "        stored.append(writer.add(key, found))\n",
            "        writer.add(key, found)\n        stored.append(None)\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "value-of-another-key",
        "Two entries have each other's place, and a value is not asked whose it is.",
        (
            "leafdb.storage.value_format",
            "    if key is not None and found != key:\n",
            "    if key is not None and not found:\n",
        ),
        (
            "leafdb.storage.flush",
            "    return stored\n",
            "    large = [index for index, each in enumerate(stored) if hasattr(each, 'offset')]\n"
            "    for first, second in zip(large[::2], large[1::2], strict=False):\n"
            "        stored[first], stored[second] = stored[second], stored[first]\n"
            "    return stored\n",
        ),
    ),
    store_mutation(
        "value-bytes-miscounted",
        "Of the tables that refer to a value file the last one is counted alone: the file goes while others need it.",
        (VALUE_FILES, "                live[number] += size\n", "                live[number] = size\n"),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "value-file-not-synced",
        "The manifest names a value file whose bytes are in the page cache.",
        (
            "leafdb.storage.value_writer",
            "        return ValueMeta(self._file_number, self._tree_id, self._file.finish(), self._count)\n",
            "        self._file._flush()\n        self._file.abandon()\n"
            "        return ValueMeta(self._file_number, self._tree_id, self._file.offset, self._count)\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "value-names-not-synced",
        "The manifest names a value file whose directory entry is not durable.",
        (
            "leafdb.storage.job_execution",
            "        paths += [value_path(meta.file_number) for meta in self.values]\n",
            "        assert all(value_path(meta.file_number) for meta in self.values)\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "dead-values-kept",
        "Nothing looks for files that are mostly dead: a tree that is only overwritten keeps what it ever held.",
        (
            "leafdb.storage.compaction_picker",
            "    holder = table_to_free_files(version, busy, limits.value_live_share_min)\n",
            "    holder = table_to_free_files(version, busy, -limits.value_live_share_min)\n",
        ),
        caught_by=(Invariant.SPACE_RECLAIMED,),
        seeds_max=100,
    ),
)
