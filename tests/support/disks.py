"""What is on the disk of a node that has stopped, read by the engine from a copy, past every node and its opinion."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from leafdb.model.record import Record, decode
from leafdb.ring.token import TOKEN_BYTES
from leafdb.storage.settings import EngineConfig
from leafdb.types import BucketId, TreeId
from leafdb.vfs.disk import DiskFileSystem
from support.store import Store

PAGE_KEYS = 1_000


def records_on(data: Path, bucket: BucketId, scratch: Path) -> dict[bytes, Record]:
    """The records of a bucket in a data directory, by encoded key. `scratch` is where the copy is made."""
    shutil.copytree(data, scratch)
    store = Store(DiskFileSystem(scratch), EngineConfig())
    found: dict[bytes, Record] = {}
    start: bytes | None = b""
    while start is not None:
        page = store.page(start, limit=PAGE_KEYS, tree=TreeId(bucket))
        found.update((key[TOKEN_BYTES:], decode(record)) for key, record in page.items)
        start = page.next_key
    store.close()
    shutil.rmtree(scratch)
    return found


def values_of(records: Iterable[Record]) -> list[bytes | None]:
    """What all siblings say."""
    return [sibling.value for record in records for sibling in record.siblings.values()]
