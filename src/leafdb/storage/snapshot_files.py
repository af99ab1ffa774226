"""A snapshot on disk: a store of its own in `snapshots/NAME/`, made of hard links, a manifest and a stamp.

Tables are immutable and were synced, with their names, before any version named them. So a snapshot costs names and two
small files, and no data until the store has moved on and compactions would have freed what it still holds.

The name comes last. Everything is made in `snapshots/NAME.part/`: links, their directories synced, the manifest that
names them and CURRENT, the stamp; then the directory is renamed and the rename synced. Whatever has its final name is
whole. Taking one away goes the other way: renamed back to `.part` first, so that a half of it is never taken for one.
What lies under `.part` at an open is swept. No file below it goes before that name is durable: else a power cut could
bring the other name back, over what is left.

Nothing here touches a file or a directory of the store itself: an error costs the snapshot and no more. The functions
block; they run on the read executor (`snapshots`), and at open.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from leafdb.codec.checksum import crc32c
from leafdb.errors import CorruptionError, DiskFull, StorageError
from leafdb.limits import MANIFEST_BYTES_MAX, SNAPSHOT_NAME_BYTES_MAX
from leafdb.storage.identity import IDENTITY_PATH, Identity, read_identity, write_identity
from leafdb.storage.manifest import ManifestWriter, current_manifest, read_manifest
from leafdb.storage.version import Version, VersionEdit
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem, parent_of, remove_tree
from leafdb.vfs.below import Below

SNAPSHOTS_DIRECTORY: Final = "snapshots"
PART: Final = ".part"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NUMBERS: Final = 1 << 31
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)


class SnapshotRefused(StorageError):
    """A snapshot of that name cannot be made, or dropped; nothing was done."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a store knows of one of its snapshots."""

    name: str
    sequence: int = 0
    """Every write up to this one is in it, and none after."""
    trees: tuple[TreeId, ...] = ()
    files: Mapping[str, int] = field(default_factory=dict)
    """The paths of the linked files, below the snapshot as below the store, and their sizes."""
    taken_ms: int = 0
    """When it was asked for, by the wall clock; 0: not known."""
    problem: str = ""
    """Why it cannot be read, in words; it can be dropped all the same."""

    @property
    def bytes_named(self) -> int:
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """What is to be made: the stamp, and the version whose files are linked."""

    identity: Identity
    version: Version

    def snapshot(self) -> Snapshot:
        version, identity = self.version, self.identity
        trees = tuple(sorted(version.trees))
        return Snapshot(identity.snapshot, version.flushed_lsn, trees, version.files(), identity.taken_ms)

    def manifest_number(self) -> int:
        """One that no other snapshot of the store has, but by chance: what was meant for another's list of tables and
        lands in this one is then damage. 31 bits, and never 0."""
        text = f"{self.identity.snapshot} {self.version.flushed_lsn}"
        return 1 + crc32c(text.encode("ascii")) % _NUMBERS


def check_name(name: str) -> None:
    """SnapshotRefused for what is no name: it becomes that of a directory, and is typed by people."""
    if len(name) > SNAPSHOT_NAME_BYTES_MAX or not _NAME.fullmatch(name) or name.endswith(PART):
        raise SnapshotRefused(
            f"{name!r:.80} cannot name a snapshot: letters, digits, '-', '_' and '.', a letter or digit first, at most "
            f"{SNAPSHOT_NAME_BYTES_MAX} of them, and not {PART!r} at the end"
        )


def snapshot_path(name: str) -> str:
    """The directory of the snapshot, below the store's root."""
    return f"{SNAPSHOTS_DIRECTORY}/{name}"


def plan_snapshot(
    name: str, store: Identity, version: Version, trees: Collection[TreeId] | None, taken_ms: int
) -> SnapshotPlan:
    """A snapshot of `trees` of the version, None: of all of it. Pure.

    Its stamp is that of the store, never opened, with the snapshot's name.
    """
    identity = Identity(store.store_id, 0, store.cluster_id, store.node_id, store.incarnation, name, taken_ms)
    if trees is not None:
        version = version.apply(VersionEdit(dropped_trees=tuple(sorted(set(version.trees) - set(trees)))))
    return SnapshotPlan(identity, version)


def make_snapshot(fs: FileSystem, plan: SnapshotPlan) -> Snapshot:
    """Carry the plan out; durable, and under its name, when it returns. The version's files must be held meanwhile.

    Raises DiskFull or StorageError and leaves nothing under the name; SnapshotRefused when the name is taken.
    """
    name = plan.identity.snapshot
    path = snapshot_path(name)
    try:
        if fs.exists(path):
            raise SnapshotRefused(f"there is a snapshot {name} already", path=path)
        _clear(fs, path + PART)
        _fill(fs, plan, Below(fs, path + PART))
        fs.rename(path + PART, path)
        try:
            fs.sync_dir(SNAPSHOTS_DIRECTORY)
        except OSError:
            fs.rename(path, path + PART)
            raise
    except OSError as error:
        with suppress(OSError):  # the next open sweeps it
            _clear(fs, path + PART)
        raise _failed(name, error) from error
    return plan.snapshot()


def _fill(fs: FileSystem, plan: SnapshotPlan, inside: Below) -> None:
    """Everything a snapshot is, synced, in a directory whose name nobody trusts yet."""
    fs.mkdir(inside.directory)
    files = plan.version.files()
    directories = sorted({parent_of(path) for path in files})
    for directory in directories:
        inside.mkdir(directory)
    for path in files:
        fs.link(path, f"{inside.directory}/{path}")
    for directory in directories:
        inside.sync_dir(directory)
    manifest = ManifestWriter(inside, bytes_max=MANIFEST_BYTES_MAX)
    try:
        manifest.start(plan.version, first=plan.manifest_number())
    finally:
        manifest.close()
    write_identity(inside, plan.identity)


def _clear(fs: FileSystem, part: str) -> None:
    """Remove what lies under a `.part`, whichever name it had before."""
    if fs.exists(part):
        fs.sync_dir(SNAPSHOTS_DIRECTORY)
        remove_tree(fs, part)


def _failed(name: str, error: OSError) -> StorageError:
    what = f"snapshot {name} was not made: {error}"
    if error.errno in _NO_ROOM:
        return DiskFull(what, path=str(error.filename or ""))
    if error.errno in _NO_LINKS:
        what = f"snapshot {name} was not made: the file system does not link files here: {error}"
    return StorageError(what, path=str(error.filename or ""))


def drop_snapshot(fs: FileSystem, name: str) -> bool:
    """Take the snapshot away; its name is gone for good when this returns. Answers whether its files are, too; else
    the next open sweeps them. StorageError when it stays. One that is not there is no error."""
    path = snapshot_path(name)
    try:
        _clear(fs, path + PART)
        if fs.exists(path):
            fs.rename(path, path + PART)
        fs.sync_dir(SNAPSHOTS_DIRECTORY)
    except OSError as error:
        raise StorageError(f"snapshot {name} was not dropped: {error}", path=path) from error
    try:
        remove_tree(fs, path + PART)
    except OSError:
        return False
    return True


def read_snapshot(fs: FileSystem) -> tuple[Identity, Version]:
    """The stamp and the version of the snapshot that is `fs`; nothing is changed and no table is opened.

    Raises CorruptionError when it is damaged, UnknownFormat, and SnapshotRefused when this is no snapshot.
    """
    identity = read_identity(fs)
    if identity is None or not identity.snapshot:
        raise SnapshotRefused("this is not a snapshot", path=IDENTITY_PATH)
    number = current_manifest(fs)
    if number is None:
        raise CorruptionError("CURRENT is missing", path="CURRENT")
    return identity, read_manifest(fs, number)


def find_snapshots(fs: FileSystem) -> list[Snapshot]:
    """The snapshots of the store in `fs`, by name; what is left of others is swept as far as the disk lets it.

    One that cannot be read says why: it costs the store nothing but the room it takes. Raises OSError when the disk
    does not sync.
    """
    fs.sync_dir(SNAPSHOTS_DIRECTORY)  # a process may have died between a rename and its sync: what is told of stays
    found = []
    for entry in fs.list(SNAPSHOTS_DIRECTORY):
        path = snapshot_path(entry)
        if entry.endswith(PART):
            with suppress(OSError):
                _clear(fs, path)
        elif _NAME.fullmatch(entry) and fs.is_directory(path):
            found.append(_found(Below(fs, path), entry))
    return found


def _found(inside: Below, name: str) -> Snapshot:
    try:
        identity, version = read_snapshot(inside)
    except (StorageError, OSError) as error:
        return Snapshot(name, problem=str(error))
    return SnapshotPlan(identity, version).snapshot() if identity.snapshot == name else _renamed(identity, name)


def _renamed(identity: Identity, name: str) -> Snapshot:
    return Snapshot(name, problem=f"its stamp says {identity.snapshot}: somebody renamed it")
