"""Which ranges still owe a peer an exchange. Durable before anything relies on it, and kept until it was done.

A debt is (peer, bucket, partition): something may be on one of the two nodes and not on the other. Each (peer, bucket)
keeps its partitions as the bits of one number; the CHECKPOINTS tree holds a copy that never lacks a bit that is set
here, and may hold some that are not any more: after a restart those cost a comparison of roots
(docs/formats/checkpoints.md).

A debt is settled by an exchange that began to read after the debt was made. Hence claims: whoever is about to build a
tree takes one for each peer it is for; a debt made again, a session lost, or a change of the range's owners spoils it,
and a spoilt claim settles nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from leafdb.limits import PARTITIONS_MAX
from leafdb.types import BucketId, NodeId, PartitionId

Masks = Mapping[tuple[NodeId, BucketId], int]
"""Partitions by peer and bucket: bit p stands for partition p."""
Entry = tuple[bytes, bytes | None]

OWED: Final = 1
BOOT: Final = 2
COPY: Final = 4
"""Of the debts those that a change of the ring waits for (`transfer_progress`)."""
_KEY: Final = struct.Struct(">BHI")
_BOOT_KEY: Final = struct.Struct(">BH")
CLEARED_LAZILY_MAX: Final = 64
"""So many bits may be behind in the tree before it is written again."""


def owed_key(peer: NodeId, bucket: BucketId, kind: int = OWED) -> bytes:
    """Where the debts to a peer in one bucket are kept."""
    return _KEY.pack(kind, peer, bucket)


def boot_key(peer: NodeId) -> bytes:
    """Where the newest start of a peer that had a session with us is kept."""
    return _BOOT_KEY.pack(BOOT, peer)


def encode_mask(mask: int) -> bytes:
    """A mask as bytes: bit 0 of byte 0 is partition 0."""
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def bits(mask: int) -> list[int]:
    """The partitions of a mask, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


class Claim:
    """Somebody is exchanging this range with this peer. `number` counts the claims of this process: a greater one was
    taken later."""

    __slots__ = ("began_ms", "bucket", "number", "partition", "peer", "spoilt")

    def __init__(
        self, peer: NodeId, bucket: BucketId, partition: PartitionId, began_ms: int = 0, number: int = 0
    ) -> None:
        self.peer: NodeId = peer
        self.bucket: BucketId = bucket
        self.partition: PartitionId = partition
        self.began_ms: int = began_ms
        self.number: int = number
        self.spoilt: bool = False


class Debts:
    """All debts of this node. `write` stores entries (None: remove) in order with everything else the node writes;
    `kind` is the first byte of their keys, `now_ms` the moment that a claim begins at."""

    def __init__(
        self, write: Callable[[Sequence[Entry]], None], kind: int = OWED, now_ms: Callable[[], int] = lambda: 0
    ) -> None:
        self._write = write
        self._now_ms = now_ms
        self._kind = kind
        self._owed: dict[NodeId, dict[BucketId, int]] = {}
        self._stored: dict[tuple[NodeId, BucketId], int] = {}
        self._claims: set[Claim] = set()
        self.claims: int = 0
        """How many were ever taken."""
        self.version: int = 0
        """Changes whenever there may be debts that were not there before."""

    def load(self, key: bytes, value: bytes) -> None:
        """An entry of this kind found in the tree at start. ValueError when it is malformed."""
        try:
            _, node, bucket = _KEY.unpack(key)
        except struct.error as error:
            raise ValueError(f"a malformed key of debts: {error}") from None
        mask = int.from_bytes(value, "little")
        if not 0 < mask < 1 << PARTITIONS_MAX:
            raise ValueError("a malformed set of debts")
        self._stored[NodeId(node), BucketId(bucket)] = mask
        self._owed.setdefault(NodeId(node), {})[BucketId(bucket)] = mask

    # -- what is owed

    @property
    def pending(self) -> int:
        """How many debts there are."""
        return sum(mask.bit_count() for owed in self._owed.values() for mask in owed.values())

    def peers(self) -> list[NodeId]:
        """To whom anything is owed."""
        return sorted(self._owed)

    def buckets(self, peer: NodeId) -> Mapping[BucketId, int]:
        """What is owed to a peer, by bucket."""
        return self._owed.get(peer, {})

    def mask(self, peer: NodeId, bucket: BucketId) -> int:
        """What is owed to a peer in one bucket."""
        return self._owed.get(peer, {}).get(bucket, 0)

    def all(self) -> dict[tuple[NodeId, BucketId], int]:
        """Everything."""
        return {(peer, bucket): mask for peer, owed in self._owed.items() for bucket, mask in owed.items()}

    def owes(self, claim: Claim) -> bool:
        """Whether what was claimed is still owed."""
        return bool(self.mask(claim.peer, claim.bucket) >> claim.partition & 1)

    def partition_owed(self, partition: int) -> bool:
        """Whether anybody is owed anything in this partition."""
        return any(mask >> partition & 1 for owed in self._owed.values() for mask in owed.values())

    # -- debts come and go

    def add(self, masks: Masks) -> None:
        """These ranges owe these peers an exchange that begins after now."""
        self.version += 1
        entries: list[Entry] = []
        for (peer, bucket), mask in masks.items():
            if not mask:
                continue
            owed = self._owed.setdefault(peer, {})
            owed[bucket] = owed.get(bucket, 0) | mask
            stored = self._stored.get((peer, bucket), 0)
            if mask & ~stored:
                self._stored[peer, bucket] = owed[bucket]
                entries.append((owed_key(peer, bucket, self._kind), encode_mask(owed[bucket])))
        for claim in self._claims:
            if masks.get((claim.peer, claim.bucket), 0) >> claim.partition & 1:
                claim.spoilt = True
        if entries:
            self._write(entries)

    def claim(self, peer: NodeId, bucket: BucketId, partition: PartitionId) -> Claim:
        """Begin an exchange: before its tree is built. Give it back with `release`."""
        self.claims += 1
        claim = Claim(peer, bucket, partition, self._now_ms(), self.claims)
        self._claims.add(claim)
        return claim

    def claimed(self, peer: NodeId, bucket: BucketId) -> int:
        """The partitions somebody is exchanging with this peer right now."""
        mask = 0
        for claim in self._claims:
            if (claim.peer, claim.bucket) == (peer, bucket):
                mask |= 1 << claim.partition
        return mask

    def under_way(self, bucket: BucketId) -> int:
        """The partitions that are being exchanged with anybody right now."""
        mask = 0
        for claim in self._claims:
            if claim.bucket == bucket:
                mask |= 1 << claim.partition
        return mask

    def spoil(self, peer: NodeId) -> None:
        """The session with a peer is lost: what was read before counts for nothing with the next one."""
        for claim in self._claims:
            if claim.peer == peer:
                claim.spoilt = True

    def spoil_partitions(self, partitions: int) -> None:
        """These change their owners: what was read under the ring before counts for nothing under the next."""
        for claim in self._claims:
            if partitions >> claim.partition & 1:
                claim.spoilt = True

    def release(self, claim: Claim) -> None:
        """The exchange is over, one way or the other."""
        self._claims.discard(claim)

    def settle(self, claim: Claim) -> bool:
        """The exchange was carried to its end. False when its claim is spoilt: the debt, if any, stands."""
        assert claim in self._claims
        if claim.spoilt:
            return False
        self.clear(claim)
        return True

    def clear(self, claim: Claim) -> None:
        """What was claimed is owed no more, if it was."""
        if self.owes(claim):
            mask = self.mask(claim.peer, claim.bucket)
            self._replace(claim.peer, claim.bucket, mask ^ 1 << claim.partition)

    def keep(self, allowed: Callable[[NodeId, BucketId], int]) -> None:
        """Forget debts outside `allowed`: of dropped buckets, of peers that hold the range no more."""
        for (peer, bucket), mask in self.all().items():
            kept = mask & allowed(peer, bucket)
            if kept != mask:
                self._replace(peer, bucket, kept)

    def _replace(self, peer: NodeId, bucket: BucketId, mask: int) -> None:
        """Fewer bits than before; the tree follows at the last one, or when it is far behind."""
        slot = (peer, bucket)
        stored = self._stored[slot]
        if mask:
            self._owed[peer][bucket] = mask
            if (stored ^ mask).bit_count() > CLEARED_LAZILY_MAX:
                self._stored[slot] = mask
                self._write([(owed_key(peer, bucket, self._kind), encode_mask(mask))])
            return
        del self._owed[peer][bucket]
        if not self._owed[peer]:
            del self._owed[peer]
        del self._stored[slot]
        self._write([(owed_key(peer, bucket, self._kind), None)])

    def check(self) -> None:
        """What is owed is stored; nothing empty is kept."""
        for slot, mask in self.all().items():
            assert mask
            assert not mask & ~self._stored[slot], "a debt that a restart would forget"
        assert self._stored.keys() == self.all().keys()
        assert all(self._owed.values())
