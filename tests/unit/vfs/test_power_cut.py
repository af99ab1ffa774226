"""The memory file system loses in a power cut what a real one may lose, and nothing more."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.vfs.base import read_file, replace_file
from leafdb.vfs.memory import Fault, MemoryFileSystem


def test_synced_bytes_under_a_synced_name_survive_every_cut() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("d")
    fs.sync_dir("")
    file = fs.create("d/f")
    file.append(b"durable")
    file.sync()
    fs.sync_dir("d")
    file.append(b" and not")
    for seed in range(50):
        assert read_file(fs.power_cut(Random(seed)), "d/f").startswith(b"durable")
    assert read_file(fs.power_cut(Random(1), keep=0.0), "d/f") == b"durable"
    assert read_file(fs, "d/f") == b"durable and not"


def test_an_unsynced_name_can_be_lost_with_its_synced_bytes() -> None:
    fs = MemoryFileSystem()
    file = fs.create("f")
    file.append(b"x")
    file.sync()
    fates = {fs.power_cut(Random(seed)).exists("f") for seed in range(20)}
    assert fates == {True, False}


def test_unsynced_writes_are_torn_and_reordered() -> None:
    fs = MemoryFileSystem()
    file = fs.create("f")
    fs.sync_dir("")
    file.append(b"a" * 1500)
    file.append(b"b" * 1500)
    found = {read_file(fs.power_cut(Random(seed)), "f") for seed in range(200)}
    assert b"" in found
    assert b"a" * 1500 + b"b" * 1500 in found
    assert bytes(1500) + b"b" * 1500 in found, "the later write alone"
    assert any(0 < len(content) < 1500 for content in found), "a prefix"
    assert any(b"\0" in content[:1500] and b"a" in content for content in found), "some sectors"


def test_an_unlink_may_be_undone_and_a_rename_is_all_or_nothing() -> None:
    fs = MemoryFileSystem()
    replace_file(fs, "CURRENT", b"old")
    fs.create("victim").close()
    fs.sync_dir("")
    fs.unlink("victim")
    new = fs.create("CURRENT.tmp")
    new.append(b"new")
    new.sync()
    fs.rename("CURRENT.tmp", "CURRENT")
    clones = [fs.power_cut(Random(seed)) for seed in range(50)]
    assert {read_file(clone, "CURRENT") for clone in clones} == {b"old", b"new"}
    assert {clone.exists("victim") for clone in clones} == {True, False}


def test_a_failed_sync_is_final() -> None:
    fs = MemoryFileSystem()
    file = fs.create("f")
    fs.sync_dir("")
    file.append(b"gone")
    fs.faults.append(Fault("sync"))
    with pytest.raises(OSError):
        file.sync()
    file.append(b"more")
    file.sync()
    assert read_file(fs, "f") == b"gonemore"
    assert read_file(fs.power_cut(Random(0), keep=0.0), "f") == b"\0\0\0\0more"


def test_a_directory_whose_name_was_lost_takes_its_files_along() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("d")
    fs.create("d/f").close()
    fs.sync_dir("d")
    assert fs.power_cut(Random(0), keep=0.0).list("") == []
    fs.sync_dir("")
    assert fs.power_cut(Random(0), keep=0.0).list("d") == ["f"]


def test_the_same_seed_gives_the_same_disk() -> None:
    def run() -> list[tuple[str, bytes]]:
        fs = MemoryFileSystem()
        for index in range(20):
            file = fs.create(f"f{index}")
            file.append(bytes([index]) * 900)
            if index % 3 == 0:
                fs.sync_dir("")
        clone = fs.power_cut(Random(7))
        return [(name, read_file(clone, name)) for name in clone.list("")]

    assert run() == run()


def test_every_change_is_observed_after_it_took_effect() -> None:
    fs = MemoryFileSystem()
    calls: list[tuple[str, str, list[str]]] = []
    fs.on_call = lambda kind, path: calls.append((kind, path, fs.list("")))
    file = fs.create("f")
    file.append(b"x")
    file.sync()
    fs.rename("f", "g")
    fs.unlink("g")
    assert [(kind, path) for kind, path, _ in calls] == [
        ("create", "f"),
        ("append", "f"),
        ("sync", "f"),
        ("rename", "g"),
        ("unlink", "g"),
    ]
    assert [names for _, _, names in calls] == [["f"], ["f"], ["f"], ["g"], []]


def test_a_link_is_durable_once_its_directory_is_synced_whatever_becomes_of_the_first_name() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("a")
    fs.mkdir("b")
    fs.sync_dir("")
    file = fs.create("a/f")
    file.append(b"durable")
    file.sync()
    fs.sync_dir("a")
    fs.link("a/f", "b/f")
    assert {fs.power_cut(Random(seed)).exists("b/f") for seed in range(20)} == {True, False}
    assert not fs.power_cut(Random(0), keep=0.0).exists("b/f")
    fs.sync_dir("b")
    fs.unlink("a/f")
    fs.sync_dir("a")
    for seed in range(20):
        assert read_file(fs.power_cut(Random(seed)), "b/f") == b"durable"


def test_a_renamed_directory_has_one_of_its_names_after_a_cut_and_all_that_was_synced() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("d/old")
    fs.sync_dir("")
    fs.sync_dir("d")
    replace_file(fs, "d/old/f", b"durable")
    fs.rename("d/old", "d/new")
    names = set()
    for seed in range(20):
        clone = fs.power_cut(Random(seed))
        (name,) = clone.list("d")
        names.add(name)
        assert read_file(clone, f"d/{name}/f") == b"durable"
        clone.sync_dir("d")
        assert clone.power_cut(Random(0), keep=0.0).list("d") == [name]
    assert names == {"old", "new"}
    fs.sync_dir("d")
    assert fs.power_cut(Random(0), keep=0.0).list("d") == ["new"]


def test_a_removed_directory_may_come_back_with_what_it_held() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("d")
    fs.sync_dir("")
    replace_file(fs, "d/f", b"x")
    fs.unlink("d/f")
    fs.rmdir("d")
    clones = [fs.power_cut(Random(seed)) for seed in range(40)]
    assert {tuple(clone.list("d")) if clone.exists("d") else None for clone in clones} == {None, (), ("f",)}
    fs.sync_dir("")
    assert not fs.power_cut(Random(0), keep=0.0).exists("d")
