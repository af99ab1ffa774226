"""A file in the making goes to the disk in steps."""

from __future__ import annotations

from collections import Counter

from leafdb.limits import TABLE_APPEND_BYTES, TABLE_SYNC_BYTES
from leafdb.storage.file_appender import FileAppender
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem


def test_what_waits_to_be_synced_is_bounded() -> None:
    fs = MemoryFileSystem()
    waiting: list[int] = [0]
    calls: Counter[str] = Counter()

    def on_call(kind: str, path: str) -> None:
        calls[kind] += 1
        if kind == "sync":
            waiting.append(0)
        elif kind == "append":
            waiting[-1] += 1

    appender = FileAppender(fs.create("table"))
    fs.on_call = on_call
    piece = bytes(100_000)
    for _ in range(50):
        appender.append(piece)
    size = appender.finish()
    assert size == len(read_file(fs, "table")) == 50 * len(piece)
    assert calls["sync"] >= size // (TABLE_SYNC_BYTES + TABLE_APPEND_BYTES + len(piece))
    assert max(waiting) * TABLE_APPEND_BYTES <= TABLE_SYNC_BYTES, "each append brings at least so much"
    assert waiting[-1] == 0, "the end is synced, too"
