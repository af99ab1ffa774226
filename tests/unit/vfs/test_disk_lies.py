"""What a disk gets wrong without saying so shows when the cache is gone, and only then."""

from __future__ import annotations

import contextlib
from random import Random

from leafdb.vfs.memory import Fault, MemoryFileSystem


def disk_with(content: bytes) -> MemoryFileSystem:
    disk = MemoryFileSystem()
    file = disk.create("f")
    file.append(content)
    file.sync()
    disk.sync_dir("")
    return disk


def content(disk: MemoryFileSystem) -> bytes:
    return disk.open_read("f").read_at(0, 1 << 20)


def cut(disk: MemoryFileSystem) -> MemoryFileSystem:
    return disk.power_cut(Random(1), keep=0.0)


def test_a_lost_write_is_read_until_the_cache_is_gone_though_it_was_synced() -> None:
    disk = disk_with(b"old")
    disk.faults.append(Fault("lose"))
    file = disk.open_append("f")
    file.append(b"lost")
    file.append(b"kept")
    file.sync()
    assert content(disk) == b"oldlostkept"
    assert content(cut(disk)) == b"old\0\0\0\0kept"
    disk.evict()
    assert content(disk) == b"old\0\0\0\0kept"


def test_a_misdirected_write_lands_on_what_was_there() -> None:
    disk = disk_with(b"x" * 5000)
    disk.faults.append(Fault("misdirect"))
    file = disk.open_append("f")
    file.write_at(4100, b"astray")
    file.sync()
    assert content(disk)[4100:4106] == b"astray"
    after = content(cut(disk))
    assert after[4100:4106] == b"xxxxxx"
    assert after[4:10] == b"astray"
    assert len(after) == 5000


def test_without_faults_an_eviction_changes_nothing() -> None:
    disk = disk_with(b"synced")
    disk.open_append("f").append(b" and not")
    disk.evict()
    assert content(disk) == b"synced and not"
    assert content(cut(disk)) == b"synced"


def test_what_a_failed_sync_left_unwritten_is_gone_with_the_cache() -> None:
    disk = disk_with(b"synced")
    file = disk.open_append("f")
    file.append(b"doomed")
    disk.faults.append(Fault("sync"))
    with contextlib.suppress(OSError):
        file.sync()
    assert content(disk) == b"synceddoomed"
    disk.evict()
    assert content(disk) == b"synced" + bytes(6)


def test_rot_strikes_durable_bytes_of_the_files_asked_for() -> None:
    disk = disk_with(b"abc")
    other = disk.create("other")
    other.append(b"zzz")
    other.sync()
    struck = disk.flip_random(Random(3), lambda path: path == "f")
    assert struck is not None
    assert struck[0] == "f"
    assert content(disk) != b"abc"
    assert disk.open_read("other").read_at(0, 3) == b"zzz"
    assert disk.flip_random(Random(3), lambda path: path == "none") is None


def test_a_copy_is_another_disk_with_the_same_content() -> None:
    disk = disk_with(b"synced")
    disk.open_append("f").append(b" and not")
    copy = disk.copy()
    disk.open_append("f").append(b" later")
    assert content(copy) == b"synced and not"
    assert copy.paths() == ["f"]
    assert content(cut(copy)) == b"synced and not"
