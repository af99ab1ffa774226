"""The tables and value files in use: the published version, its readers, and the numbers and names of files.

An edit goes through three states. Submitted: it is applied to `head`, on which everything that plans (picker, later
edits) works, so that edits fit each other in the order in which the manifest gets them. Durable: the manifest has it.
Published: `version`, which reads use, has it. Edits become durable and published in the order of submission.

A file is unlinked when a published version no longer names it and nobody holds a pin on an older version that does.
Readers are opened before the edit that names them is submitted, so a published table can always be read. One that was
salvaged goes to quarantine instead. Of what was lost with it `on_lost` is told right before reads see the version that
has the hole, and the version keeps it until `lost_noted`. Readers of value files open themselves; they come and go with
the version.

Everything here runs on the loop; files are opened, closed and unlinked on the read executor, the manifest is written on
the log executor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

from leafdb.storage.block_cache import BlockCache
from leafdb.storage.executor import Callback, Executor
from leafdb.storage.lost_ranges import LostRange
from leafdb.storage.manifest import ManifestWriter
from leafdb.storage.quarantine import Kept, put_away
from leafdb.storage.sstable_reader import TableReader, no_rest
from leafdb.storage.tree_search import TreeSearch, searches_of
from leafdb.storage.value_files import ValueMeta, value_path
from leafdb.storage.value_reader import OpenFiles, ValueReader
from leafdb.storage.version import TableMeta, Version, VersionEdit, table_path
from leafdb.types import TreeId
from leafdb.vfs.base import FileSystem

Removal = tuple[list[str], Sequence[TableReader | ValueReader]]
"""Paths, and readers that are to be closed before."""


class Pin:
    """A hold on the version of one moment: its files stay until `Tables.release`."""

    __slots__ = ("searches", "version")

    def __init__(self, version: Version, searches: Mapping[TreeId, TreeSearch]) -> None:
        self.version: Version = version
        self.searches: Mapping[TreeId, TreeSearch] = searches


class Tables:
    """See the module."""

    def __init__(
        self,
        fs: FileSystem,
        version: Version,
        readers: dict[int, TableReader],
        values: dict[int, ValueReader],
        open_files: OpenFiles,
        *,
        cache: BlockCache,
        manifest: ManifestWriter,
        log_executor: Executor,
        read_executor: Executor,
        next_number: int,
        number_lease: int,
        on_failure: Callable[[BaseException, str], None],
        on_published: Callable[[], None],
        on_lost: Callable[[tuple[LostRange, ...]], None],
        quarantined: tuple[Kept, ...] = (),
    ) -> None:
        self._on_lost = on_lost
        self._damaged: set[int] = set()
        """Tables that are to be put away when they leave."""
        self.quarantined: tuple[Kept, ...] = quarantined
        self._fs = fs
        self._cache = cache
        self._manifest = manifest
        self._log_executor = log_executor
        self._read_executor = read_executor
        self._on_failure = on_failure
        self._on_published = on_published
        self._pins: set[Pin] = set()
        self._leaving: dict[int, str] = {}
        """Files that left the version: number and path."""
        self._removals: deque[Removal] = deque()
        """What is to be removed; the first of them is under way."""
        self._number_lease = number_lease
        self._next_number = next_number
        self._closed = False
        self.version: Version = version
        self.head: Version = version
        self.readers = readers
        self.searches: Mapping[TreeId, TreeSearch] = searches_of(version, readers, {})
        """Those of `version`."""
        self.values = values
        self._open_files = open_files
        self.unlinks_failed: int = 0

    # -- edits

    def submit(self, edit: VersionEdit, published: Callable[[], None] | None = None) -> None:
        """Make `edit` durable, then publish it and call back. On failure the store fails and nothing is called."""
        self.head = self.head.apply(edit)
        self._log_executor.submit(
            partial(self._manifest.append, edit, self.head), partial(self._durable, edit, published)
        )

    def _durable(self, edit: VersionEdit, published: Callable[[], None] | None, result: BaseException | None) -> None:
        if self._closed:
            return
        if result is not None:
            self._on_failure(result, "the manifest cannot be written")
            return
        if edit.lost:
            self._on_lost(edit.lost)
        before, self.version = self.version, self.version.apply(edit)
        self.searches = searches_of(self.version, self.readers, self.searches)
        for number, meta in self.version.values.metas.items():
            if number not in self.values:
                self.values[number] = ValueReader(self._fs, meta, self._open_files)
        files: tuple[TableMeta | ValueMeta, ...] = (*before.tables.values(), *before.values.metas.values())
        self._leaving |= {meta.file_number: meta.path for meta in files if not self.version.has_file(meta.file_number)}
        self._on_published()
        if published is not None:
            published()
        self._sweep()

    def lost_noted(self, numbers: Iterable[int], published: Callable[[], None]) -> None:
        """Whoever follows the store has noted what was lost of these tables: the manifest need not name it any more."""
        noted = sorted({lost.file_number for lost in self.head.lost}.intersection(numbers))
        if noted and not self._closed:
            self.submit(VersionEdit(lost_noted=tuple(noted)), published)

    def quarantine(self, number: int) -> None:
        """This table, which is about to leave the version, is to be kept for people."""
        self._damaged.add(number)

    # -- file numbers

    def allot(self, count: int, ready: Callable[[], None]) -> tuple[int, ...] | None:
        """So many file numbers that no file ever had; None: a lease must become durable first, then `ready`."""
        if self._next_number + count <= self.version.next_file_number:
            first = self._next_number
            self._next_number += count
            return tuple(range(first, first + count))
        ceiling = self._next_number + count + self._number_lease
        self.submit(VersionEdit(next_file_number=max(ceiling, self.head.next_file_number)), ready)
        return None

    # -- readers

    def open_soon(self, metas: Iterable[TableMeta], done: Callable[[list[TableReader] | BaseException], None]) -> None:
        rest = self._read_executor.rest
        self._read_executor.submit(partial(open_readers, self._fs, list(metas), self._cache, rest), done)

    def adopt(self, readers: Iterable[TableReader]) -> None:
        """Take readers over; to be called before the edit that adds their tables is submitted."""
        for reader in readers:
            number = reader.meta.file_number
            if number in self.readers:  # a table that only changed its level keeps its reader
                reader.close()
            else:
                self.readers[number] = reader

    def discard(self, numbers: Iterable[int], readers: Iterable[TableReader] = ()) -> None:
        """Get rid of files that no version ever named, and of readers opened on them."""
        self._remove_soon([path for number in numbers for path in _paths(number)], list(readers))

    # -- lifetime

    def pin(self) -> Pin:
        pin = Pin(self.version, self.searches)
        self._pins.add(pin)
        return pin

    def release(self, pin: Pin) -> None:
        self._pins.remove(pin)
        if self._leaving:
            self._sweep()

    def _sweep(self) -> None:
        """Remove what left the version and is not held."""
        if not self._leaving or self._closed:
            return
        held = {number for pin in self._pins for number in self._leaving if pin.version.has_file(number)}
        free = sorted(self._leaving.keys() - held)
        tables = [self.readers.pop(number) for number in free if number in self.readers]
        values = [self.values.pop(number) for number in free if number in self.values]
        paths = {number: self._leaving.pop(number) for number in free}
        kept = [paths.pop(number) for number in free if number in self._damaged]
        self._damaged.difference_update(free)
        self._remove_soon(list(paths.values()), [*tables, *values])
        for path in kept:
            self._read_executor.submit(partial(put_away, self._fs, path), self._put_away)

    def _put_away(self, result: tuple[Kept, ...] | BaseException) -> None:
        if isinstance(result, BaseException):
            self._not_removed(result)  # it is missing; or it stays, and the next open tries again or sweeps it
        else:
            self.quarantined = result

    def remove_soon(self, paths: list[str]) -> None:
        self._remove_soon(paths, [])

    def _remove_soon(self, paths: list[str], readers: Sequence[TableReader | ValueReader]) -> None:
        if (paths or readers) and not self._closed:
            self._removals.append((paths, readers))
            if len(self._removals) == 1:
                self._remove_next()

    def _remove_next(self) -> None:
        """One at a time: removing takes its time, and reads that wait for the disk want these threads, too."""
        paths, readers = self._removals[0]
        self._read_executor.submit(partial(_remove, self._fs, paths, readers), self._removed)

    def _removed(self, result: int | BaseException) -> None:
        self._not_removed(result)
        self._removals.popleft()
        if self._removals and not self._closed:
            self._remove_next()

    def _not_removed(self, result: int | BaseException) -> None:
        # What stays behind is an orphan; the next open sweeps it.
        self.unlinks_failed += result if isinstance(result, int) else 1

    def close(self) -> None:
        """No read may be under way. What was to be removed stays for the next open's sweep.

        An error of a close is nobody's loss: what was written had been synced before."""
        self._closed = True
        files: list[TableReader | ValueReader | ManifestWriter]
        left = (reader for _, readers in islice(self._removals, 1, None) for reader in readers)
        files = [*self.readers.values(), *self.values.values(), *left, self._manifest]
        for each in files:
            with suppress(OSError):
                each.close()
        self.readers.clear()
        self.values.clear()

    def check(self) -> None:
        self.version.check()
        self.head.check()
        assert self.searches.keys() == self.version.trees.keys(), "a tree without a search"
        for tree_id, search in self.searches.items():
            assert search.is_of(self.version.trees[tree_id]), "the search of another version"
            search.check()
        assert set(self.version.tables) <= set(self.readers), "a published table without a reader"
        assert set(self.version.values.metas) <= set(self.values), "a published value file without a reader"
        assert not any(map(self.version.has_file, self._leaving)), "a file in use is to be removed"
        assert self._next_number <= self.head.next_file_number


def open_readers(
    fs: FileSystem, metas: Iterable[TableMeta], cache: BlockCache, rest: Callback = no_rest
) -> list[TableReader]:
    """All of them, or none and the error."""
    readers: list[TableReader] = []
    try:
        for meta in metas:
            readers.append(TableReader.open(fs, meta, cache, rest))
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    return readers


def _paths(number: int) -> tuple[str, str]:
    """Where the file of that number lies, whatever it is."""
    return table_path(number), value_path(number)


def _remove(fs: FileSystem, paths: list[str], readers: Sequence[TableReader | ValueReader]) -> int:
    """Close and unlink; answers how many files could not be removed. A missing one is no failure."""
    failed = 0
    for reader in readers:
        reader.close()
    for path in paths:
        try:
            fs.discard(path)
        except FileNotFoundError:
            continue
        except OSError:
            failed += 1
    return failed
