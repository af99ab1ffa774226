"""The log alone, cut after every call: a synced record is found or its loss is named; only unsynced ones may go."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.errors import CorruptionError
from leafdb.storage.wal import SegmentScan, WalWriter, segment_numbers, segment_path
from leafdb.storage.wal_format import ENTRY
from leafdb.vfs.base import read_file
from leafdb.vfs.memory import MemoryFileSystem


def record(lsn: int) -> list[bytes]:
    value = Random(lsn).randbytes(lsn * 37 % 900)
    return [ENTRY.pack(0, 7, 4, len(value)), b"k%03d" % lsn, value]


class Script:
    """Appends, syncs and rotations; knows what is synced at each moment."""

    def __init__(self, seed: int) -> None:
        self.fs = MemoryFileSystem()
        self.fs.mkdir("wal")
        self.fs.sync_dir("")
        self.writer = WalWriter(self.fs)
        self.rng = Random(seed)
        self.last = 0
        self.synced = 0

    def run(self, steps: int) -> None:
        self.writer.start_segment(1, 1)
        for _ in range(steps):
            step = self.rng.random()
            if step < 0.6:
                count = self.rng.randrange(1, 4)
                parts = [part for lsn in range(self.last + 1, self.last + 1 + count) for part in record(lsn)]
                first = self.last + 1
                self.last += count
                self.writer.append(first, count, parts)
            elif step < 0.9:
                self.writer.sync()
                self.synced = self.last
            else:
                self.writer.seal()
                self.synced = self.last
                self.writer.start_segment(self.writer.number + 1, self.last + 1)


def found_on(fs: MemoryFileSystem) -> int:
    """The last lsn a recovery would find; checks contiguity and content on the way."""
    expected = 1
    numbers = segment_numbers(fs)
    for number in numbers:
        last = number == numbers[-1]
        try:
            scan = SegmentScan(fs, segment_path(number), last=last)
        except CorruptionError:
            assert last, "only a segment that was being made can have a damaged header"
            break
        assert scan.header.first_lsn == expected
        for lsn, entries, _ in scan.writes():
            assert lsn == expected
            _, key, value = entries[0]
            assert [key, value] == record(lsn)[1:]
            expected += 1
    return expected - 1


@pytest.mark.parametrize("seed", range(6))
def test_what_was_synced_is_found_after_a_cut_at_any_call(seed: int) -> None:
    script = Script(seed)
    rng = Random(100 + seed)
    losses = 0

    def cut(kind: str, path: str) -> None:
        nonlocal losses
        for _ in range(3):
            found = found_on(script.fs.power_cut(rng))
            assert script.synced <= found <= script.last, f"seed {seed}: {found} found after {kind} {path}"
            losses += found < script.last

    script.fs.on_call = cut
    script.run(60)
    assert losses > 5, "cuts that lose nothing prove nothing"
    assert found_on(script.fs) == script.last


def test_any_damage_below_what_a_later_record_knows_synced_is_named() -> None:
    fs = MemoryFileSystem()
    fs.mkdir("wal")
    writer = WalWriter(fs)
    writer.start_segment(1, 1)
    starts = []
    for lsn in range(1, 5):
        starts.append(writer.size)
        writer.append(lsn, 1, record(lsn))
        writer.sync()
    last = starts[-1]
    for offset in range(starts[0], len(read_file(fs, segment_path(1)))):
        fs.flip(segment_path(1), offset, 1 << (offset % 8))
        if offset < last:
            with pytest.raises(CorruptionError) as caught:
                found_on_strict(fs)
            assert caught.value.offset == max(start for start in starts if start <= offset)
        else:
            assert found_on_strict(fs) == 3, "nothing proves the last record was synced: it is a torn tail"
        fs.flip(segment_path(1), offset, 1 << (offset % 8))
    assert found_on_strict(fs) == 4


def found_on_strict(fs: MemoryFileSystem) -> int:
    return max((lsn for lsn, _, _ in SegmentScan(fs, segment_path(1), last=True).writes()), default=0)
