"""Which keys are asked for most, without counting all of them.

Space-saving (Metwally, Agrawal, El Abbadi 2005) over a sample: KEYS_KEPT counters; a key that has none takes over the
smallest, with its count as the most by which its own can be too high. Every key with more than 1/KEYS_KEPT of the
sample is there. One request in about EVERY is looked at, at uneven distances, so that a client with a rhythm is seen
right; after WINDOW of these all counts are halved, so that what was hot yesterday goes.

Distances come from a generator of its own (Knuth's MMIX), not from the node's: who counts must not change what happens.
"""

from __future__ import annotations

from typing import Final, NamedTuple

KEYS_KEPT: Final = 64
EVERY: Final = 16
WINDOW: Final = 8_192

_STEP: Final = 6_364_136_223_846_793_005
_SHIFT: Final = 1_442_695_040_888_963_407
_MASK: Final = (1 << 64) - 1


class HotKey(NamedTuple):
    """A key that is asked for often: how often among those looked at, and how many of these may be another's."""

    bucket: str
    key: bytes
    reads: int
    writes: int
    error: int

    @property
    def requests(self) -> int:
        """Reads and writes; what was taken over is none of them."""
        return self.reads + self.writes


class _Counter:
    __slots__ = ("error", "reads", "writes")

    def __init__(self, error: int) -> None:
        self.error = error
        self.reads = 0
        self.writes = 0

    @property
    def bound(self) -> int:
        return self.error + self.reads + self.writes


class HotKeys:
    """Of one node."""

    __slots__ = ("_counters", "_left", "_state", "sampled")

    def __init__(self) -> None:
        self._counters: dict[tuple[str, bytes], _Counter] = {}
        self._left = EVERY
        self._state = 1
        self.sampled: int = 0
        """How many of the requests of late were looked at."""

    def saw(self, bucket: str, key: bytes, *, writes: bool) -> None:
        """A request for a key; most cost a subtraction."""
        self._left -= 1
        if self._left > 0:
            return
        self._state = state = (self._state * _STEP + _SHIFT) & _MASK
        self._left = 1 + (state >> 33) % (2 * EVERY - 1)
        self._count(bucket, key, writes)

    def _count(self, bucket: str, key: bytes, writes: bool) -> None:
        counters = self._counters
        counter = counters.get((bucket, key))
        if counter is None:
            error = 0
            if len(counters) >= KEYS_KEPT:
                least = min(counters, key=lambda name: counters[name].bound)
                error = counters.pop(least).bound
            counter = counters[bucket, key] = _Counter(error)
        if writes:
            counter.writes += 1
        else:
            counter.reads += 1
        self.sampled += 1
        if self.sampled >= WINDOW:
            self._halve()

    def _halve(self) -> None:
        self.sampled //= 2
        for counter in self._counters.values():
            counter.reads //= 2
            counter.writes //= 2
            counter.error //= 2

    def top(self, count: int) -> list[HotKey]:
        """So many keys, the one asked for most first."""
        found = [
            HotKey(bucket, key, counter.reads, counter.writes, counter.error)
            for (bucket, key), counter in self._counters.items()
        ]
        return sorted(found, key=lambda hot: (-hot.requests, hot.bucket, hot.key))[:count]

    def check(self) -> None:
        """No more keys than there is room for, and no count beyond what was looked at."""
        assert len(self._counters) <= KEYS_KEPT
        assert 0 <= self.sampled < WINDOW
        assert 1 <= self._left < 2 * EVERY
        assert all(counter.bound >= 0 for counter in self._counters.values())
