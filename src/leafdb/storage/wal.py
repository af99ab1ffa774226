"""The write-ahead log: one segment per memtable generation, written on the log thread, read at recovery and by flushes.

Promises:
- Sequence numbers are contiguous within a segment and from one segment to the next.
- A segment is sealed (synced, closed) before the next one is made, so only the last one can have a torn tail. Damage
  anywhere else, and damage that a later frame proves to have been synced, is a CorruptionError naming file and offset.
- A segment is durable, its header and its name with it, from its first sync on. Nobody waits for that who does not ask
  for a sync: until then the power may take all of it, or its header alone (`wal_format.is_unborn`).
- The writer keeps no promise after an error: its owner must not use it again (a failed sync is final).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from leafdb.errors import CorruptionError
from leafdb.storage import wal_format
from leafdb.storage.wal_format import Frame, SegmentHeader, WalEntry
from leafdb.vfs.base import File, FileSystem, read_file

WAL_DIRECTORY: Final = "wal"
_SUFFIX: Final = ".log"


def segment_path(number: int) -> str:
    return f"{WAL_DIRECTORY}/{number:010d}{_SUFFIX}"


def segment_numbers(fs: FileSystem) -> list[int]:
    """The segments that exist, oldest first."""
    stems = [name.removesuffix(_SUFFIX) for name in fs.list(WAL_DIRECTORY) if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if stem.isdigit())


def segment_header(head: bytes, path: str) -> SegmentHeader:
    """The header that the segment at `path` begins with. CorruptionError when it is damaged, or another segment's."""
    header = wal_format.decode_header(head, path)
    if segment_path(header.number) != path:
        raise CorruptionError(f"{path}: is segment {header.number}", path=path, offset=0)
    return header


class SegmentScan:
    """One segment, read whole, frame by frame.

    `last` allows a torn tail: iteration ends before it, `end` is where the good bytes end and `torn_bytes` how many
    follow. `synced_upto` is what is known from elsewhere (a clean shutdown) to have been synced; damage below is never
    a torn tail.
    """

    def __init__(self, fs: FileSystem, path: str, *, last: bool = False, synced_upto: int = 0) -> None:
        self.path = path
        self.data: bytes = read_file(fs, path)
        self.header: SegmentHeader = segment_header(self.data, path)
        self.next_lsn: int = self.header.first_lsn
        self.end: int = wal_format.HEADER_BYTES
        self._last = last
        self._synced_upto = synced_upto

    @property
    def torn_bytes(self) -> int:
        return len(self.data) - self.end

    def frames(self) -> Iterator[Frame]:
        """Every good frame in order; ends at the end, or at a torn tail where one may be."""
        data, number = self.data, self.header.number
        while self.end < len(data):
            frame = wal_format.decode_frame(data, self.end, number)
            if frame is None:
                self._judge_damage()
                return
            if frame.first_lsn != self.next_lsn:
                raise CorruptionError(
                    f"{self.path}: sequence {frame.first_lsn} at offset {self.end}, where {self.next_lsn} was due",
                    path=self.path,
                    offset=self.end,
                )
            self.next_lsn += frame.writes
            self.end = frame.stop
            yield frame
        if self.end < self._synced_upto:
            self._judge_damage()

    def writes(self) -> Iterator[tuple[int, list[WalEntry], bytes]]:
        """Sequence number, entries and mark (empty: none) of each write."""
        for batch in self.batches():
            yield from batch

    def batches(self) -> Iterator[list[tuple[int, list[WalEntry], bytes]]]:
        """The writes, those of a frame together: a generator's step for each write costs as much as decoding it."""
        for frame in self.frames():
            yield wal_format.decode_writes(self.data, frame, self.path, self.header.version)

    def _judge_damage(self) -> None:
        """Raise unless what starts at `end` can be a write that the power cut short."""
        if not self._last:
            raise CorruptionError(
                f"{self.path}: damaged at offset {self.end}, and later segments exist", path=self.path, offset=self.end
            )
        proof = wal_format.proof_of_sync(self.data, self.end, self.header.number, self.next_lsn)
        if proof is not None or self.end < self._synced_upto:
            raise CorruptionError(
                f"{self.path}: damaged at offset {self.end}, where it had been synced", path=self.path, offset=self.end
            )


def read_segment(fs: FileSystem, path: str, *, last: bool = False) -> Iterator[tuple[int, list[WalEntry]]]:
    """The writes of a segment in order, as (lsn, entries). Only the last segment of a log may have a torn tail."""
    for lsn, entries, _ in SegmentScan(fs, path, last=last).writes():
        yield lsn, entries


class WalWriter:
    """Appends frames to the current segment. Every method may raise OSError, after which the log is lost."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._file: File | None = None
        self.number: int = 0
        self.size: int = 0
        self.synced_upto: int = 0

    def start_segment(self, number: int, first_lsn: int) -> None:
        """Make a segment; its first sync makes it durable, and its name. The one before must be sealed."""
        assert self._file is None, "the previous segment is not sealed"
        assert number > self.number, "segment numbers rise"
        header = wal_format.encode_header(number, first_lsn)
        file = self._fs.create(segment_path(number))
        file.append(header)
        self._file = file
        self.number = number
        self.size = len(header)
        self.synced_upto = 0

    def append(self, first_lsn: int, count: int, parts: list[bytes]) -> None:
        """Write one frame of `count` writes whose encoded entries are `parts`."""
        assert self._file is not None
        frame = wal_format.encode_frame(self.number, first_lsn, count, self.synced_upto, b"".join(parts))
        self._file.append(frame)
        self.size += len(frame)

    def sync(self) -> None:
        """Sync what was appended before; another thread may append meanwhile."""
        assert self._file is not None
        size = self.size  # before the sync: of what is appended during it nothing is known
        if self.synced_upto < size:
            self._file.sync()
            if not self.synced_upto:
                self._fs.sync_dir(WAL_DIRECTORY)
            self.synced_upto = size

    def seal(self) -> None:
        """Sync and close; nothing is appended to this segment any more."""
        self.sync()
        file, self._file = self._file, None
        assert file is not None
        file.close()
