"""Whether a backup is what it says it is: every byte of it is read, and what is wrong is named by its file.

In this order: files that are missing, of another size or another SHA-256, or not in the list; then, of each store whose
files are all as listed, whether its manifest names just these files, whether every table holds what its properties
say, and whether it is of the cluster the list names. A list and files that were forged together pass the first part,
and have to pass the second.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from leafdb.backup.listing import LIST_PATH, BackedNode, Listing, decode
from leafdb.backup.store_copy import StoreCopy
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.limits import BACKUP_LIST_BYTES_MAX, MIB
from leafdb.storage.sstable_reader import verify as verify_table
from leafdb.storage.value_files import VALUES_DIRECTORY
from leafdb.storage.value_reader import verify_values
from leafdb.storage.version import TABLES_DIRECTORY
from leafdb.vfs.base import FileSystem
from leafdb.vfs.below import Below

READ_BYTES: Final = 1 * MIB
DIRECTORIES: Final = (TABLES_DIRECTORY, VALUES_DIRECTORY)

Progress = Callable[[int], None]
"""Told how many more bytes were read."""


class Stores(NamedTuple):
    """The stores of one backup."""

    whole: list[StoreCopy]
    """All that each node had."""
    hints: list[StoreCopy]
    """What each had kept for others a moment before."""


class Problem(NamedTuple):
    """Something wrong with a backup."""

    path: str
    """Below the backup's root."""
    what: str


def no_progress(size: int) -> None:
    """Nobody wants to know."""


def read_listing(fs: FileSystem) -> Listing:
    """The list of the backup at the root of `fs`. Raises CorruptionError, UnknownFormat."""
    try:
        file = fs.open_read(LIST_PATH)
    except OSError as error:
        text = f"{LIST_PATH} cannot be opened ({error.strerror}): this is no backup, or one that was not finished"
        raise CorruptionError(text, path=LIST_PATH) from None
    try:
        if file.size() > BACKUP_LIST_BYTES_MAX:
            raise CorruptionError(f"{LIST_PATH} is over {BACKUP_LIST_BYTES_MAX} bytes long", path=LIST_PATH)
        return decode(file.read_at(0, file.size()))
    except OSError as error:
        raise CorruptionError(f"{LIST_PATH} cannot be read: {error.strerror}", path=LIST_PATH) from None
    finally:
        file.close()


def open_stores(fs: FileSystem, listing: Listing) -> Stores:
    """The stores of a backup. Raises CorruptionError or UnknownFormat, whose path is below the backup's root."""
    hints = [StoreCopy.open(Below(fs, node.hints_directory), node.hints_directory) for node in listing.nodes]
    return Stores([StoreCopy.open(Below(fs, node.directory), node.directory) for node in listing.nodes], hints)


def verify(fs: FileSystem, listing: Listing, progress: Progress = no_progress) -> Iterator[Problem]:
    """Everything that is wrong, as it is found; `progress` is told of the size of all files, twice."""
    found = list(_check_files(fs, listing, progress))
    yield from found
    damaged = {problem.path.partition("/")[0] for problem in found}
    for node in listing.nodes:
        for directory in node.directories:
            if directory not in damaged:
                yield from _check_store(Below(fs, directory), directory, listing, node, progress)


def _check_files(root: FileSystem, listing: Listing, progress: Progress) -> Iterator[Problem]:
    listed = {file.path for file in listing.files}
    for file in listing.files:
        what = _file_problem(root, file.path, file.size, file.sha256, progress)
        if what:
            yield Problem(file.path, what)
    directories = {directory for node in listing.nodes for directory in node.directories}
    for name in root.list(""):
        if name == LIST_PATH:
            continue
        if name not in directories:
            yield Problem(name, "not in the list")
            continue
        try:
            for path in _names(root, name):
                if path not in listed:
                    yield Problem(path, "not in the list")
        except OSError as error:
            yield Problem(name, f"cannot be listed: {error.strerror}")


def _names(root: FileSystem, directory: str) -> Iterator[str]:
    for name in root.list(directory):
        if name in DIRECTORIES:
            for inner in root.list(f"{directory}/{name}"):
                yield f"{directory}/{name}/{inner}"
        else:
            yield f"{directory}/{name}"


def _file_problem(root: FileSystem, path: str, size: int, sha256: str, progress: Progress) -> str:
    """What is wrong with a file, in words; empty: it is as listed."""
    try:
        file = root.open_read(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    digest = hashlib.sha256()
    try:
        if file.size() != size:
            return f"{file.size()} bytes long, not {size}"
        for offset in range(0, size, READ_BYTES):
            data = file.read_at(offset, READ_BYTES)
            digest.update(data)
            progress(len(data))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    finally:
        file.close()
    return "" if digest.hexdigest() == sha256 else "its bytes are not those that were backed up (SHA-256 differs)"


def _check_store(
    fs: FileSystem, directory: str, listing: Listing, node: BackedNode, progress: Progress
) -> Iterator[Problem]:
    try:
        store = StoreCopy.open(fs, directory)
    except (CorruptionError, UnknownFormat) as error:
        yield Problem(error.path, error.message)
        return
    prefix = directory + "/"
    listed = {file.path.removeprefix(prefix) for file in listing.files if file.path.startswith(prefix)}
    for path in sorted(store.files() ^ listed):
        yield Problem(prefix + path, "in the list, and not in the manifest" if path in listed else "not in the list")
    if store.identity.cluster_id.hex() != listing.cluster_id or store.identity.node_id != node.number:
        yield Problem(prefix + "IDENTITY", "the store of another node, or of another cluster")
    for meta in store.tables():
        try:
            verify_table(fs, meta)
        except (CorruptionError, UnknownFormat) as error:
            yield Problem(prefix + meta.path, error.message)
        progress(meta.size)
    for values in store.version.values.metas.values():
        try:
            verify_values(fs, values)
        except (CorruptionError, UnknownFormat) as error:
            yield Problem(prefix + values.path, error.message)
        progress(values.size)
    try:
        store.metadata()
        store.marks()
        store.targets()
    except (CorruptionError, UnknownFormat) as error:
        yield Problem(error.path, error.message)
