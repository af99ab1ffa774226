"""A histogram of latencies that costs two shifts to fill, keeps three digits, and never grows.

Values are microseconds. Up to 255 each has a bucket of its own; from there on every power of two is cut into 128, so a
bucket is never wider than 0.8 % of its value (the idea of HdrHistogram). A percentile is the upper end of the bucket it
falls in: never too good.
"""

from __future__ import annotations

from typing import Final

_EXACT: Final = 256
_HALF_BITS: Final = 7
MICROSECONDS_MAX: Final = (1 << 32) - 1
BUCKETS: Final = ((MICROSECONDS_MAX.bit_length() - 8) << _HALF_BITS) + _EXACT


def bucket_of(microseconds: int) -> int:
    """The bucket a value falls in."""
    if microseconds < _EXACT:
        return microseconds
    shift = microseconds.bit_length() - 8
    return (shift << _HALF_BITS) + (microseconds >> shift)


def upper_end(bucket: int) -> int:
    """The largest value of a bucket."""
    if bucket < _EXACT:
        return bucket
    shift = (bucket >> _HALF_BITS) - 1
    return (((bucket - (shift << _HALF_BITS)) + 1) << shift) - 1


class Histogram:
    """Counts by bucket."""

    __slots__ = ("count", "counts")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * BUCKETS
        self.count = 0

    def add(self, seconds: float) -> None:
        """One more latency."""
        value = int(seconds * 1e6)
        if value >= _EXACT:
            if value > MICROSECONDS_MAX:
                value = MICROSECONDS_MAX
            shift = value.bit_length() - 8
            value = (shift << _HALF_BITS) + (value >> shift)
        elif value < 0:
            value = 0
        self.counts[value] += 1
        self.count += 1

    def percentile_ms(self, percent: float) -> float | None:
        """The latency that `percent` of all are at or below; None when there are none."""
        assert 0 < percent <= 100, f"{percent} is no percentage"
        if not self.count:
            return None
        wanted = max(1, -(-self.count * percent // 100))
        seen = 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen >= wanted:
                return upper_end(bucket) / 1000
        raise AssertionError("the counts do not add up")

    def check(self) -> None:
        """The total is the sum, and buckets meet without gap or overlap."""
        assert self.count == sum(self.counts)
        for bucket in range(1, BUCKETS):
            assert bucket_of(upper_end(bucket - 1) + 1) == bucket
