"""What `kv import` reads: a directory of files, or JSON lines. In a fixed order, so that a position means something.

files   key = path below the directory, value = the file's bytes; position = the last path done
jsonl   {"key" | "key_base64", "value" | "value_base64"[, "sort_key" | "sort_key_base64"]}; position = byte offset
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from leafdb.errors import ConfigError, DataError
from leafdb_cli.keys import key_from_fields
from leafdb_cli.render import bytes_from_fields

EncodedKey = bytes | tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key to import. `position` is what a checkpoint says once this and all before it are done."""

    key: EncodedKey
    value: bytes
    position: Any
    done: float
    """How much of the source's `total` is behind it."""


class Source(Protocol):
    """A data set."""

    form: str
    path: Path
    resumable: bool

    def total(self) -> float | None:
        """What `Entry.done` grows to; None when that cannot be known."""

    def entries(self, after: Any) -> Iterator[Entry]:
        """Everything behind the position `after` (None: everything). Raises DataError for what is no entry."""


def source_of(form: str, path: Path) -> Source:
    """The source at `path`; without a format a directory is files and everything else JSON lines."""
    form = form or ("files" if path.is_dir() else "jsonl")
    if form not in ("files", "jsonl"):
        raise ConfigError(f"{form!r} is no format: files or jsonl")
    if str(path) == "-":
        if form == "files":
            raise ConfigError("- is standard input: it holds JSON lines (--format jsonl)")
        return JsonLines(path, resumable=False)
    if not path.exists():
        raise ConfigError(f"{path} does not exist")
    return Files(path) if form == "files" else JsonLines(path)


class Files:
    """The regular files below a directory, by path; or one file, whose name is the key."""

    form = "files"
    resumable = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[bytes] = sorted(file_names(path))

    def total(self) -> float:
        """Their number."""
        return len(self.names)

    def entries(self, after: Any) -> Iterator[Entry]:
        """In the order of their names as bytes."""
        behind = None if after is None else bytes.fromhex(after)
        root = os.fsencode(self.path if self.path.is_dir() else self.path.parent)
        for index, name in enumerate(self.names, 1):
            if behind is None or name > behind:
                with open(os.path.join(root, name), "rb") as file:
                    yield Entry(name, file.read(), name.hex(), index)


def file_names(root: Path) -> Iterator[bytes]:
    """The paths, below `root`, of every regular file; links are not followed."""
    if root.is_file():
        yield os.fsencode(root.name)
        return
    base = os.fsencode(root)
    for folder, _, names in os.walk(base):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, base)


class JsonLines:
    """One JSON object on each line."""

    form = "jsonl"

    def __init__(self, path: Path, *, resumable: bool = True) -> None:
        self.path = path
        self.resumable = resumable

    def total(self) -> float | None:
        """The file's size."""
        return self.path.stat().st_size if self.resumable else None

    def entries(self, after: Any) -> Iterator[Entry]:
        """In the order of the lines."""
        if not self.resumable:
            yield from self._lines(sys.stdin.buffer, 0)
            return
        with self.path.open("rb") as file:
            offset = 0 if after is None else int(after)
            if offset > os.fstat(file.fileno()).st_size:
                raise DataError(f"{self.path} is shorter than what was imported of it: remove the checkpoint")
            file.seek(offset)
            yield from self._lines(file, offset)

    def _lines(self, file: Any, offset: int) -> Iterator[Entry]:
        for line in file:
            start, offset = offset, offset + len(line)
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
                if not isinstance(fields, dict):
                    raise ValueError("not a JSON object")
                if "siblings" in fields:
                    raise ValueError("an exported conflict: resolve it to one value first")
                yield Entry(key_from_fields(fields), bytes_from_fields(fields, "value"), offset, offset)
            except ValueError as error:
                raise DataError(f"{self.path}, at byte {start}: {error}") from None
