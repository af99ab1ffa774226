"""The snapshots of a running store: one at a name, made and dropped beside the loop. What they are is in
`snapshot_files`.

A snapshot holds everything that was written before it was asked for: what is in memory is flushed first, then the
version of that moment is pinned, so that no compaction takes a file away before it is linked, and let go when the
snapshot has its name. It is the state after a prefix of the writes, that of its version, and may be younger than asked.

An error costs the snapshot. The end of the store answers everyone who waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import partial

from leafdb.errors import StorageError
from leafdb.limits import SNAPSHOTS_MAX
from leafdb.storage.executor import Executor
from leafdb.storage.identity import Identity
from leafdb.storage.snapshot_files import (
    Snapshot,
    SnapshotRefused,
    check_name,
    drop_snapshot,
    make_snapshot,
    plan_snapshot,
)
from leafdb.storage.tables import Pin, Tables
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem

SnapshotDone = Callable[[Snapshot | StorageError], None]
DropDone = Callable[[StorageError | None], None]


class Snapshots:
    """Lives on the loop; the work is done on the read executor."""

    def __init__(self, fs: FileSystem, tables: Tables, executor: Executor, there: Iterable[Snapshot]) -> None:
        self._fs = fs
        self._tables = tables
        self._executor = executor
        self._there = {snapshot.name: snapshot for snapshot in there}
        self._making: dict[str, SnapshotDone] = {}
        self._dropping: dict[str, DropDone] = {}

    def all(self) -> tuple[Snapshot, ...]:
        """Those that are whole, by name."""
        return tuple(self._there[name] for name in sorted(self._there))

    # -- making

    def begin(self, name: str, done: SnapshotDone) -> None:
        """Take the name; `take` must follow, or `fail`. Raises SnapshotRefused."""
        check_name(name)
        if name in self._there or name in self._making or name in self._dropping:
            raise SnapshotRefused(f"there is a snapshot {name} already: drop it, or take another name")
        if len(self._there) + len(self._making) >= SNAPSHOTS_MAX:
            raise SnapshotRefused(f"there are {SNAPSHOTS_MAX} snapshots, which is all a store keeps: drop one first")
        self._making[name] = done

    def take(self, name: str, store: Identity, trees: Collection[TreeId] | None, taken_ms: int) -> None:
        """What was in memory is in tables: make the snapshot of now."""
        if name not in self._making:
            return  # the store has failed or is closed, and said so
        pin = self._tables.pin()
        plan = plan_snapshot(name, store, pin.version, trees, taken_ms)
        self._executor.submit(partial(make_snapshot, self._fs, plan), partial(self._made, name, pin))

    def _made(self, name: str, pin: Pin, result: Snapshot | BaseException) -> None:
        self._tables.release(pin)
        done = self._making.pop(name, None)
        if isinstance(result, Snapshot):
            self._there[name] = result
        elif not isinstance(result, StorageError):
            raise result  # a bug: what the world does to a snapshot comes as StorageError
        if done is not None:
            done(result)

    # -- dropping

    def drop_soon(self, name: str, done: DropDone) -> None:
        """Take one away, whole or damaged. Raises SnapshotRefused when there is none, or it is being made."""
        if name not in self._there:
            raise SnapshotRefused(f"there is no snapshot {name!r:.80}")
        if name in self._dropping:
            raise SnapshotRefused(f"snapshot {name} is being dropped already")
        self._dropping[name] = done
        self._executor.submit(partial(drop_snapshot, self._fs, name), partial(self._dropped, name))

    def _dropped(self, name: str, result: bool | BaseException) -> None:
        done = self._dropping.pop(name, None)
        if isinstance(result, bool):
            del self._there[name]
            self._tables.unlinks_failed += not result
        elif not isinstance(result, StorageError):
            raise result
        if done is not None:
            done(None if isinstance(result, bool) else result)

    # -- the end, and looking inside

    def fail(self, failure: StorageError) -> None:
        """Answer everyone who waits: there is no more service."""
        making, self._making = self._making, {}
        dropping, self._dropping = self._dropping, {}
        for made in making.values():
            made(failure)
        for dropped in dropping.values():
            dropped(failure)

    def bytes_held(self) -> int:
        """What the disk holds for snapshots alone: files of theirs that the store has moved on from."""
        if not self._there:
            return 0
        in_use = self._tables.version.files()
        held = {path: size for each in self._there.values() for path, size in each.files.items() if path not in in_use}
        return sum(held.values())

    def check(self) -> None:
        assert len(self._there.keys() | self._making.keys()) <= SNAPSHOTS_MAX or not self._making
        assert not self._making.keys() & self._there.keys(), "a snapshot made over another"
        assert self._dropping.keys() <= self._there.keys(), "a snapshot dropped that is not there"
