"""What tables cost: CPU microseconds an entry for flush and merge, a read for hit and miss.

    python bench/micro/tables.py [entries]

Process CPU time, best of three, so that a busy machine moves the figures least. Keys are 8 bytes of token and 16 of
key, values 100 random bytes; the disk is a temporary directory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from random import Random

from leafdb.storage.block_cache import BlockCache
from leafdb.storage.compaction import run_compaction
from leafdb.storage.flush import run_flush
from leafdb.storage.jobs import CompactionJob, FlushJob
from leafdb.storage.lsm_tree import find_now
from leafdb.storage.merge_iterator import merge
from leafdb.storage.sstable_reader import TableReader, verify
from leafdb.storage.tree_search import TreeSearch
from leafdb.storage.version import TableMeta, TreeVersion
from leafdb.storage.wal import WalWriter, segment_path
from leafdb.storage.wal_format import ENTRY
from leafdb.types import TreeId
from leafdb.vfs.disk import DiskFileSystem

TREE = TreeId(256)
ROUNDS = 3
BATCH = 50


def cpu_us(work: Callable[[], object], entries: int) -> float:
    """CPU microseconds an entry of one run."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / entries * 1e6


def report(name: str, figures: Iterable[float]) -> None:
    print(f"{name:<46}{min(figures):8.2f} us")


def write_log(fs: DiskFileSystem, number: int, keys: list[bytes], rng: Random) -> tuple[str, int]:
    """A sealed segment with these writes; its path, and the first one's sequence number."""
    writer = WalWriter(fs)
    first = number * 10_000_000
    writer.start_segment(number, first)
    for start in range(0, len(keys), BATCH):
        parts: list[bytes] = []
        for key in keys[start : start + BATCH]:
            parts += (ENTRY.pack(0, TREE, len(key), 100), key, rng.randbytes(100))
        writer.append(first + start, len(parts) // 3, parts)
    writer.seal()
    return segment_path(number), first


def bench_flush(fs: DiskFileSystem, rng: Random, entries: int) -> list[TableMeta]:
    """One table per round; the rounds share half of their keys."""
    shared = [rng.randbytes(8) + b"user%012d" % n for n in range(entries // 2)]
    figures, tables = [], list[TableMeta]()
    for number in range(1, ROUNDS + 1):
        keys = shared + [rng.randbytes(8) + b"user%012d" % n for n in range(entries - len(shared))]
        rng.shuffle(keys)
        path, first = write_log(fs, number, keys, rng)
        job = FlushJob((path,), ((TREE, number),), upto_lsn=first + entries - 1, after_lsn=first - 1)
        figures.append(cpu_us(lambda job=job: tables.extend(run_flush(fs, job).added), entries))  # type: ignore[misc]  # bound now
    report("flush, an entry (log to table, synced)", figures)
    print(f"{'  bytes in the table for an entry of 124':<46}{tables[0].size / entries:8.2f}")
    return tables


def bench_compaction(fs: DiskFileSystem, tables: list[TableMeta]) -> None:
    newest_first = tuple(reversed(tables))
    read = sum(meta.entries for meta in tables)
    for name, inputs in (("half of them overwritten", newest_first), ("one table, nothing to merge", newest_first[:1])):
        figures = []
        for number in range(ROUNDS):
            outputs = tuple(range(100 * len(inputs) + 10 * number, 100 * len(inputs) + 10 * number + 9))
            job = CompactionJob(tree_id=TREE, inputs=inputs, output_level=1, outputs=outputs)
            entries = read if len(inputs) > 1 else inputs[0].entries
            figures.append(cpu_us(lambda job=job: run_compaction(fs, job), entries))  # type: ignore[misc]  # bound now
        report(f"compaction, an entry read ({name})", figures)


def bench_scan(fs: DiskFileSystem, tables: list[TableMeta]) -> None:
    readers = [TableReader.open(fs, meta, BlockCache(0)) for meta in reversed(tables)]
    read = sum(meta.entries for meta in tables)
    report(
        "scan, an entry read (merging all tables)",
        [cpu_us(lambda: sum(1 for _ in merge([reader.iterate(b"", None) for reader in readers])), read)],
    )
    report("verify, an entry", [cpu_us(lambda: verify(fs, tables[0]), tables[0].entries)])


def bench_get(fs: DiskFileSystem, meta: TableMeta, rng: Random) -> None:
    cached = TableReader.open(fs, meta, BlockCache(1 << 30))
    uncached = TableReader.open(fs, meta, BlockCache(0))
    keys = [key for key, _, _ in cached.iterate(b"", None)]
    present = rng.sample(keys, min(10_000, len(keys)))
    absent = [rng.randbytes(8) + b"none%012d" % n for n in range(10_000)]
    for key in keys[::10]:
        cached.get(key)

    def look(reader: TableReader, wanted: list[bytes]) -> None:
        search = TreeSearch(TreeVersion(TREE, [meta]), {meta.file_number: reader})
        for key in wanted:
            find_now(search, {}, key)

    for name, reader, wanted in (
        ("get, hit in a cached block", cached, present),
        ("get, miss", cached, absent),
        ("get, hit in an uncached block (page cache)", uncached, present[:2000]),
    ):
        report(name, [cpu_us(lambda r=reader, w=wanted: look(r, w), len(wanted)) for _ in range(ROUNDS)])  # type: ignore[misc]  # bound now
    passed = sum(cached.may_contain(key) for key in absent) / len(absent)
    print(f"{'  absent keys the filter lets pass':<46}{passed * 100:8.2f} %")
    print(f"{'  memory a cached block takes':<46}{cached._cache.bytes_used / len(cached._cache):8.0f} bytes")
    print(f"{'  memory of an open table, a key':<46}{cached.memory_bytes / meta.entries:8.2f} bytes")


def main() -> None:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    rng = Random(1)
    with tempfile.TemporaryDirectory() as root:
        fs = DiskFileSystem(root)
        fs.mkdir("tables")
        fs.mkdir("wal")
        tables = bench_flush(fs, rng, entries)
        bench_compaction(fs, tables)
        bench_scan(fs, tables)
        bench_get(fs, tables[0], rng)


if __name__ == "__main__":
    main()
