"""What storage asks of a file system, and nothing more.

Every file of a store is reached through these protocols, so that a test, a simulation and an in-memory store can put
another file system under the very same code. Paths are relative strings with `/`, below a root the file system knows.

What is promised, and what is not (the rules every caller must live by):
- `append` and `write_at` return when the kernel has the bytes: they survive the process, not the machine.
- `File.sync` makes the file's bytes survive the machine, not its name: that takes `sync_dir` of its directory, as do
  `rename`, `link` and `unlink`. `mkdir` takes a `sync_dir` of the parent.
- `rename` within a directory, of a file or of a whole directory, is atomic; nothing else is. Unsynced writes may
  survive in part and in any order.
- A `sync` that failed has lost the data for good; syncing again proves nothing.

World's faults come out as `OSError`, except a lock held by somebody else: `StoreLocked`.
"""

from __future__ import annotations

from typing import Protocol


class File(Protocol):
    """One open file. Reads may come from any thread; writes, syncs and close from one at a time."""

    @property
    def path(self) -> str: ...

    def append(self, data: bytes) -> None:
        """Write all of `data` at the end, looping over short writes."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`; the file grows when needed."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file. May wait for the disk."""

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """Exactly `size` bytes if they can be had without waiting for the disk, else None."""

    def size(self) -> int: ...

    def sync(self) -> None:
        """fdatasync: content and size are durable afterwards; an error is final."""

    def truncate(self, size: int) -> None: ...

    def close(self) -> None:
        """Close; an error here is a write error too."""


class Lock(Protocol):
    """Ownership of a directory for as long as it is held; the kernel gives it up when the process dies."""

    def release(self) -> None: ...


class FileSystem(Protocol):
    """A tree of files below one root."""

    def create(self, path: str) -> File:
        """A new empty file for appending and reading; FileExistsError when the name is taken."""

    def open_read(self, path: str) -> File: ...

    def open_append(self, path: str) -> File:
        """An existing file for appending, writing and reading."""

    def rename(self, source: str, target: str) -> None:
        """Atomic; replaces `target`. A directory takes its content along, and its `target` must not be there."""

    def link(self, source: str, target: str) -> None:
        """A second name for the same file; FileExistsError when it is taken, OSError where there is no such thing."""

    def unlink(self, path: str) -> None: ...

    def discard(self, path: str) -> None:
        """`unlink` for a file that may be large and that nobody has open, on a thread that may wait: its room is given
        back bit by bit."""

    def exists(self, path: str) -> bool: ...

    def is_directory(self, path: str) -> bool:
        """Whether `path` is a directory of this tree; a symbolic link is none."""

    def list(self, directory: str) -> list[str]:
        """Names in `directory` (`""` is the root), sorted; empty when there is no such directory."""

    def mkdir(self, directory: str) -> None:
        """Make the directory and its missing parents; no error when it is there."""

    def rmdir(self, directory: str) -> None:
        """Remove an empty directory."""

    def sync_dir(self, directory: str) -> None:
        """Make the names in `directory` durable (`""` is the root)."""

    def lock(self, path: str) -> Lock:
        """Take the exclusive lock at `path`; StoreLocked when another holds it."""

    def free_bytes(self) -> int:
        """Bytes that may still be written."""


def parent_of(path: str) -> str:
    """The directory of `path`; `""` is the root."""
    return path.rpartition("/")[0]


def read_file(fs: FileSystem, path: str) -> bytes:
    """The whole content of a small file."""
    file = fs.open_read(path)
    try:
        return file.read_at(0, file.size())
    finally:
        file.close()


def replace_file(fs: FileSystem, path: str, content: bytes) -> None:
    """Put `content` under `path`, durably and atomically: after a crash the old content is there, or the new one."""
    temporary = path + ".tmp"
    if fs.exists(temporary):
        fs.unlink(temporary)
    file = fs.create(temporary)
    try:
        file.append(content)
        file.sync()
    finally:
        file.close()
    fs.rename(temporary, path)
    fs.sync_dir(parent_of(path))


def remove_tree(fs: FileSystem, directory: str) -> None:
    """Unlink everything below `directory`, and it. Not atomic, not durable; no error when it is not there."""
    for name in fs.list(directory):
        path = f"{directory}/{name}"
        if fs.is_directory(path):
            remove_tree(fs, path)
        else:
            fs.unlink(path)
    if fs.is_directory(directory):
        fs.rmdir(directory)
