"""What is below one directory, as a file system of its own: a store inside another one's directory."""

from __future__ import annotations

from leafdb.vfs.base import File, FileSystem, Lock


class Below:
    """Every path of it is one of `fs` below `directory`; open files and errors name those of `fs`."""

    def __init__(self, fs: FileSystem, directory: str) -> None:
        assert directory, "the root is below itself"
        self._fs = fs
        self.directory = directory

    def _inside(self, path: str) -> str:
        return f"{self.directory}/{path}" if path else self.directory

    def create(self, path: str) -> File:
        return self._fs.create(self._inside(path))

    def open_read(self, path: str) -> File:
        return self._fs.open_read(self._inside(path))

    def open_append(self, path: str) -> File:
        return self._fs.open_append(self._inside(path))

    def rename(self, source: str, target: str) -> None:
        self._fs.rename(self._inside(source), self._inside(target))

    def link(self, source: str, target: str) -> None:
        self._fs.link(self._inside(source), self._inside(target))

    def unlink(self, path: str) -> None:
        self._fs.unlink(self._inside(path))

    def discard(self, path: str) -> None:
        self._fs.discard(self._inside(path))

    def exists(self, path: str) -> bool:
        return self._fs.exists(self._inside(path))

    def is_directory(self, path: str) -> bool:
        return self._fs.is_directory(self._inside(path))

    def list(self, directory: str) -> list[str]:
        return self._fs.list(self._inside(directory))

    def mkdir(self, directory: str) -> None:
        self._fs.mkdir(self._inside(directory))

    def rmdir(self, directory: str) -> None:
        self._fs.rmdir(self._inside(directory))

    def sync_dir(self, directory: str) -> None:
        self._fs.sync_dir(self._inside(directory))

    def lock(self, path: str) -> Lock:
        return self._fs.lock(self._inside(path))

    def free_bytes(self) -> int:
        return self._fs.free_bytes()
