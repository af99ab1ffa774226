"""In which partitions this store has not forgotten yet what a purge horizon lets it forget: nothing is exchanged there.

What one side has let go and the other still has would look like a difference, and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from leafdb.node.exchange_queue import Gate
from leafdb.node.horizons import Horizons
from leafdb.types import BucketId, NodeId


class Unswept:
    """A gate before another one. `wake`: a range has been opened."""

    def __init__(self, horizons: Horizons, behind: Gate, wake: Callable[[], None]) -> None:
        self._horizons = horizons
        self._behind = behind
        self._wake = wake
        self._partitions: set[int] = set()
        self._mask = 0

    def changed(self, partitions: Iterable[int]) -> None:
        """Of these the horizon has changed, or the sweeper has passed it."""
        closed = {at for at in partitions if self._horizons.swept(at) < self._horizons.of(at)}
        opened = self._partitions.intersection(partitions) - closed
        if closed - self._partitions or opened:
            self._partitions = self._partitions - opened | closed
            self._mask = mask_of(self._partitions)
        if opened:
            self._wake()

    def closed(self, peer: NodeId, bucket: BucketId) -> int:
        """The partitions of which nothing may begin with `peer` now."""
        return self._mask | self._behind.closed(peer, bucket)

    def rank(self, bucket: BucketId) -> int:
        """Buckets with a lower one come first."""
        return self._behind.rank(bucket)


def mask_of(partitions: Iterable[int]) -> int:
    """A set of partitions as the bits of one number."""
    found = sorted(partitions)
    if not found:
        return 0
    mask = bytearray(found[-1] // 8 + 1)
    for partition in found:
        mask[partition >> 3] |= 1 << (partition & 7)
    return int.from_bytes(mask, "little")
