"""A process's hands on its disk: every call goes through here until the process dies, and none after.

The disk itself, a `MemoryFileSystem`, outlives the process and knows what was synced. A killed process leaves it as it
is, unsynced bytes included, for the next process to find; a power cut is a kill followed by `power_cut` of the disk. So
death is one rule for both: from the call at which it strikes nothing reaches the disk any more, whatever the dead
process's code goes on to do.

Every call that changes something goes into the trace, with its bytes.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from leafdb.sim.trace import Trace
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFile, MemoryFileSystem, MemoryLock

if TYPE_CHECKING:
    from leafdb.vfs.base import File, FileSystem, Lock

T = TypeVar("T")

WORLD_ERRORS: Final = (errno.EIO, errno.ENOSPC)
RUBBISH_PIECES: Final = 16


class Rubbish:
    """What once lay in log segments and was replaced or unlinked: a disk may show it again where a write was lost."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def add(self, data: bytes) -> None:
        """Remember it; only the last few pieces are kept."""
        if data:
            self._pieces.append(data)
            del self._pieces[:-RUBBISH_PIECES]

    @property
    def pieces(self) -> tuple[bytes, ...]:
        return tuple(self._pieces)


class Hands:
    """A `FileSystem` over `disk` for one process. It dies at the `strike_at`-th changing call from its birth on."""

    def __init__(self, disk: MemoryFileSystem, trace: Trace, rubbish: Rubbish) -> None:
        self.disk = disk
        self.trace = trace
        self.rubbish = rubbish
        self.dead: bool = False
        self.strike_at: int | None = None
        self.calls: int = 0
        self.world_errors: int = 0
        """Calls that failed for the world's reasons: faults and a full disk."""
        self.last: str = ""
        """The last changing call."""
        self.created: Counter[str] = Counter()
        self.unlinked: Counter[str] = Counter()
        """How many files, by directory, or by what their names begin with."""

    def alive(self, path: str) -> None:
        """Every call begins with this."""
        if self.dead:
            raise OSError(errno.ESHUTDOWN, "the process is dead", path)

    def done(self, kind: bytes, path: str, data: bytes = b"") -> None:
        """A changing call took effect."""
        self.trace.feed(kind, path.encode())
        if data:
            self.trace.feed(b"data", data)
        self.calls += 1
        self.last = f"{kind.decode()} {path}"
        if self.calls == self.strike_at:
            self.dead = True

    def failed(self, error: OSError) -> None:
        """A call failed."""
        if error.errno in WORLD_ERRORS:
            self.world_errors += 1
            self.trace.feed(b"failed", f"{error.errno} {error.filename}".encode())

    # -- base.FileSystem

    def create(self, path: str) -> HandsFile:
        self.alive(path)
        file = self._try(lambda: self.disk.create(path))
        self.created[path.partition("/" if "/" in path else "-")[0]] += 1
        self.done(b"create", path)
        return HandsFile(self, file)

    def open_read(self, path: str) -> HandsFile:
        self.alive(path)
        return HandsFile(self, self._try(lambda: self.disk.open_read(path)))

    def open_append(self, path: str) -> HandsFile:
        self.alive(path)
        return HandsFile(self, self._try(lambda: self.disk.open_append(path)))

    def rename(self, source: str, target: str) -> None:
        self.alive(source)
        if target.startswith("wal/"):
            self.rubbish.add(self.peek(target))
        self._try(lambda: self.disk.rename(source, target))
        self.done(b"rename", target)

    def link(self, source: str, target: str) -> None:
        self.alive(target)
        self._try(lambda: self.disk.link(source, target))
        self.done(b"link", target)

    def unlink(self, path: str) -> None:
        self.alive(path)
        if path.startswith("wal/") and self.disk.exists(path):
            self.rubbish.add(self.peek(path))
        self._try(lambda: self.disk.unlink(path))
        self.unlinked[path.partition("/" if "/" in path else "-")[0]] += 1
        self.done(b"unlink", path)

    def discard(self, path: str) -> None:
        self.unlink(path)

    def exists(self, path: str) -> bool:
        self.alive(path)
        return self.disk.exists(path)

    def is_directory(self, path: str) -> bool:
        self.alive(path)
        return self.disk.is_directory(path)

    def list(self, directory: str) -> list[str]:
        self.alive(directory)
        return self.disk.list(directory)

    def mkdir(self, directory: str) -> None:
        self.alive(directory)
        self._try(lambda: self.disk.mkdir(directory))
        self.done(b"mkdir", directory)

    def rmdir(self, directory: str) -> None:
        self.alive(directory)
        self._try(lambda: self.disk.rmdir(directory))
        self.done(b"rmdir", directory)

    def sync_dir(self, directory: str) -> None:
        self.alive(directory)
        self._try(lambda: self.disk.sync_dir(directory))
        self.done(b"sync_dir", directory)

    def lock(self, path: str) -> MemoryLock:
        self.alive(path)
        return self._try(lambda: self.disk.lock(path))

    def free_bytes(self) -> int:
        self.alive("")
        return self.disk.free_bytes()

    def peek(self, path: str) -> bytes:
        """A file's content, whatever faults lie in wait for the process."""
        faults, self.disk.faults = self.disk.faults, []
        content = read_file(self.disk, path)
        self.disk.faults = faults
        return content

    def _try(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except OSError as error:
            self.failed(error)
            raise


class HandsFile:
    """One open file of a process."""

    __slots__ = ("_file", "_hands", "path")

    def __init__(self, hands: Hands, file: MemoryFile) -> None:
        self._hands = hands
        self._file = file
        self.path: str = file.path

    def append(self, data: bytes) -> None:
        hands = self._hands
        hands.alive(self.path)
        try:
            self._file.append(data)
        except OSError as error:
            hands.failed(error)
            raise
        hands.done(b"append", self.path, data)

    def write_at(self, offset: int, data: bytes) -> None:
        hands = self._hands
        hands.alive(self.path)
        try:
            self._file.write_at(offset, data)
        except OSError as error:
            hands.failed(error)
            raise
        hands.done(b"write_at", f"{self.path} {offset}", data)

    def read_at(self, offset: int, size: int) -> bytes:
        self._hands.alive(self.path)
        try:
            return self._file.read_at(offset, size)
        except OSError as error:
            self._hands.failed(error)
            raise

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        self._hands.alive(self.path)
        try:
            return self._file.read_nowait(offset, size)
        except OSError as error:
            self._hands.failed(error)
            raise

    def size(self) -> int:
        self._hands.alive(self.path)
        return self._file.size()

    def sync(self) -> None:
        hands = self._hands
        hands.alive(self.path)
        try:
            self._file.sync()
        except OSError as error:
            hands.failed(error)
            raise
        hands.done(b"sync", self.path)

    def truncate(self, size: int) -> None:
        hands = self._hands
        hands.alive(self.path)
        try:
            self._file.truncate(size)
        except OSError as error:
            hands.failed(error)
            raise
        hands.done(b"truncate", f"{self.path} {size}")

    def close(self) -> None:
        # A process that is dead has no files; what it closes reaches nothing.
        try:
            self._file.close()
        except OSError as error:
            self._hands.failed(error)
            raise


if TYPE_CHECKING:

    def _is_file_system(hands: Hands) -> FileSystem:
        return hands

    def _is_file(file: HandsFile) -> File:
        return file

    def _is_lock(lock: MemoryLock) -> Lock:
        return lock
