"""The real file system: plain descriptors, no buffering of our own, no mmap (a media error would be a SIGBUS).

`read_nowait` uses preadv2(RWF_NOWAIT): bytes that lie in the page cache come at once, anything else is None and is read
in a thread. Where kernel or file system cannot do that, it always answers None.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from leafdb.errors import StoreLocked

DISCARD_STEP_BYTES: Final = 1 << 21
DISCARD_PAUSE_S: Final = 0.01
"""A file system that tells the disk what is free, or has to read where that is, takes 6 to 8 ms for 24 MB, within one
call; whoever writes to the same journal meanwhile waits for it. Each step wakes a thread that wants the interpreter, so
they are few."""

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_sync_data = getattr(os, "fdatasync", os.fsync)


class DiskFile:
    """One descriptor; see `base.File` for the promises."""

    __slots__ = ("_end", "_fd", "_nowait", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path: str = path
        self._fd = fd
        self._end = os.fstat(fd).st_size  # instead of O_APPEND, under which Linux ignores the offset of write_at
        self._nowait = _NOWAIT != 0

    def append(self, data: bytes) -> None:
        self.write_at(self._end, data)

    def write_at(self, offset: int, data: bytes) -> None:
        written = os.pwrite(self._fd, data, offset)
        self._end = max(self._end, offset + written)
        if written == len(data):
            return
        rest = memoryview(data)[written:]
        while rest:
            offset += written
            written = os.pwrite(self._fd, rest, offset)
            self._end = max(self._end, offset + written)
            rest = rest[written:]

    def read_at(self, offset: int, size: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        if len(data) == size:
            return data
        parts = [data]
        got = len(data)
        while data and got < size:
            data = os.pread(self._fd, size - got, offset + got)
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        if not self._nowait:
            return None
        buffer = bytearray(size)
        try:
            got = os.preadv(self._fd, [buffer], offset, _NOWAIT)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._nowait = False  # not supported here; a media error will show itself again in read_at
            return None
        return bytes(buffer) if got == size else None

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def sync(self) -> None:
        _sync_data(self._fd)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)
        self._end = size

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class DiskLock:
    """A held flock; the file names the process that holds it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The descriptor that holds it: a process that inherits it holds the lock as well."""
        return self._fd

    def release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class DiskFileSystem:
    """The files below `root`, which is made when it is missing. `pause` sleeps for so many seconds; without it nobody
    waits for this process, and files go at once."""

    def __init__(self, root: str | os.PathLike[str], *, pause: Callable[[float], None] | None = None) -> None:
        self.root: str = os.path.abspath(os.fspath(root))
        self._pause = pause
        os.makedirs(self.root, exist_ok=True)

    def _absolute(self, path: str) -> str:
        assert not path.startswith("/"), f"{path!r} is not relative"
        assert ".." not in path.split("/"), f"{path!r} leaves the root"
        return os.path.join(self.root, path) if path else self.root

    def create(self, path: str) -> DiskFile:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return DiskFile(path, os.open(self._absolute(path), flags, 0o600))

    def open_read(self, path: str) -> DiskFile:
        return DiskFile(path, os.open(self._absolute(path), os.O_RDONLY | os.O_CLOEXEC))

    def open_append(self, path: str) -> DiskFile:
        return DiskFile(path, os.open(self._absolute(path), os.O_RDWR | os.O_CLOEXEC))

    def rename(self, source: str, target: str) -> None:
        os.replace(self._absolute(source), self._absolute(target))

    def link(self, source: str, target: str) -> None:
        os.link(self._absolute(source), self._absolute(target))

    def unlink(self, path: str) -> None:
        os.unlink(self._absolute(path))

    def discard(self, path: str) -> None:
        if self._pause is None:
            self.unlink(path)
            return
        absolute = self._absolute(path)
        fd = os.open(absolute, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.unlink(absolute)
            stat = os.fstat(fd)
            # With another name, in a snapshot, it stays whole. Without one, nobody can give it a name any more.
            size = 0 if stat.st_nlink else stat.st_size
            with suppress(OSError):  # the name is gone, as was asked; the close gives back what is left
                while size > DISCARD_STEP_BYTES:
                    size -= DISCARD_STEP_BYTES
                    os.ftruncate(fd, size)
                    self._pause(DISCARD_PAUSE_S)
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        return os.path.exists(self._absolute(path))

    def is_directory(self, path: str) -> bool:
        absolute = self._absolute(path)
        return os.path.isdir(absolute) and not os.path.islink(absolute)

    def list(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(self._absolute(directory)))
        except FileNotFoundError:
            return []

    def mkdir(self, directory: str) -> None:
        os.makedirs(self._absolute(directory), mode=0o700, exist_ok=True)

    def rmdir(self, directory: str) -> None:
        os.rmdir(self._absolute(directory))

    def sync_dir(self, directory: str) -> None:
        fd = os.open(self._absolute(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, path: str) -> DiskLock:
        fd = os.open(self._absolute(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise StoreLocked(f"{self._absolute(path)} is held by process {holder}", path=path) from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode("ascii"), 0)
        return DiskLock(fd)

    def free_bytes(self) -> int:
        stat = os.statvfs(self.root)
        return stat.f_bavail * stat.f_frsize
