"""Emptying a store that is closed, for good: what is left is a blank store with an identity of its own.

A mark (WIPE) is written first, durably, and taken away last. While it lies there the files of the store are on their
way out: whatever opens the directory finishes that before it looks at anything else (`recovery`). So power may go at
any point, again and again, and there is never half a store that could be taken for one. The mark carries the identity
to come, so that every attempt ends at the same one; the old stamp stays until all that it vouched for is gone.

Names this build does not know are left alone, as everywhere.
"""

from __future__ import annotations

from typing import Final

from leafdb.errors import StorageError
from leafdb.storage.identity import (
    CLEAN_PATH,
    IDENTITY_PATH,
    LOCK_PATH,
    STORE_ID_BYTES,
    Identity,
    read_identity,
    read_wipe_mark,
    remove_wipe_mark,
    write_identity,
    write_wipe_mark,
)
from leafdb.storage.manifest import CURRENT_PATH, manifest_name, manifest_numbers
from leafdb.storage.quarantine import QUARANTINE_DIRECTORY
from leafdb.storage.snapshot_files import SNAPSHOTS_DIRECTORY
from leafdb.storage.value_files import VALUES_DIRECTORY
from leafdb.storage.version import TABLES_DIRECTORY
from leafdb.storage.wal import WAL_DIRECTORY
from leafdb.vfs.base import FileSystem, remove_tree

_TABLE_NAMES: Final = (".sst", ".sst.tmp")
_LOG_NAMES: Final = (".log", ".log.tmp")
_VALUE_NAMES: Final = (".val", ".val.tmp")


def wipe(fs: FileSystem, store: Identity, fresh_id: bytes) -> None:
    """Empty the closed store of the stamp `store`; it becomes the blank store `fresh_id`.

    Raises StorageError, and touches nothing, when another store lies in `fs` or somebody has it open; OSError when the
    disk does not let it: the next open goes on.
    """
    assert len(fresh_id) == STORE_ID_BYTES, "a store id has sixteen bytes"
    assert fresh_id != store.store_id, "a wiped store is another store"
    lock = fs.lock(LOCK_PATH)
    try:
        found = read_identity(fs)
        if found is None or found.store_id != store.store_id:
            raise StorageError("another store lies here than the one to be emptied", path=IDENTITY_PATH)
        write_wipe_mark(fs, fresh_id)
        finish_wipe(fs)
    finally:
        lock.release()


def finish_wipe(fs: FileSystem) -> None:
    """Go on where a wipe was cut off, if one was. The caller holds the lock. Raises OSError."""
    fresh_id = read_wipe_mark(fs)
    if fresh_id is None:
        return
    directories = (
        (TABLES_DIRECTORY, _TABLE_NAMES), (VALUES_DIRECTORY, _VALUE_NAMES), (WAL_DIRECTORY, _LOG_NAMES),
        (QUARANTINE_DIRECTORY, _TABLE_NAMES),
    )  # fmt: skip
    for directory, endings in directories:
        for name in fs.list(directory):
            if name.endswith(endings):
                fs.unlink(f"{directory}/{name}")
        if fs.exists(directory):
            fs.sync_dir(directory)
    for name in fs.list(SNAPSHOTS_DIRECTORY):
        remove_tree(fs, f"{SNAPSHOTS_DIRECTORY}/{name}")
    if fs.exists(SNAPSHOTS_DIRECTORY):
        fs.sync_dir(SNAPSHOTS_DIRECTORY)
    manifests = [manifest_name(number) for number in manifest_numbers(fs)]
    for name in (CURRENT_PATH, f"{CURRENT_PATH}.tmp", *manifests, CLEAN_PATH, f"{CLEAN_PATH}.tmp"):
        if fs.exists(name):
            fs.unlink(name)
    fs.sync_dir("")
    write_identity(fs, Identity(store_id=fresh_id))
    remove_wipe_mark(fs)
