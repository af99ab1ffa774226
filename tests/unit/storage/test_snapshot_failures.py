"""What a failing disk, and the end of the store, do to snapshots: an error costs the snapshot and never the store."""

from __future__ import annotations

import errno
from contextlib import suppress
from random import Random

import pytest

from leafdb.errors import DiskFull, StorageError, StoreFailed
from leafdb.storage.snapshot_files import PART, Snapshot, SnapshotRefused, snapshot_path
from leafdb.vfs.base import remove_tree
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.snapshots import OF_SNAPSHOT, OTHER, ask, drop, fill, filled, opened, take
from support.store import TREE, Store


@pytest.mark.parametrize("kind", ["link", "create", "append", "sync", "sync_dir", "rename"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_an_error_costs_the_snapshot_and_nothing_else(kind: str, error: int) -> None:
    store = filled()
    store.engine.flush_soon()
    store.settle()
    at = 1
    while True:
        fault = Fault(kind, at=at, error=error, path_prefix="snapshots")
        store.fs.faults[:] = [fault]
        answers = ask(store, "s")
        store.settle()
        store.fs.faults.clear()
        (answer,) = answers
        if isinstance(answer, Snapshot):
            break
        assert isinstance(answer, DiskFull) == (error == errno.ENOSPC)
        assert "snapshot s was not made" in str(answer)
        assert store.fs.list("snapshots") == []
        assert not store.engine.snapshots()
        at += 1
    assert at > 1, "the fault struck at least once"
    assert not store.failures
    fill(store, 30, b"w")
    store.settle()
    store.engine.check()
    assert len(opened(store, "s").page().items) == 30


def test_a_file_system_without_links_is_told_apart() -> None:
    store = filled()
    store.fs.faults.append(Fault("link", error=errno.EOPNOTSUPP))
    with pytest.raises(StorageError, match="does not link files"):
        take(store, "s")
    take(store, "s")


def test_an_error_while_dropping_leaves_it_or_takes_its_name_at_least() -> None:
    store = filled()
    take(store, "s")
    store.fs.faults.append(Fault("rename", path_prefix="snapshots"))
    with pytest.raises(StorageError, match="was not dropped"):
        drop(store, "s")
    assert len(store.engine.snapshots()) == 1
    store.fs.faults.append(Fault("unlink", path_prefix="snapshots"))
    drop(store, "s")
    assert store.engine.snapshots() == ()
    assert store.engine.stats().unlinks_failed == 1
    assert store.fs.list("snapshots") == ["s.part"]
    store.close()
    assert Store(store.fs).fs.list("snapshots") == []


def test_one_that_somebody_removed_by_hand_is_dropped_without_complaint() -> None:
    store = filled()
    take(store, "s")
    remove_tree(store.fs, snapshot_path("s"))
    drop(store, "s")
    assert store.engine.snapshots() == ()


def test_what_lies_in_its_place_is_not_overwritten() -> None:
    store = filled()
    store.fs.mkdir("snapshots/s/precious")
    with pytest.raises(SnapshotRefused, match="already"):
        take(store, "s")
    assert store.fs.exists("snapshots/s/precious")


def test_the_end_of_the_store_answers_everyone_who_waits() -> None:
    store = filled()
    take(store, "there")
    store.put(b"k", b"a flush will be needed")
    answers = ask(store, "s")
    dropped: list[StorageError | None] = []
    store.engine.drop_snapshot_soon("there", dropped.append)
    store.engine.close()
    assert isinstance(answers[0], StoreFailed)
    assert len(dropped) == 1
    store.executor.run_pending()
    assert len(answers) == len(dropped) == 1
    with pytest.raises(StoreFailed):
        ask(store, "late")
    with pytest.raises(StoreFailed):
        store.engine.drop_snapshot_soon("there", dropped.append)


def test_a_store_that_fails_meanwhile_answers() -> None:
    store = filled()
    store.fs.faults.append(Fault("sync", path_prefix="wal", count=9))
    store.put(b"k", b"v")
    answers = ask(store, "s")
    store.settle()
    assert store.failures
    assert isinstance(answers[0], StoreFailed)


def test_a_tree_that_is_dropped_meanwhile_is_not_in_it() -> None:
    store = filled()
    answers = ask(store, "s", {TREE, OTHER})
    store.engine.drop_tree(OTHER)
    store.settle()
    (snapshot,) = answers
    assert isinstance(snapshot, Snapshot)
    assert snapshot.trees == (TREE,)
    assert opened(store, "s").engine.trees() == [TREE]


@pytest.mark.parametrize("of_drop", [False, True])
def test_a_rename_whose_sync_failed_is_never_followed_by_half_a_snapshot(*, of_drop: bool) -> None:
    """Either name may be the durable one then: no file goes before it is known which."""
    store = filled()
    disks: list[MemoryFileSystem] = []

    def cut(kind: str, path: str) -> None:
        disks.extend(store.fs.power_cut(Random(f"{kind} {path} {seed}")) for seed in range(8))

    syncs = 1  # the one behind the rename is the last of a making, and the first of a drop
    if of_drop:
        take(store, "s")
    else:
        calls: list[str] = []
        trial = filled()
        trial.fs.on_call = lambda kind, path: calls.append(f"{kind} {path}")
        take(trial, "s")
        syncs = len([call for call in calls if call.startswith("sync_dir snapshots")])
    fault = Fault("sync_dir", at=syncs, path_prefix="snapshots")
    store.fs.faults.append(fault)
    store.fs.on_call = cut
    for _ in range(2):  # the second finds what the first has left
        with suppress(StorageError):
            if of_drop:
                drop(store, "s")
            else:
                take(store, "s")
                break
    store.fs.on_call = None
    assert fault.seen >= fault.at
    whole = [disk for disk in disks if disk.exists(snapshot_path("s"))]
    assert 0 < len(whole) < len(disks)
    for disk in whole:
        assert len(Store(disk.copy_below(snapshot_path("s")), OF_SNAPSHOT).page().items) == 30


def test_a_sweep_that_is_cut_off_leaves_no_half_under_the_name_before() -> None:
    """A killed process renamed it, and nobody knows whether the disk has heard of that."""
    store = filled()
    take(store, "s")
    store.fs.rename(snapshot_path("s"), snapshot_path("s") + PART)
    store.fs.locks.clear()
    disks: list[MemoryFileSystem] = []
    store.fs.on_call = lambda kind, path: disks.extend(store.fs.power_cut(Random(seed)) for seed in range(8))
    assert Store(store.fs).engine.snapshots() == ()
    whole = [disk for disk in disks if disk.exists(snapshot_path("s"))]
    assert whole
    for disk in whole:
        assert len(Store(disk.copy_below(snapshot_path("s")), OF_SNAPSHOT).page().items) == 30


def test_one_that_an_open_tells_of_is_there_for_good() -> None:
    """Nobody knows whether the disk has heard of its name; the next process lists it, and the power goes then."""
    store = filled()
    store.fs.mkdir("snapshots/s.part")
    store.fs.sync_dir("snapshots")
    store.fs.rename("snapshots/s.part", "snapshots/s")
    store.close()
    told = [snapshot.name for snapshot in Store(store.fs).engine.snapshots()]
    assert told == ["s"]
    for seed in range(8):
        after = Store(store.fs.power_cut(Random(seed), keep=0.0))
        assert [snapshot.name for snapshot in after.engine.snapshots()] == told
