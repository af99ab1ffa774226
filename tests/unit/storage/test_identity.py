"""The stamp and the clean mark say what was written, or that they are damaged."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.storage import identity as stamp
from leafdb.storage.identity import CleanMark, Identity
from leafdb.vfs.base import read_file, replace_file
from leafdb.vfs.memory import MemoryFileSystem

IDENTITY = Identity(store_id=bytes(range(16)), boot=3, cluster_id=b"c" * 16, node_id=2, incarnation=7)


def test_a_stamp_comes_back() -> None:
    fs = MemoryFileSystem()
    assert stamp.read_identity(fs) is None
    stamp.write_identity(fs, IDENTITY)
    assert stamp.read_identity(fs) == IDENTITY


def test_the_stamp_of_a_snapshot_comes_back_under_a_version_of_its_own() -> None:
    fs = MemoryFileSystem()
    of_snapshot = replace(IDENTITY, snapshot="monday", taken_ms=5)
    stamp.write_identity(fs, of_snapshot)
    assert stamp.read_identity(fs) == of_snapshot
    assert read_file(fs, stamp.IDENTITY_PATH)[8:10] == b"\0\2"


def test_every_flipped_byte_is_noticed() -> None:
    fs = MemoryFileSystem()
    stamp.write_identity(fs, IDENTITY)
    for offset in range(len(read_file(fs, stamp.IDENTITY_PATH))):
        fs.flip(stamp.IDENTITY_PATH, offset)
        with pytest.raises(CorruptionError):
            stamp.read_identity(fs)
        fs.flip(stamp.IDENTITY_PATH, offset)


def test_a_power_cut_leaves_the_old_stamp_or_the_new_one() -> None:
    fs = MemoryFileSystem()
    stamp.write_identity(fs, IDENTITY)
    newer = Identity(store_id=bytes(16), boot=4)
    seen: list[Identity | None] = []

    def cut(kind: str, path: str) -> None:
        seen.extend(stamp.read_identity(fs.power_cut(Random(seed))) for seed in range(8))

    fs.on_call = cut
    stamp.write_identity(fs, newer)
    assert set(seen) == {IDENTITY, newer}
    fs.on_call = None
    assert stamp.read_identity(fs.power_cut(Random(0), keep=0.0)) == newer


def test_the_clean_mark_is_removed_for_good() -> None:
    fs = MemoryFileSystem()
    mark = CleanMark(segment=4, size=1000, last_lsn=77, boot=3)
    stamp.write_clean_mark(fs, mark)
    assert stamp.read_clean_mark(fs) == mark
    stamp.remove_clean_mark(fs)
    assert all(stamp.read_clean_mark(fs.power_cut(Random(seed))) is None for seed in range(8))
    stamp.remove_clean_mark(fs)


def test_newer_formats_and_other_files_are_refused() -> None:
    fs = MemoryFileSystem()
    stamp.write_identity(fs, IDENTITY)
    data = bytearray(read_file(fs, stamp.IDENTITY_PATH)[:-4])
    data[9] = 3
    replace_file(fs, stamp.IDENTITY_PATH, bytes(data) + crc32c(bytes(data)).to_bytes(4, "big"))
    with pytest.raises(UnknownFormat, match="format 3"):
        stamp.read_identity(fs)
    stamp.write_clean_mark(fs, CleanMark(1, 1, 1, 1))
    fs.rename(stamp.CLEAN_PATH, stamp.IDENTITY_PATH)
    with pytest.raises(CorruptionError, match="not a file of this kind"):
        stamp.read_identity(fs)
