"""Since when each range shared with a peer was last proved equal: what the promise of `repair_schedule` is about.

A range is proved by an exchange that came to its end, whichever side began it, as of the moment its claim was taken:
all that was on one of the two by then is on both. The moments are coarse. For each (peer, bucket) there are a few of
them, each with the partitions it is the newest proof of as the bits of one number; the promise is cut into GRAINS. That
is some hundred bytes for 256 partitions, written now and then and not synced: what a crash forgets is proved again by
roots.

A range that two nodes have just come to share counts from the moment this was seen: whoever made them share it has made
the debts to make it equal. Moments are wall time, for they outlive the process; one that lies in the future after a
clock was put right is taken for now.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from leafdb.limits import PARTITIONS_MAX
from leafdb.node.debts import Entry, Masks, encode_mask, owed_key
from leafdb.types import BucketId, NodeId

AGES: Final = 16
"""First byte of the keys in the CHECKPOINTS tree."""
GRAINS: Final = 64
"""So many moments are told apart within the promised age."""
GRAIN_MS_MIN: Final = 1_000
_MOMENT: Final = struct.Struct(">QH")
_KEY: Final = struct.Struct(">BHI")

Slot = tuple[NodeId, BucketId]


class RepairAges:
    """The ages of one node's shared ranges. `write` stores entries, in no hurry."""

    def __init__(self, write: Callable[[Sequence[Entry]], None]) -> None:
        self._write = write
        self._proved: dict[Slot, dict[int, int]] = {}
        """Of each slot: moment -> the partitions last proved then."""
        self._unsaved: set[Slot] = set()
        self.grain_ms: int = GRAIN_MS_MIN
        self.total: int = 0
        """How many ranges are shared with anybody, as `keep` was told."""

    def load(self, key: bytes, value: bytes) -> None:
        """An entry of this kind found in the tree at start. ValueError when it is malformed."""
        moments: dict[int, int] = {}
        try:
            _, node, bucket = _KEY.unpack(key)
            offset = 0
            while offset < len(value):
                moment, size = _MOMENT.unpack_from(value, offset)
                offset += _MOMENT.size
                moments[moment] = int.from_bytes(value[offset : offset + size], "little")
                offset += size
        except struct.error as error:
            raise ValueError(f"malformed ages of ranges: {error}") from None
        seen = 0
        for mask in moments.values():
            if not 0 < mask < 1 << PARTITIONS_MAX or mask & seen or b"".join(_encoded(moments)) != value:
                raise ValueError("malformed ages of ranges")
            seen |= mask
        self._proved[NodeId(node), BucketId(bucket)] = moments

    # -- what happens

    def promise(self, age_ms: int) -> None:
        """How old proofs may get: sets how finely moments are told apart from now on."""
        self.grain_ms = max(GRAIN_MS_MIN, age_ms // GRAINS)

    def proved(self, slot: Slot, partitions: int, began_ms: int) -> None:
        """These partitions were found or made equal by exchanges that began then."""
        moment = began_ms - began_ms % self.grain_ms
        moments = self._proved.setdefault(slot, {})
        newer = 0
        for known, mask in moments.items():
            if known >= moment:
                newer |= mask
        partitions &= ~newer
        if partitions:
            _take_out(moments, partitions)
            moments[moment] = moments.get(moment, 0) | partitions
            self._unsaved.add(slot)

    def keep(self, shared: Masks, now_ms: int) -> None:
        """These are all ranges there are: forget others, count new ones from now, and let nothing lie in the future."""
        self.total = sum(mask.bit_count() for mask in shared.values())
        for slot in self._proved.keys() - shared.keys():
            del self._proved[slot]
            self._unsaved.add(slot)
        for slot, mask in shared.items():
            moments = self._proved.setdefault(slot, {})
            known = 0
            for held in moments.values():
                known |= held
            ahead = 0
            for moment, held in moments.items():
                if moment > now_ms:
                    ahead |= held
            stale, fresh = known & ~mask, (mask & ~known) | (mask & ahead)
            if stale | fresh:
                _take_out(moments, stale | ahead)
                if fresh:
                    moments[now_ms] = moments.get(now_ms, 0) | fresh
                self._unsaved.add(slot)

    def save(self) -> None:
        """Store what has changed since the last time."""
        entries: list[Entry] = []
        for peer, bucket in sorted(self._unsaved):
            moments = self._proved.get((peer, bucket))
            value = b"".join(_encoded(moments)) if moments else None
            entries.append((owed_key(peer, bucket, AGES), value))
        self._unsaved.clear()
        if entries:
            self._write(entries)

    # -- what is asked

    def older_than(self, moment_ms: int) -> dict[Slot, int]:
        """The ranges last proved before a moment."""
        found: dict[Slot, int] = {}
        for slot, moments in self._proved.items():
            mask = 0
            for moment, held in moments.items():
                if moment < moment_ms:
                    mask |= held
            if mask:
                found[slot] = mask
        return found

    def by_age(self) -> list[tuple[int, Slot]]:
        """(moment of its oldest proof, slot), the oldest first."""
        return sorted((min(moments), slot) for slot, moments in self._proved.items() if moments)

    def moments(self, slot: Slot) -> list[tuple[int, int]]:
        """(moment, partitions) of one slot, the oldest proofs first."""
        return sorted(self._proved[slot].items())

    def oldest_ms(self, peer: NodeId | None = None) -> int | None:
        """The moment of the oldest proof, of all or of one peer; None when nothing is shared."""
        moments = (
            moment for slot, found in self._proved.items() if peer is None or slot[0] == peer for moment in found
        )
        return min(moments, default=None)

    def unproved(self, partition: int, since_ms: int) -> list[Slot]:
        """With whom, and in which buckets, a partition was not proved equal by an exchange that began at or after a
        moment. Moments are rounded down, so what is missing here may have been proved just after it."""
        return sorted(slot for slot, mask in self.older_than(since_ms).items() if mask >> partition & 1)

    def check(self) -> None:
        """A range has one newest proof."""
        for moments in self._proved.values():
            seen = 0
            for mask in moments.values():
                assert mask, "an empty moment is forgotten"
                assert not mask & seen, "two newest proofs"
                seen |= mask


def _take_out(moments: dict[int, int], partitions: int) -> None:
    for moment, mask in list(moments.items()):
        if mask & ~partitions:
            moments[moment] = mask & ~partitions
        else:
            del moments[moment]


def _encoded(moments: Mapping[int, int]) -> Iterator[bytes]:
    for moment, mask in sorted(moments.items()):
        bits = encode_mask(mask)
        yield _MOMENT.pack(moment, len(bits))
        yield bits
