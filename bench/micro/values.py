"""What large values cost a compaction: CPU microseconds an entry, and bytes written for each byte of its inputs.

    python bench/micro/values.py [entries]

The same history twice: with values inline, as all were before there were value files, and apart. Two generations of
keys with values of 4 KiB, random bytes; the second one overwrites so much of the first that the share named is live.
Then a longer history of random overwrites, with all the compactions that come due, and what it wrote in all.

Process CPU time, best of three; the disk is a temporary directory. Bytes written count tables and value files.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from random import Random

from leafdb.limits import VALUE_INLINE_BYTES_MAX
from leafdb.storage.compaction import run_compaction
from leafdb.storage.compaction_picker import PickerLimits, pick
from leafdb.storage.flush import run_flush
from leafdb.storage.jobs import CompactionJob, FlushJob
from leafdb.storage.version import Version, VersionEdit
from leafdb.storage.wal import WalWriter, segment_path
from leafdb.storage.wal_format import ENTRY
from leafdb.types import TreeId
from leafdb.vfs.disk import DiskFileSystem

TREE = TreeId(256)
ROUNDS = 3
BATCH = 16
VALUE_BYTES = 4096
LIMITS = PickerLimits(level0_tables=2)
HISTORY = PickerLimits(level1_bytes=8 << 20, table_bytes=2 << 20)
"""Levels small enough that the history has three of them when values are inline."""


def write_log(fs: DiskFileSystem, number: int, first: int, keys: list[bytes], rng: Random) -> str:
    """A sealed segment with a value for each key."""
    writer = WalWriter(fs)
    writer.start_segment(number, first)
    for start in range(0, len(keys), BATCH):
        parts: list[bytes] = []
        for key in keys[start : start + BATCH]:
            parts += (ENTRY.pack(0, TREE, len(key), VALUE_BYTES), key, rng.randbytes(VALUE_BYTES))
        writer.append(first + start, len(parts) // 3, parts)
    writer.seal()
    return segment_path(number)


def flushed(fs: DiskFileSystem, entries: int, overwritten: float, inline_bytes_max: int) -> tuple[Version, float]:
    """Two tables of level 0, and the CPU microseconds an entry of their flushes."""
    rng = Random(1)
    version = Version().apply(VersionEdit(created_trees=(TREE,), next_file_number=1 << 20))
    keys = [rng.randbytes(8) + b"user%012d" % number for number in range(entries)]
    generations = keys, rng.sample(keys, int(entries * overwritten))
    spent, first = 0.0, 1
    for number, generation in enumerate(generations, 1):
        last = first + len(generation) - 1
        job = FlushJob(
            segments=(write_log(fs, number, first, generation, rng),),
            outputs=((TREE, 2 * number),),
            upto_lsn=last,
            after_lsn=first - 1,
            values=((TREE, 2 * number + 1),),
            inline_bytes_max=inline_bytes_max,
        )
        start = time.process_time()
        result = run_flush(fs, job)
        spent += time.process_time() - start
        version = version.apply(VersionEdit(added=result.added, values=result.values))
        first = last + 1
    return version, spent / first * 1e6


def compacted(fs: DiskFileSystem, job: CompactionJob, first_number: int) -> tuple[float, int, int]:
    """CPU microseconds an entry read, bytes written, and values moved."""
    job = job.with_outputs(tuple(range(first_number, first_number + job.numbers_wanted)))
    start = time.process_time()
    result = run_compaction(fs, job)
    spent = time.process_time() - start
    written = sum(meta.size for meta in result.added) + sum(meta.size for meta in result.values)
    return spent / result.entries_read * 1e6, written, sum(meta.count for meta in result.values)


def history(fs: DiskFileSystem, generations: int, entries: int, inline_bytes_max: int) -> tuple[float, float, float]:
    """Flushes of random keys and all compactions that come due: CPU microseconds an entry that was put, bytes written
    for each byte put (the log not counted), and the share of what lies there in the end that is live."""
    rng = Random(2)
    version = Version().apply(VersionEdit(created_trees=(TREE,), next_file_number=1 << 20))
    keys = [rng.randbytes(8) + b"user%012d" % number for number in range(8 * entries)]
    newest: set[bytes] = set()
    spent, written, number = 0.0, 0, 1
    for generation in range(generations):
        first, put = generation * entries + 1, rng.sample(keys, entries)
        newest.update(put)
        job = FlushJob(
            segments=(write_log(fs, generation + 1, first, put, rng),),
            outputs=((TREE, number),),
            upto_lsn=first + entries - 1,
            after_lsn=first - 1,
            values=((TREE, number + 1),),
            inline_bytes_max=inline_bytes_max,
        )
        start = time.process_time()
        result = run_flush(fs, job)
        written += sum(meta.size for meta in result.added) + sum(meta.size for meta in result.values)
        version = version.apply(VersionEdit(added=result.added, values=result.values))
        number += 2
        while (merge := pick(version, (), HISTORY)) is not None:
            merge = merge.with_outputs(tuple(range(number, number + merge.numbers_wanted)))
            number += merge.numbers_wanted
            done = run_compaction(fs, merge)
            written += sum(meta.size for meta in done.added) + sum(meta.size for meta in done.values)
            before, version = version, version.apply(done.edit())
            files = (*before.tables.values(), *before.values.metas.values())
            for path in [meta.path for meta in files if not version.has_file(meta.file_number)]:
                fs.unlink(path)
        spent += time.process_time() - start
        fs.unlink(job.segments[0])
    there = sum(meta.size for meta in version.tables.values())
    there += sum(meta.size for meta in version.values.metas.values())
    total = generations * entries
    return spent / total * 1e6, written / (total * VALUE_BYTES), len(newest) * VALUE_BYTES / there


def main() -> None:
    entries = int(sys.argv[1]) if len(sys.argv) > 1 else 8_000
    print(f"{entries} entries of {VALUE_BYTES} bytes; a compaction of two tables, an entry read")
    print(f"{'':<12}{'live':>6}{'flush us':>10}{'merge us':>10}{'written/live byte':>19}{'moved':>8}")
    for overwritten in (0.1, 0.35, 0.6):
        for name, bound in (("inline", 1 << 30), ("apart", VALUE_INLINE_BYTES_MAX)):
            with tempfile.TemporaryDirectory() as root:
                fs = DiskFileSystem(root)
                for directory in ("tables", "values", "wal"):
                    fs.mkdir(directory)
                version, flush_us = flushed(fs, entries, overwritten, bound)
                job = pick(version, (), replace(LIMITS, table_bytes=1 << 30))
                assert job is not None
                runs = [compacted(fs, job, 100 * number) for number in range(1, ROUNDS + 1)]
                share = 1 / (1 + overwritten)
                merge_us, written, moved = min(runs)
                per_byte = written / (entries * VALUE_BYTES)
                print(f"{name:<12}{share:>6.2f}{flush_us:>10.1f}{merge_us:>10.1f}{per_byte:>19.3f}{moved:>8}")
    print(f"\n40 flushes of {entries // 8} random keys of {entries}, and the compactions that come due")
    print(f"{'':<12}{'us an entry put':>18}{'written/byte put':>18}{'live in the end':>18}")
    for name, bound in (("inline", 1 << 30), ("apart", VALUE_INLINE_BYTES_MAX)):
        with tempfile.TemporaryDirectory() as root:
            fs = DiskFileSystem(root)
            for directory in ("tables", "values", "wal"):
                fs.mkdir(directory)
            put_us, written_share, live = history(fs, 40, entries // 8, bound)
            print(f"{name:<12}{put_us:>18.1f}{written_share:>18.2f}{live:>18.2f}")


if __name__ == "__main__":
    main()
