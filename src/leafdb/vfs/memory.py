"""A file system in memory that knows what a power cut would leave of it.

Each file holds its content as the process sees it and, beside it, the content the platter has plus the list of writes
made since the last sync; directories likewise hold names and the list of changes since the last `sync_dir`. A power cut
(`power_cut`) makes a new file system from the durable half and a random selection of the rest: of unsynced writes any
subset, in pieces (a lost piece of a longer file reads as zeros); of unsynced names any subset. That is what POSIX
allows, and more than most disks do.

A failed sync drops its writes from the durable half for good while reads go on showing them, as Linux does.

Deterministic: the same calls and the same rng give the same file system. `on_call` sees every call that changes
something, after it took effect, so that a test can clone at each of them; `Faults` makes chosen calls fail.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from random import Random

from leafdb.errors import StoreLocked
from leafdb.vfs.base import parent_of
from leafdb.vfs.memory_faults import LOSE, MISDIRECT, MISDIRECTED_BY_BYTES, Fault
from leafdb.vfs.memory_node import Directory, MemoryNode

__all__ = ["Fault", "MemoryFile", "MemoryFileSystem", "MemoryLock"]

_ROOM = 1 << 40


class MemoryFile:
    """One open file of a `MemoryFileSystem`; see `base.File` for the promises."""

    __slots__ = ("_closed", "_fs", "_node", "_writable", "path")

    def __init__(self, fs: MemoryFileSystem, path: str, node: MemoryNode, *, writable: bool) -> None:
        self.path: str = path
        self._fs = fs
        self._node = node
        self._writable = writable
        self._closed = False

    def append(self, data: bytes) -> None:
        self._write("append", len(self._node.content), data)

    def write_at(self, offset: int, data: bytes) -> None:
        self._write("write_at", offset, data)

    def _write(self, kind: str, offset: int, data: bytes) -> None:
        assert self._writable, f"{self.path} is open for reading"
        self._usable()
        fs = self._fs
        with fs.guard:
            fault = fs.fault_for(kind, self.path)
            if fault is not None:
                if fault.short:
                    self._node.write(offset, bytes(data[: len(data) // 2]))
                raise fs.failure(fault.error, self.path)
            room = fs.room()
            growth = offset + len(data) - len(self._node.content)
            if growth > room:
                self._node.write(offset, bytes(data[: max(0, len(data) - growth + room)]))
                raise fs.failure(errno.ENOSPC, self.path)
            if not fs.faults:
                self._node.write(offset, bytes(data))
            elif fs.fault_for(LOSE, self.path) is not None:
                self._node.write_astray(offset, bytes(data), None)
            elif fs.fault_for(MISDIRECT, self.path) is not None:
                self._node.write_astray(offset, bytes(data), max(0, offset - MISDIRECTED_BY_BYTES))
            else:
                self._node.write(offset, bytes(data))
        fs.called(kind, self.path)

    def read_at(self, offset: int, size: int) -> bytes:
        self._usable()
        self._fs.check_fault("read_at", self.path)
        return bytes(self._node.content[offset : offset + size])

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        self._usable()
        if self._fs.cold:
            return None
        data = self.read_at(offset, size)
        return data if len(data) == size else None

    def size(self) -> int:
        self._usable()
        return len(self._node.content)

    def sync(self) -> None:
        self._usable()
        fs = self._fs
        with fs.guard:
            fault = fs.fault_for("sync", self.path)
            if fault is not None:
                self._node.sync_failed()
                raise fs.failure(fault.error, self.path)
            self._node.sync()
        fs.called("sync", self.path)

    def truncate(self, size: int) -> None:
        assert self._writable, f"{self.path} is open for reading"
        self._usable()
        self._fs.check_fault("truncate", self.path)
        with self._fs.guard:
            self._node.truncate(size)
        self._fs.called("truncate", self.path)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._fs.open_files -= 1
            self._fs.check_fault("close", self.path)

    def _usable(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self.path)


class MemoryLock:
    """A held lock of a `MemoryFileSystem`."""

    __slots__ = ("_fs", "_path")

    def __init__(self, fs: MemoryFileSystem, path: str) -> None:
        self._fs = fs
        self._path = path

    def release(self) -> None:
        self._fs.locks.discard(self._path)


class MemoryFileSystem:
    """See the module. `quota_bytes` bounds the content of all files; `cold` makes `read_nowait` always answer None."""

    def __init__(self, *, quota_bytes: int | None = None) -> None:
        self.quota_bytes = quota_bytes
        self.cold = False
        self.on_call: Callable[[str, str], None] | None = None
        self.faults: list[Fault] = []
        self.locks: set[str] = set()
        self.open_files: int = 0
        self.guard: threading.RLock = threading.RLock()
        self._directories: dict[str, Directory] = {"": Directory(MemoryNode())}

    # -- what the test asks

    def power_cut(self, rng: Random, *, keep: float | None = None) -> MemoryFileSystem:
        """The file system another process would find after the power went now.

        `keep` is the chance of each unsynced change to survive: 0.0 none, 1.0 all of it and whole, as after a crash of
        the process alone; None draws it from `rng`, which is how rare combinations are met. The present file system
        stays as it is.
        """
        chance = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0)) if keep is None else keep
        clone = MemoryFileSystem(quota_bytes=self.quota_bytes)
        clone.cold = self.cold
        with self.guard:
            nodes: dict[int, MemoryNode] = {}
            clone._directories.clear()
            self._survive("", self._directories[""], clone, rng, chance, nodes)
        return clone

    def _survive(
        self,
        path: str,
        directory: Directory,
        clone: MemoryFileSystem,
        rng: Random,
        chance: float,
        nodes: dict[int, MemoryNode],
    ) -> None:
        """A directory and what is below it, under whichever names are left; one whose name is lost takes its content
        with it."""
        survivor, below = directory.after_cut(rng, chance, nodes)
        clone._directories[path] = survivor
        for name in sorted(below):
            inside = f"{path}/{name}" if path else name
            self._survive(inside, below[name], clone, rng, chance, nodes)
            node, found = survivor.names[name], clone._directories[inside]
            assert node.directory is None, f"a directory is {inside}, and something else as well"
            node.directory, found.node = found, node

    def flip(self, path: str, offset: int, mask: int = 1) -> None:
        """Rot: change bits of a durable byte."""
        self._node(path).flip(offset, mask)

    def flip_random(self, rng: Random, wanted: Callable[[str], bool] = lambda _: True) -> tuple[str, int] | None:
        """Rot somewhere in the files whose paths are `wanted`; (path, offset), None when they hold nothing."""
        paths = [path for path in self.paths() if wanted(path) and self._node(path).durable_bytes]
        if not paths:
            return None
        path = rng.choice(paths)
        offset = rng.randrange(self._node(path).durable_bytes)
        self.flip(path, offset, 1 << rng.randrange(8))
        return path, offset

    def evict(self) -> None:
        """The page cache is needed for something else: from now on reads show what the platter has, and what is still
        to be written. Without faults that changes nothing."""
        with self.guard:
            for path in self.paths():
                self._node(path).evict()

    def copy(self) -> MemoryFileSystem:
        """Another disk with the same content, as this process sees it and as if all of it were synced."""
        return self.power_cut(Random(0), keep=1.0)

    def copy_below(self, directory: str) -> MemoryFileSystem:
        """Another disk that has in its root what is in `directory`, synced; empty directories are left out."""
        copy = MemoryFileSystem()
        for path in self.paths():
            if path.startswith(f"{directory}/"):
                target = path[len(directory) + 1 :]
                copy.mkdir(parent_of(target))
                file = copy.create(target)
                file.append(bytes(self._node(path).content))
                file.sync()
                file.close()
        for synced in copy._directories.values():
            synced.sync()
        return copy

    def paths(self) -> list[str]:
        """All files, sorted."""
        return sorted(
            f"{directory}/{name}" if directory else name
            for directory, held in self._directories.items()
            for name in held.names
            if (f"{directory}/{name}" if directory else name) not in self._directories
        )

    def used_bytes(self) -> int:
        nodes = {id(node): node for directory in self._directories.values() for node in directory.names.values()}
        return sum(len(node.content) for node in nodes.values())

    # -- base.FileSystem

    def create(self, path: str) -> MemoryFile:
        with self.guard:
            self.check_fault("create", path)
            directory = self._directory(parent_of(path), path)
            if self._name_of(path) in directory.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            node = MemoryNode()
            directory.change(self._name_of(path), node)
        self.called("create", path)
        return self._opened(path, node, writable=True)

    def open_read(self, path: str) -> MemoryFile:
        self.check_fault("open", path)
        return self._opened(path, self._node(path), writable=False)

    def open_append(self, path: str) -> MemoryFile:
        self.check_fault("open", path)
        return self._opened(path, self._node(path), writable=True)

    def rename(self, source: str, target: str) -> None:
        assert parent_of(source) == parent_of(target), "renames across directories are not atomic here"
        with self.guard:
            self.check_fault("rename", source)
            moved = self._directories.get(source)
            node = self._node(source) if moved is None else moved.node
            if self.exists(target) and (moved is not None or target in self._directories):
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
            self._directory(parent_of(source), source).rename(self._name_of(source), self._name_of(target), node)
            for path in [path for path in self._directories if path == source or path.startswith(f"{source}/")]:
                self._directories[target + path[len(source) :]] = self._directories.pop(path)
        self.called("rename", target)

    def link(self, source: str, target: str) -> None:
        with self.guard:
            self.check_fault("link", target)
            directory = self._directory(parent_of(target), target)
            if self._name_of(target) in directory.names:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
            directory.change(self._name_of(target), self._node(source))
        self.called("link", target)

    def unlink(self, path: str) -> None:
        with self.guard:
            self.check_fault("unlink", path)
            self._node(path)
            self._directory(parent_of(path), path).change(self._name_of(path), None)
        self.called("unlink", path)

    def discard(self, path: str) -> None:
        self.unlink(path)

    def exists(self, path: str) -> bool:
        return path in self._directories or self._name_of(path) in self._names_or_none(parent_of(path))

    def is_directory(self, path: str) -> bool:
        return path in self._directories

    def list(self, directory: str) -> list[str]:
        return sorted(self._names_or_none(directory))

    def mkdir(self, directory: str) -> None:
        if directory in self._directories:
            return
        parent = parent_of(directory)
        if parent:
            self.mkdir(parent)
        with self.guard:
            node = MemoryNode()
            self._directories[parent].change(self._name_of(directory), node)
            self._directories[directory] = Directory(node)
        self.called("mkdir", directory)

    def rmdir(self, directory: str) -> None:
        with self.guard:
            self.check_fault("rmdir", directory)
            if self._directory(directory, directory).names:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), directory)
            self._directories[parent_of(directory)].change(self._name_of(directory), None)
            del self._directories[directory]
        self.called("rmdir", directory)

    def sync_dir(self, directory: str) -> None:
        with self.guard:
            self.check_fault("sync_dir", directory)
            self._directory(directory, directory).sync()
        self.called("sync_dir", directory)

    def lock(self, path: str) -> MemoryLock:
        if path in self.locks:
            raise StoreLocked(f"{path} is held by another", path=path)
        if not self.exists(path):
            self.create(path).close()
        self.locks.add(path)
        return MemoryLock(self, path)

    def free_bytes(self) -> int:
        return self.room()

    # -- what files ask

    def room(self) -> int:
        return _ROOM if self.quota_bytes is None else max(0, self.quota_bytes - self.used_bytes())

    def fault_for(self, kind: str, path: str) -> Fault | None:
        struck = [fault for fault in self.faults if fault.strikes(kind, path)]
        return struck[0] if struck else None

    def check_fault(self, kind: str, path: str) -> None:
        if self.faults and (fault := self.fault_for(kind, path)) is not None:
            raise self.failure(fault.error, path)

    def failure(self, error: int, path: str) -> OSError:
        return OSError(error, os.strerror(error), path)

    def called(self, kind: str, path: str) -> None:
        if self.on_call is not None:
            self.on_call(kind, path)

    def _opened(self, path: str, node: MemoryNode, *, writable: bool) -> MemoryFile:
        self.open_files += 1
        return MemoryFile(self, path, node, writable=writable)

    def _directory(self, directory: str, path: str) -> Directory:
        found = self._directories.get(directory)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return found

    def _names_or_none(self, directory: str) -> dict[str, MemoryNode]:
        found = self._directories.get(directory)
        return {} if found is None else found.names

    def _node(self, path: str) -> MemoryNode:
        node = self._names_or_none(parent_of(path)).get(self._name_of(path))
        if node is None or path in self._directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    @staticmethod
    def _name_of(path: str) -> str:
        return path.rpartition("/")[2]
