"""When which file is read again, so that each is once in an interval: pure; `node/scrubber` drives it.

A pass goes through the tables and value files there are when it begins, by their numbers, which they share. What is
made meanwhile was written just now and has the next pass; what leaves meanwhile was read by what replaced it, or is
dead. A value file stays while tables that refer to it come and go, so it has a turn of its own. Each file is due when
as much of the interval has passed as of the pass's bytes lie before it, so the cost is even, whatever the sizes. How
far a pass has come is told by a few numbers, which a restart goes on from; after a long absence files are due at once,
one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from leafdb.codec import cbor
from leafdb.codec.fields import as_map, int_field
from leafdb.limits import SCRUB_BYTES_PER_S
from leafdb.storage.value_files import ValueMeta
from leafdb.storage.version import TableMeta

Scrubbed = TableMeta | ValueMeta
"""What is read again."""

SHARE: Final = 0.9
"""Of the interval: the rest is for what takes longer than it should."""


@dataclass(frozen=True, slots=True)
class ScrubPass:
    """One pass, as far as it is."""

    begun_ms: int
    after: int
    """Files up to this number have had their turn."""
    upto: int
    """Files with higher numbers have the next pass."""
    bytes_read: int = 0

    def encode(self) -> bytes:
        """As it is kept."""
        fields = {"begun_ms": self.begun_ms, "after": self.after, "upto": self.upto, "bytes_read": self.bytes_read}
        return cbor.dumps(fields)

    @classmethod
    def decode(cls, stored: bytes) -> ScrubPass:
        """The reverse. Raises ValueError."""
        fields = as_map(cbor.loads(stored), "a scrub")
        return cls(*(int_field(fields, name) for name in ("begun_ms", "after", "upto", "bytes_read")))


@dataclass(frozen=True, slots=True)
class Turn:
    """A file, and the time at which it is to be read."""

    file: Scrubbed
    due_ms: int


def begin(files: Iterable[int], now_ms: int) -> ScrubPass:
    """A pass through the files of these numbers."""
    return ScrubPass(now_ms, after=0, upto=max(files, default=0))


def next_turn(scrub: ScrubPass, files: Mapping[int, Scrubbed], interval_ms: int) -> Turn | None:
    """What is read next; None: the pass is over."""
    left = sorted(number for number in files if scrub.after < number <= scrub.upto)
    if not left:
        return None
    bytes_left = sum(files[number].size for number in left)
    share = scrub.bytes_read / (scrub.bytes_read + bytes_left)
    return Turn(files[left[0]], scrub.begun_ms + int(share * SHARE * interval_ms))


def over_ms(scrub: ScrubPass, interval_ms: int) -> int:
    """When the pass after this one begins, once it is over."""
    return scrub.begun_ms + interval_ms


def had_its_turn(scrub: ScrubPass, file: Scrubbed) -> ScrubPass:
    """The pass when that file was read."""
    return replace(scrub, after=file.file_number, bytes_read=scrub.bytes_read + file.size)


def bytes_per_s(files: Iterable[Scrubbed], interval_ms: int) -> int:
    """How fast a file is read: slowly, but fast enough for all of them."""
    needed = sum(file.size for file in files) * 1_000 // max(1, int(SHARE * interval_ms))
    return max(SCRUB_BYTES_PER_S, 2 * needed)
