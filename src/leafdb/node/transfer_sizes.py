"""How much is left to move, as far as can be told.

Tokens are hashes, so the keys of a range are spread evenly over it: when half of its tokens are behind us, so are about
half of its bytes. Of ranges that have not begun nothing is known but that they are about as large as others of their
bucket. Until one has begun, nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp
from typing import Final

from leafdb.node.transfer_progress import Slot
from leafdb.ring.token import TOKEN_BITS, TOKEN_BYTES
from leafdb.types import BucketId

RATE_OVER_S: Final = 10.0
"""Speed is told as of about so many seconds."""


class TransferSizes:
    """What was measured since this node started."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._finished: dict[BucketId, tuple[int, float]] = {}
        """How many ranges were pulled to the end, and their bytes."""
        self._slot: Slot | None = None
        self._low, self._stop, self._began, self._at = b"", b"", b"", b""
        self._bytes = 0
        self._recent = 0.0
        self._recent_at = now()

    def begin(self, slot: Slot, start: bytes, span: tuple[bytes, bytes]) -> None:
        """A pull begins, at its beginning or somewhere on the way."""
        self._slot = slot
        self._low, self._stop = span
        self._began = self._at = start
        self._bytes = 0

    def moved(self, size: int, at: bytes) -> None:
        """So many bytes of it came; it is at this storage key now."""
        self._bytes += size
        self._at = at
        self.count(size)

    def count(self, size: int) -> None:
        """So many bytes were moved, by whatever way."""
        self._recent = self._decayed() + size
        self._recent_at = self._now()

    def finish(self) -> None:
        """It came to its end. One that began on the way is measured by the part that was seen."""
        assert self._slot is not None
        seen = 1.0 - _share(self._low, self._stop, self._began)
        ranges, size = self._finished.get(self._slot[0], (0, 0.0))
        if seen > 0.0:
            self._finished[self._slot[0]] = (ranges + 1, size + self._bytes / seen)
        self._slot = None

    def broken_off(self) -> None:
        """It will go on another time."""
        self._slot = None

    def clear(self) -> None:
        """The plan is over."""
        self._finished.clear()
        self._slot = None

    def is_known(self, bucket: BucketId) -> bool:
        """Whether a range of the bucket was measured."""
        return bucket in self._finished

    def left(self, waiting: Mapping[BucketId, int]) -> int | None:
        """Bytes of so many ranges that wait, by bucket, the one under way among them; None: nobody can say."""
        total = 0.0
        for bucket, ranges in waiting.items():
            if not ranges:
                continue
            known, size = self._finished.get(bucket, (0, 0.0))
            whole = size / known if known else None
            if self._slot is not None and self._slot[0] == bucket:
                passed = _share(self._low, self._stop, self._at)
                done = passed - _share(self._low, self._stop, self._began)
                if done > 0.0:
                    here = self._bytes / done
                    whole = here if whole is None else whole
                    total += here * (1.0 - passed)
                    ranges -= 1
            if whole is None:
                if ranges:
                    return None
                continue
            total += whole * ranges
        return round(total)

    def bytes_per_s(self) -> int:
        """How fast it went lately."""
        return round(self._decayed() / RATE_OVER_S)

    def _decayed(self) -> float:
        return self._recent * exp(-(self._now() - self._recent_at) / RATE_OVER_S)


def _share(low: bytes, stop: bytes, at: bytes) -> float:
    """How much of a range lies before a storage key, by tokens."""
    if at >= stop:
        return 1.0
    begin, place = _token(low), _token(at)
    end = _token(stop) if len(stop) == TOKEN_BYTES else 1 << TOKEN_BITS
    return (place - begin) / (end - begin)


def _token(place: bytes) -> int:
    return int.from_bytes(place[:TOKEN_BYTES], "big")
