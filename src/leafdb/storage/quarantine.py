"""Damaged files that were replaced, kept under their names for people: `quarantine/`, bounded, the oldest go.

Nothing reads them but a person; nothing depends on their being there. What is kept beyond the bounds, or cannot be
moved, is gone as any file is that left the store.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from leafdb.limits import QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX
from leafdb.vfs.base import FileSystem

QUARANTINE_DIRECTORY: Final = "quarantine"


@dataclass(frozen=True, slots=True)
class Kept:
    """One file there."""

    name: str
    size: int


def listing(fs: FileSystem) -> tuple[Kept, ...]:
    """What is kept, the oldest table first. Raises OSError."""
    found = []
    for name in fs.list(QUARANTINE_DIRECTORY):
        file = fs.open_read(f"{QUARANTINE_DIRECTORY}/{name}")
        try:
            found.append(Kept(name, file.size()))
        finally:
            file.close()
    return tuple(found)


def put_away(
    fs: FileSystem,
    path: str,
    *,
    bytes_max: int = QUARANTINE_BYTES_MAX,
    files_max: int = QUARANTINE_FILES_MAX,
) -> tuple[Kept, ...]:
    """Move the file at `path` there, if it is not missing, and make room for it; answers what is kept then. A file
    system without links keeps nothing. Raises OSError."""
    name = path.rpartition("/")[2]
    if not fs.exists(path):
        return listing(fs)
    if not fs.exists(QUARANTINE_DIRECTORY):
        fs.mkdir(QUARANTINE_DIRECTORY)
        fs.sync_dir("")
    with suppress(OSError):
        fs.link(path, f"{QUARANTINE_DIRECTORY}/{name}")
        fs.sync_dir(QUARANTINE_DIRECTORY)
    fs.unlink(path)
    kept = listing(fs)
    for oldest in sorted(kept, key=lambda each: (each.name == name, each.name)):
        if len(kept) <= files_max and sum(each.size for each in kept) <= bytes_max:
            break
        fs.unlink(f"{QUARANTINE_DIRECTORY}/{oldest.name}")
        kept = tuple(each for each in kept if each is not oldest)
    return kept
