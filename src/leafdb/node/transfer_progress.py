"""How far the copies of a plan are, kept on the disk, so that a restart goes on where it was.

    plan      its epoch, how many copies it asks for, bytes moved so far
    copies    which are not made yet, by source and bucket: a kind of debts
    pulled    partitions of which one old owner's copy was paged through to its end, by bucket
    cursors   where that paging is, of each partition in which it has begun

Entries of the CHECKPOINTS tree (docs/formats/repair.md). Copies are in the log before anything relies on them. A cursor
is written without a sync, after the records it stands for: a power cut that takes it costs pages, never records, and
one that leaves it has left them. Nothing here proves that a copy is good: exchanges do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from leafdb.node.debts import COPY, Claim, Debts, Entry, Masks, encode_mask
from leafdb.types import BucketId, PartitionId

PLAN: Final = 3
PULLED: Final = 5
CURSOR: Final = 6
KINDS: Final = frozenset((PLAN, COPY, PULLED, CURSOR))
CURSORS_MAX: Final = 256
"""One is in use at a time, others are of pulls that were broken off; beyond this the oldest begins anew."""

_PLAN_KEY: Final = bytes((PLAN,))
_PLAN_VALUE: Final = struct.Struct(">QIQ")
_PULLED_KEY: Final = struct.Struct(">BI")
_CURSOR_KEY: Final = struct.Struct(">BIH")

Write = Callable[[Sequence[Entry]], None]
Slot = tuple[BucketId, PartitionId]


class TransferProgress:
    """See the top of this file. `write` stores entries in order with everything else the node writes, synced soon;
    `note` too, synced with whatever is synced next."""

    def __init__(self, write: Write, note: Write) -> None:
        self._write = write
        self._note = note
        self.plan_epoch: int = 0
        """Epoch of the plan that all this is of; 0 without one."""
        self.total: int = 0
        self.bytes_done: int = 0
        self.copies: Debts = Debts(write, COPY)
        self._pulled: dict[BucketId, int] = {}
        self._cursors: dict[Slot, bytes] = {}

    def load(self, key: bytes, value: bytes) -> None:
        """An entry of one of KINDS found in the tree at start. ValueError when it is malformed."""
        try:
            if key[0] == PLAN:
                self.plan_epoch, self.total, self.bytes_done = _PLAN_VALUE.unpack(value)
            elif key[0] == COPY:
                self.copies.load(key, value)
            elif key[0] == PULLED:
                self._pulled[BucketId(_PULLED_KEY.unpack(key)[1])] = int.from_bytes(value, "little")
            else:
                _, bucket, partition = _CURSOR_KEY.unpack(key)
                self._cursors[BucketId(bucket), PartitionId(partition)] = value
        except struct.error as error:
            raise ValueError(f"a malformed entry about copies: {error}") from None

    def loaded(self) -> None:
        """All entries were given to `load`. What was noted last may be gone, and copies are known to be left."""
        self.total = max(self.total, self.copies.pending)

    # -- a plan

    def begin(self, plan_epoch: int, masks: Masks) -> None:
        """Another plan asks for these copies. That it is known is written last."""
        self.end()
        self.copies.add(masks)
        self.total = self.copies.pending
        self.plan_epoch = plan_epoch
        self._write([(_PLAN_KEY, self._plan_value())])

    def end(self) -> None:
        """There is no plan (any more)."""
        self.copies.keep(lambda peer, bucket: 0)
        gone: list[Entry] = [(_PULLED_KEY.pack(PULLED, bucket), None) for bucket in self._pulled]
        gone += [(_cursor_key(slot), None) for slot in self._cursors]
        if self.plan_epoch:
            gone.append((_PLAN_KEY, None))
        self._pulled.clear()
        self._cursors.clear()
        self.plan_epoch = self.total = self.bytes_done = 0
        if gone:
            self._write(gone)

    def forget_bucket(self, bucket: BucketId) -> None:
        """The bucket was dropped."""
        gone: list[Entry] = [(_cursor_key(slot), None) for slot in self._cursors if slot[0] == bucket]
        self._cursors = {slot: start for slot, start in self._cursors.items() if slot[0] != bucket}
        if self._pulled.pop(bucket, 0):
            gone.append((_PULLED_KEY.pack(PULLED, bucket), None))
        if gone:
            self._write(gone)

    def buckets(self) -> set[BucketId]:
        """Those of which anything was pulled."""
        return {*self._pulled, *(bucket for bucket, _ in self._cursors)}

    # -- copies

    def owe(self, masks: Masks) -> None:
        """These copies are to be made, whether they have been made already or not."""
        before = self.copies.pending
        self.copies.add(masks)
        if self.copies.pending > before:
            self.total += self.copies.pending - before
            self._note([(_PLAN_KEY, self._plan_value())])

    def made(self, claim: Claim) -> None:
        """A copy was made, if it was asked for."""
        self.copies.clear(claim)

    # -- paging through one old owner's copy

    def pulled(self, bucket: BucketId) -> int:
        """The partitions that need not be pulled (any more)."""
        return self._pulled.get(bucket, 0)

    def cursor(self, slot: Slot) -> bytes | None:
        """Where to go on; None when it has not begun."""
        return self._cursors.get(slot)

    def moved(self, size: int) -> None:
        """So many bytes of records came, or went."""
        self.bytes_done += size

    def advance(self, slot: Slot, start: bytes) -> None:
        """All before this storage key is merged here."""
        entries: list[Entry] = []
        self._cursors.pop(slot, None)
        if len(self._cursors) >= CURSORS_MAX:
            oldest = next(iter(self._cursors))
            del self._cursors[oldest]
            entries.append((_cursor_key(oldest), None))
        self._cursors[slot] = start
        entries += [(_cursor_key(slot), start), (_PLAN_KEY, self._plan_value())]
        self._note(entries)

    def finish(self, slot: Slot) -> None:
        """The partition was paged through to its end, or need not be."""
        bucket, partition = slot
        mask = self._pulled[bucket] = self.pulled(bucket) | 1 << partition
        entries: list[Entry] = [
            (_PULLED_KEY.pack(PULLED, bucket), encode_mask(mask)),
            (_PLAN_KEY, self._plan_value()),
        ]
        if self._cursors.pop(slot, None) is not None:
            entries.append((_cursor_key(slot), None))
        self._note(entries)

    def _plan_value(self) -> bytes:
        return _PLAN_VALUE.pack(self.plan_epoch, self.total, self.bytes_done)

    def check(self) -> None:
        """Nothing is kept without a plan; a partition that was pulled has no cursor."""
        self.copies.check()
        assert len(self._cursors) <= CURSORS_MAX
        assert self.plan_epoch or not (self.copies.pending or self._pulled or self._cursors)
        assert not any(self.pulled(bucket) >> partition & 1 for bucket, partition in self._cursors)
        assert self.copies.pending <= self.total


def _cursor_key(slot: Slot) -> bytes:
    return _CURSOR_KEY.pack(CURSOR, *slot)
