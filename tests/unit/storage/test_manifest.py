"""The manifest gives back the version its edits lead to, forgets only an edit nobody relied on, and names damage."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.codec import cbor
from leafdb.errors import CorruptionError
from leafdb.storage import manifest
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.manifest import ManifestWriter, current_manifest, manifest_name, read_manifest
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta, Version, VersionEdit
from leafdb.types import TreeId
from leafdb.vfs.base import read_file, replace_file
from leafdb.vfs.memory import MemoryFileSystem

TREE = TreeId(9)
LOSS = "a3646c6f737481840719012c41614163656164646564818b0919012c0018640a4163417a010a00006772656d6f7665648107"
NOTED = "a16a6c6f73745f6e6f7465648107"


def table(number: int) -> TableMeta:
    return TableMeta(
        number, TREE, 0, size=10, entries=1, smallest=b"a", largest=b"z", sequence_min=number, sequence_max=number
    )


def edits() -> list[VersionEdit]:
    return [
        VersionEdit(created_trees=(TREE,), next_file_number=100),
        VersionEdit(added=(table(1),), flushed_lsn=5),
        VersionEdit(added=(table(2),), removed=(1,), flushed_lsn=9),
    ]


def written(*, bytes_max: int = 1 << 20) -> tuple[MemoryFileSystem, ManifestWriter, Version]:
    fs = MemoryFileSystem()
    writer = ManifestWriter(fs, bytes_max=bytes_max)
    version = Version()
    writer.start(version)
    for edit in edits():
        version = version.apply(edit)
        writer.append(edit, version)
    return fs, writer, version


def same(left: Version, right: Version) -> bool:
    return left.snapshot() == right.snapshot()


def current(fs: MemoryFileSystem) -> Version:
    number = current_manifest(fs)
    assert number is not None
    return read_manifest(fs, number)


def test_edits_come_back_as_the_version_they_lead_to() -> None:
    fs, _, version = written()
    assert same(current(fs), version)
    assert current_manifest(MemoryFileSystem()) is None


def test_growth_beyond_the_bound_starts_a_new_manifest_with_the_whole_version() -> None:
    fs, writer, version = written(bytes_max=1)
    assert writer.number == 4
    assert fs.list("") == ["CURRENT", manifest_name(4)]
    assert same(current(fs), version)


def test_a_large_version_takes_several_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "_TABLES_PER_RECORD", 3)
    fs = MemoryFileSystem()
    edit = VersionEdit(created_trees=(TREE,), added=tuple(table(n) for n in range(1, 12)), next_file_number=50, boot=3)
    version = Version().apply(edit)
    ManifestWriter(fs, bytes_max=1 << 20).start(version)
    assert same(current(fs), version)


def test_value_files_stand_in_the_record_of_the_first_table_that_refers_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(manifest, "_ITEMS_PER_RECORD", 70)
    fs = MemoryFileSystem()
    values = tuple(ValueMeta(100 + n, TREE, 1_064, 9) for n in range(12))
    tables = tuple(replace(table(n), references=((100 + n - 1, 400), (100 + n, 300), (111, 9))) for n in range(1, 11))
    edit = VersionEdit(created_trees=(TREE,), added=tables, values=values, next_file_number=200)
    version = Version().apply(edit)
    version.check()
    assert version.values.live[101] == 700
    ManifestWriter(fs, bytes_max=1 << 20).start(version)
    again = current(fs)
    assert same(again, version)
    assert (again.values.metas, again.values.live) == (version.values.metas, version.values.live)


def test_after_a_cut_at_any_call_the_version_before_or_after_the_edit_is_there() -> None:
    fs = MemoryFileSystem()
    writer = ManifestWriter(fs, bytes_max=220)
    version = Version()
    writer.start(version)
    allowed = [version]
    rng = Random(5)

    def cut(kind: str, path: str) -> None:
        for _ in range(6):
            found = current(fs.power_cut(rng))
            assert any(same(found, candidate) for candidate in allowed), f"after {kind} {path}"

    fs.on_call = cut
    for edit in [*edits(), VersionEdit(flushed_lsn=12), VersionEdit(flushed_lsn=15)]:
        allowed = [version, version.apply(edit)]
        version = allowed[1]
        writer.append(edit, version)
        allowed = [version]
        cut("append", "returned")


def test_an_edit_torn_at_any_byte_is_left_out() -> None:
    fs, writer, version = written()
    whole = read_file(fs, manifest_name(1))
    writer.append(VersionEdit(flushed_lsn=77), version.apply(VersionEdit(flushed_lsn=77)))
    longer = read_file(fs, manifest_name(1))
    for size in range(len(whole), len(longer)):
        replace_file(fs, manifest_name(1), longer[:size])
        assert same(current(fs), version)


def test_a_damaged_or_missing_record_of_the_version_at_the_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """CURRENT names a manifest only when all of them are synced: the last one is no edit that nobody relied on."""
    monkeypatch.setattr(manifest, "_TABLES_PER_RECORD", 1)
    fs = MemoryFileSystem()
    edit = VersionEdit(created_trees=(TREE,), added=(table(1), table(2)), next_file_number=50)
    ManifestWriter(fs, bytes_max=1 << 20).start(Version().apply(edit))
    whole = read_file(fs, manifest_name(1))
    for size in range(manifest.HEADER_BYTES, len(whole)):
        replace_file(fs, manifest_name(1), whole[:size])
        with pytest.raises(CorruptionError, match="good records of the 3"):
            current(fs)
    replace_file(fs, manifest_name(1), whole)
    fs.flip(manifest_name(1), len(whole) - 1)
    with pytest.raises(CorruptionError, match="2 good records of the 3"):
        current(fs)


def test_damage_before_a_valid_record_is_named() -> None:
    fs, writer, _ = written()
    start = len(read_file(fs, manifest_name(1)))
    writer.append(VersionEdit(flushed_lsn=10), Version())
    end = len(read_file(fs, manifest_name(1)))
    writer.append(VersionEdit(flushed_lsn=11), Version())
    for offset in range(start, end):
        fs.flip(manifest_name(1), offset)
        with pytest.raises(CorruptionError, match="had been synced") as caught:
            current(fs)
        assert caught.value.offset == start
        fs.flip(manifest_name(1), offset)


def test_damaged_headers_missing_files_and_bad_edits_are_named() -> None:
    fs, writer, _ = written()
    fs.flip(manifest_name(1), 2)
    with pytest.raises(CorruptionError, match="damaged header"):
        current(fs)
    fs.flip(manifest_name(1), 2)
    writer.append(VersionEdit(removed=(55,)), Version())
    with pytest.raises(CorruptionError, match="removes table 55, which is not there"):
        current(fs)
    fs.unlink(manifest_name(1))
    with pytest.raises(CorruptionError, match="is missing"):
        current(fs)
    replace_file(fs, "CURRENT", b"MANIFEST-1\n")
    with pytest.raises(CorruptionError, match="CURRENT names"):
        current(fs)


def test_the_edits_of_a_loss_are_the_bytes_of_the_page() -> None:
    table = TableMeta(9, TreeId(300), 0, 100, 10, b"c", b"z", 1, 10)
    edit = VersionEdit(added=(table,), removed=(7,), lost=(LostRange(7, TreeId(300), b"a", b"c"),))
    assert cbor.dumps(edit.to_plain()).hex() == LOSS
    assert cbor.dumps(VersionEdit(lost_noted=(7,)).to_plain()).hex() == NOTED
    assert VersionEdit.from_plain(cbor.loads(bytes.fromhex(LOSS))) == edit
