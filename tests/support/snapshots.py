"""Snapshots of a store in memory, taken, dropped and opened on another disk."""

from __future__ import annotations

from dataclasses import replace

from leafdb.errors import StorageError
from leafdb.storage.snapshot_files import Snapshot, snapshot_path
from leafdb.types import TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL, TREE, Store

OTHER = TreeId(301)
OF_SNAPSHOT = replace(SMALL, snapshot=True)


def filled(writes: int = 30) -> Store:
    store = Store()
    store.engine.create_tree(TREE)
    store.engine.create_tree(OTHER)
    fill(store, writes)
    return store


def fill(store: Store, writes: int, mark: bytes = b"v") -> None:
    for number in range(writes):
        store.put(b"k%03d" % number, mark * 300)
        store.put(b"o%03d" % number, mark * 300, tree=OTHER)
    store.commit()


def ask(store: Store, name: str, trees: set[TreeId] | None = None) -> list[Snapshot | StorageError]:
    answers: list[Snapshot | StorageError] = []
    store.engine.snapshot_soon(name, answers.append, trees, taken_ms=77)
    assert not answers, "answered inside the call"
    return answers


def take(store: Store, name: str, trees: set[TreeId] | None = None) -> Snapshot:
    answers = ask(store, name, trees)
    store.settle()
    (answer,) = answers
    if isinstance(answer, StorageError):
        raise answer
    return answer


def drop(store: Store, name: str) -> None:
    answers: list[StorageError | None] = []
    store.engine.drop_snapshot_soon(name, answers.append)
    store.settle()
    (error,) = answers
    if error is not None:
        raise error


def copied(store: Store, name: str) -> MemoryFileSystem:
    """The snapshot on another disk, as a person would copy it."""
    return store.fs.copy_below(snapshot_path(name))


def opened(store: Store, name: str) -> Store:
    return Store(copied(store, name), OF_SNAPSHOT)
