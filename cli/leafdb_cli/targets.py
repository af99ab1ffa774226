"""What `kv export` writes: a directory of files, or JSON lines that `kv import` reads again.

files   PATH/KEY holds the value; a key that is no plain relative path, or has siblings, is reported instead
jsonl   one object a line; a conflict is written with all its siblings
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from leafdb.errors import ConfigError
from leafdb_cli.keys import answer_item, key_fields, key_text
from leafdb_cli.render import bytes_fields

if TYPE_CHECKING:
    from leafdb.client.results import Item


class Target(Protocol):
    """Where an export goes."""

    form: str
    path: Path
    resumable: bool

    def open(self, position: Any) -> None:
        """Begin, or go on at what `sync` answered in an earlier run."""

    def write(self, item: Item[Any]) -> str:
        """Take one key; the answer is why it could not be written, empty when it was."""

    def sync(self) -> Any:
        """Everything written so far is kept; the position to go on from."""

    def close(self) -> None:
        """The end."""


def target_of(form: str, path: Path) -> Target:
    """The target at `path`; without a format a name that ends in .jsonl, and -, are JSON lines."""
    form = form or ("jsonl" if str(path) == "-" or path.suffix == ".jsonl" else "files")
    if form not in ("files", "jsonl"):
        raise ConfigError(f"{form!r} is no format: files or jsonl")
    if form == "files":
        if str(path) == "-":
            raise ConfigError("- is standard output: it takes JSON lines (--format jsonl)")
        return FilesTarget(path)
    return JsonLinesTarget(path)


class FilesTarget:
    """A file for each key."""

    form = "files"
    resumable = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, position: Any) -> None:
        """Make the directory. Files already there are replaced, so there is no position but the scan's own."""
        self.path.mkdir(parents=True, exist_ok=True)

    def write(self, item: Item[Any]) -> str:
        """The value, whole or not at all: written beside, then renamed."""
        from leafdb.client.results import Found

        if not isinstance(item.answer, Found):
            return f"{key_text(item.key)} has siblings"
        name = safe_name(item.key)
        if name is None:
            return f"{key_text(item.key)} is no plain relative path"
        path = os.path.join(os.fsencode(self.path), name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path + b".leafdb-new", "wb") as file:
                file.write(item.answer.value)
            os.replace(path + b".leafdb-new", path)
        except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
            with suppress(OSError):
                os.unlink(path + b".leafdb-new")
            return f"{key_text(item.key)}: {error.strerror}"
        return ""

    def sync(self) -> Any:
        """Nothing is held back."""
        return None

    def close(self) -> None:
        """Nothing is open."""


def safe_name(key: bytes | tuple[bytes, bytes]) -> bytes | None:
    """The relative path a key names; None for one that would leave the directory, or is none."""
    if isinstance(key, tuple) or b"\x00" in key or len(key) > 1_024:
        return None
    parts = key.split(b"/")
    if any(part in (b"", b".", b"..") or len(part) > 240 for part in parts):
        return None
    return key


class JsonLinesTarget:
    """One object a line."""

    form = "jsonl"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resumable = str(path) != "-"
        self._file: IO[str] | None = None

    def open(self, position: Any) -> None:
        """Begin the file anew, or cut it at where the checkpoint was taken."""
        if not self.resumable:
            self._file = sys.stdout
            return
        if position is None:
            self._file = self.path.open("w", encoding="utf-8")
            return
        os.truncate(self.path, int(position))
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, item: Item[Any]) -> str:
        """A line."""
        from leafdb.client.results import Found

        assert self._file is not None, "a target is opened before it is written"
        if isinstance(item.answer, Found):
            fields: dict[str, Any] = {**key_fields(item.key), **bytes_fields("value", item.answer.value)}
        else:
            fields = answer_item(item.key, item.answer)
        self._file.write(json.dumps(fields, ensure_ascii=False) + "\n")
        return ""

    def sync(self) -> Any:
        """The file's size."""
        assert self._file is not None, "a target is opened before it is synced"
        self._file.flush()
        if not self.resumable:
            return None
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close what is ours to close."""
        if self._file is not None:
            self._file.flush()
            if self.resumable:
                self._file.close()
