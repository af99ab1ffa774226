"""The examples in docs/formats/ are what the code writes, byte for byte; what older versions wrote stays readable."""

from __future__ import annotations

import re
from pathlib import Path

from leafdb.storage import identity as stamp
from leafdb.storage.identity import CleanMark, Identity
from leafdb.storage.manifest import ManifestWriter, manifest_name, read_manifest
from leafdb.storage.version import Version, VersionEdit
from leafdb.storage.wal import SegmentScan, WalWriter, segment_path
from leafdb.storage.wal_format import CONTINUES, DELETION, ENTRY, MARKED
from leafdb.types import TreeId
from leafdb.vfs.base import read_file, replace_file
from leafdb.vfs.memory import MemoryFileSystem

FORMATS = Path(__file__).parents[3] / "docs" / "formats"


def examples(page: str) -> list[bytes]:
    """The hex dumps of a page: each begins at offset 0000."""
    found: list[bytearray] = []
    for line in (FORMATS / page).read_text().splitlines():
        dump = re.match(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} ){0,15}[0-9a-f]{2})(?: |$)", line)
        if dump is not None:
            if dump[1] == "0000":
                found.append(bytearray())
            found[-1] += bytes.fromhex(dump[2])
    return [bytes(example) for example in found]


def test_the_log() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("wal")
    writer = WalWriter(fs)
    writer.start_segment(3, 41)
    writer.sync()
    parts = [ENTRY.pack(MARKED, 300, 2, 5), b"k1", b"hello", b"oldhash1"]
    parts += [ENTRY.pack(CONTINUES, 300, 2, 1), b"k2", b"x", ENTRY.pack(DELETION, 301, 2, 0), b"k3"]
    writer.append(41, 2, parts)
    now, before = examples("wal.md")
    assert now == read_file(fs, segment_path(3))
    replace_file(fs, segment_path(3), now)
    assert list(SegmentScan(fs, segment_path(3)).writes()) == [
        (41, [(TreeId(300), b"k1", b"hello")], b"oldhash1"),
        (42, [(TreeId(300), b"k2", b"x"), (TreeId(301), b"k3", None)], b""),
    ]
    replace_file(fs, segment_path(3), before)
    assert list(SegmentScan(fs, segment_path(3)).writes()) == [
        (41, [(TreeId(300), b"k1", b"hello")], b""),
        (42, [(TreeId(300), b"k2", b"x"), (TreeId(301), b"k3", None)], b""),
    ]


def test_the_manifest() -> None:
    fs = MemoryFileSystem()
    writer = ManifestWriter(fs, bytes_max=1 << 20)
    version = Version().apply(VersionEdit(next_file_number=257))
    writer.start(version)
    edit = VersionEdit(created_trees=(TreeId(300),))
    writer.append(edit, version.apply(edit))
    assert examples("manifest.md") == [read_file(fs, manifest_name(1))]
    assert read_manifest(fs, 1).snapshot() == version.apply(edit).snapshot()
    assert read_file(fs, "CURRENT") == b"MANIFEST-0000000001\n"


def test_the_stamp_and_the_mark() -> None:
    fs = MemoryFileSystem()
    stamp.write_identity(fs, Identity(bytes(range(16)), boot=2))
    stamp.write_clean_mark(fs, CleanMark(segment=3, size=117, last_lsn=42, boot=2))
    found = [read_file(fs, stamp.IDENTITY_PATH), read_file(fs, stamp.CLEAN_PATH)]
    stamp.write_identity(fs, Identity(bytes(range(16)), snapshot="monday", taken_ms=1_000_000))
    assert examples("identity.md") == [*found, read_file(fs, stamp.IDENTITY_PATH)]
