"""What is on the disk of a node that has stopped, read by an engine of the test, past every node and its opinion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from leafdb.model.record import Record, decode
from leafdb.ring.token import TOKEN_BYTES
from leafdb.storage.settings import EngineConfig
from leafdb.types import BucketId, TreeId
from leafdb.vfs.memory import MemoryFileSystem
from support.store import Store

PAGE_KEYS = 1_000


def records_on(data: Path, bucket: BucketId) -> dict[bytes, Record]:
    """The records of a bucket in a data directory, by encoded key; the directory stays as it is."""
    store = Store(copy_of(data), EngineConfig())
    found: dict[bytes, Record] = {}
    start: bytes | None = b""
    while start is not None:
        page = store.page(start, limit=PAGE_KEYS, tree=TreeId(bucket))
        found.update((key[TOKEN_BYTES:], decode(record)) for key, record in page.items)
        start = page.next_key
    store.close()
    return found


def copy_of(directory: Path) -> MemoryFileSystem:
    """All its files, in memory."""
    fs = MemoryFileSystem()
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_dir():
            fs.mkdir(name)
        else:
            file = fs.create(name)
            file.append(path.read_bytes())
            file.close()
    return fs


def values_of(records: Iterable[Record]) -> list[bytes | None]:
    """What all siblings say."""
    return [sibling.value for record in records for sibling in record.siblings.values()]
