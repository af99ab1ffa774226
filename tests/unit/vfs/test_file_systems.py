"""Both file systems keep the promises of vfs/base.py that a running process can see."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from leafdb.errors import StoreLocked
from leafdb.vfs.base import FileSystem, read_file, remove_tree, replace_file
from leafdb.vfs.below import Below
from leafdb.vfs.disk import DISCARD_PAUSE_S, DISCARD_STEP_BYTES, DiskFileSystem
from leafdb.vfs.memory import Fault, MemoryFileSystem


@pytest.fixture(params=["disk", "memory", "below"])
def fs(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystem:
    if request.param == "disk":
        return DiskFileSystem(tmp_path / "root")
    memory = MemoryFileSystem()
    if request.param == "memory":
        return memory
    memory.mkdir("in/side")
    return Below(memory, "in/side")


def test_what_is_written_is_read(fs: FileSystem) -> None:
    fs.mkdir("a/b")
    file = fs.create("a/b/file")
    file.append(b"hello ")
    file.append(b"world")
    file.write_at(0, b"J")
    file.append(b"!")
    file.sync()
    assert file.size() == 12
    assert file.read_at(0, 100) == b"Jello world!"
    assert file.read_at(6, 5) == b"world"
    file.truncate(5)
    file.append(b"s")
    file.close()
    assert read_file(fs, "a/b/file") == b"Jellos"
    again = fs.open_append("a/b/file")
    again.append(b"!")
    again.write_at(9, b"x")
    again.append(b"y")
    assert again.read_at(0, 100) == b"Jellos!\0\0xy"
    again.close()


def test_nowait_reads_exactly_or_not_at_all(fs: FileSystem) -> None:
    file = fs.create("f")
    file.append(b"0123456789")
    assert file.read_nowait(2, 4) in (b"2345", None)  # None where the kernel does not support it
    assert file.read_nowait(8, 4) is None
    file.close()


def test_names(fs: FileSystem) -> None:
    fs.mkdir("d")
    fs.mkdir("d")
    fs.create("d/one").close()
    with pytest.raises(FileExistsError):
        fs.create("d/one")
    fs.link("d/one", "d/two")
    fs.rename("d/one", "d/three")
    assert fs.list("d") == ["three", "two"]
    assert fs.exists("d/two")
    assert fs.exists("d")
    assert not fs.exists("d/one")
    fs.unlink("d/two")
    with pytest.raises(FileNotFoundError):
        fs.unlink("d/two")
    with pytest.raises(FileNotFoundError):
        fs.open_read("d/two")
    assert fs.list("d") == ["three"]
    assert fs.list("nowhere") == []
    fs.sync_dir("d")
    fs.sync_dir("")


def test_an_open_file_outlives_its_name(fs: FileSystem) -> None:
    file = fs.create("f")
    file.append(b"still here")
    fs.unlink("f")
    assert file.read_at(0, 10) == b"still here"
    file.close()


def test_a_link_is_the_same_file_and_outlives_the_other_name(fs: FileSystem) -> None:
    fs.mkdir("a")
    fs.mkdir("b")
    file = fs.create("a/one")
    file.append(b"shared")
    file.close()
    fs.link("a/one", "b/two")
    with pytest.raises(FileExistsError):
        fs.link("a/one", "b/two")
    with pytest.raises(FileNotFoundError):
        fs.link("a/none", "b/three")
    fs.unlink("a/one")
    assert read_file(fs, "b/two") == b"shared"


def test_what_is_discarded_is_gone_and_lives_on_under_another_name(fs: FileSystem) -> None:
    replace_file(fs, "file", b"content")
    fs.link("file", "other")
    fs.discard("file")
    assert fs.list("") == ["other"]
    assert read_file(fs, "other") == b"content"
    fs.discard("other")
    assert fs.list("") == []
    with pytest.raises(FileNotFoundError):
        fs.discard("other")


def test_the_room_of_a_large_file_is_given_back_bit_by_bit(tmp_path: Path) -> None:
    pauses: list[float] = []
    fs = DiskFileSystem(tmp_path, pause=pauses.append)
    replace_file(fs, "file", bytes(5 * DISCARD_STEP_BYTES + 1))
    fs.discard("file")
    assert fs.list("") == []
    assert pauses == [DISCARD_PAUSE_S] * 5


def test_a_large_file_that_a_snapshot_has_stays_whole(tmp_path: Path) -> None:
    fs = DiskFileSystem(tmp_path, pause=lambda seconds: None)
    replace_file(fs, "file", b"x" * (3 * DISCARD_STEP_BYTES))
    fs.mkdir("snapshots")
    fs.link("file", "snapshots/file")
    fs.discard("file")
    assert read_file(fs, "snapshots/file") == b"x" * (3 * DISCARD_STEP_BYTES)


def test_a_renamed_directory_takes_its_content_along(fs: FileSystem) -> None:
    fs.mkdir("d/old/deep")
    file = fs.create("d/old/deep/f")
    file.append(b"x")
    fs.rename("d/old", "d/new")
    file.append(b"y")
    file.close()
    assert fs.list("d") == ["new"]
    assert not fs.exists("d/old/deep")
    assert read_file(fs, "d/new/deep/f") == b"xy"
    fs.mkdir("d/old/other")
    with pytest.raises(OSError):
        fs.rename("d/new", "d/old")
    fs.sync_dir("d/new/deep")


def test_a_tree_is_removed_and_a_directory_that_holds_something_is_not(fs: FileSystem) -> None:
    fs.mkdir("d/deep")
    fs.create("d/deep/f").close()
    fs.create("d/g").close()
    assert fs.is_directory("d/deep")
    assert not fs.is_directory("d/g")
    assert not fs.is_directory("nothing")
    with pytest.raises(OSError):
        fs.rmdir("d")
    remove_tree(fs, "d")
    remove_tree(fs, "d")
    assert fs.list("") == []


def test_replace_file_leaves_no_temporary(fs: FileSystem) -> None:
    replace_file(fs, "CURRENT", b"one")
    replace_file(fs, "CURRENT", b"two")
    assert read_file(fs, "CURRENT") == b"two"
    assert fs.list("") == ["CURRENT"]


def test_a_lock_has_one_holder(fs: FileSystem) -> None:
    lock = fs.lock("LOCK")
    with pytest.raises(StoreLocked):
        fs.lock("LOCK")
    lock.release()
    fs.lock("LOCK").release()


def test_room_is_known(fs: FileSystem) -> None:
    assert fs.free_bytes() > 0


def test_the_disk_refuses_paths_that_leave_the_root(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        DiskFileSystem(tmp_path).create("../escape")


def test_a_quota_is_a_full_disk() -> None:
    fs = MemoryFileSystem(quota_bytes=10)
    file = fs.create("f")
    file.append(b"12345678")
    assert fs.free_bytes() == 2
    with pytest.raises(OSError) as caught:
        file.append(b"9abc")
    assert caught.value.errno == errno.ENOSPC
    assert file.read_at(0, 20) == b"123456789a"
    fs.unlink("f")
    assert fs.free_bytes() == 10


def test_a_fault_strikes_the_chosen_call() -> None:
    fs = MemoryFileSystem()
    fs.faults.append(Fault("append", at=2, error=errno.EIO, short=True, path_prefix="f"))
    other, file = fs.create("g"), fs.create("f")
    other.append(b"xx")
    file.append(b"good")
    with pytest.raises(OSError) as caught:
        file.append(b"half")
    assert caught.value.errno == errno.EIO
    assert file.read_at(0, 10) == b"goodha"
    file.append(b"!")


def test_a_tree_with_a_symbolic_link_is_removed_without_what_it_points_to(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    fs = DiskFileSystem(tmp_path / "root")
    fs.mkdir("d")
    (tmp_path / "root" / "d" / "link").symlink_to(outside)
    remove_tree(fs, "d")
    assert not fs.exists("d")
    assert (outside / "precious").exists()
