"""The rules by which the horizon of a partition rises (docs/decisions/0008, section 2): who leads, what is worth a
proof, what a member may refuse, and what answers come to. Pure.

A proof is about many partitions at once, and one that is held up does not stop the others: members say for which of
them they agree, and why not for the rest. Whoever cannot be asked stops all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from leafdb.codec import cbor
from leafdb.codec.fields import as_list, bytes_field, int_field, map_field
from leafdb.limits import PARTITIONS_MAX
from leafdb.model.hlc import LOGICAL_BITS, STAMP_MAX
from leafdb.node.debts import bits, encode_mask
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.ring import Ring
from leafdb.types import NodeId, PartitionId

MARGIN_MS: Final = 1_000
"""What died less long ago is not worth a proof of its own."""
RANGES_MAX: Final = 4_096
"""So many ranges, each of one bucket, are compared for one proof."""
REFUSALS_MAX: Final = 16
"""In one answer."""
WHY_CHARS_MAX: Final = 300
AHEAD_MS_MAX: Final = STAMP_MAX >> LOGICAL_BITS


class Hold(Enum):
    """What keeps horizons from rising. The names are those of the metric's label."""

    UNREACHABLE = "unreachable"
    """A member cannot be asked."""
    RING = "ring"
    """A plan is in progress, or members disagree about the ring."""
    CLOCK = "clock"
    """The leader's clock is too far ahead of a member's, or behind what one has vouched for already."""
    HINT = "hint"
    """A member keeps a copy for somebody else, or took one in meanwhile."""
    LEFTOVER = "leftover"
    """A member has records that it holds no more."""
    FORGOTTEN = "forgotten"
    """A member knows nothing of what it promised: it was started anew."""
    INCOMPLETE = "incomplete"
    """An owner may lack something."""
    UNVOUCHED = "unvouched"
    """An owner cannot say that it had everything below the horizon there is."""
    UNEQUAL = "unequal"
    """Two owners have not been compared since the proof began."""
    BUSY = "busy"
    """A disk or the control set takes too long."""


class Refusal(NamedTuple):
    """Of one member, for some of the partitions it was asked about."""

    hold: Hold
    why: str
    """For people; who says it is its subject."""
    partitions: int
    """As bits."""


class Answer(NamedTuple):
    """What one member says to a step of a proof."""

    yes: int
    """The partitions for which it agrees."""
    refusals: tuple[Refusal, ...] = ()
    ahead_ms: int = 0
    """So far is the stamp ahead of what this member lets its clock be drawn to; an older one would do."""

    def to_wire(self) -> dict[str, Any]:
        """For the answer of a verb."""
        refusals = [[no.hold.value, no.why[:WHY_CHARS_MAX], encode_mask(no.partitions)] for no in self.refusals]
        return {"yes": encode_mask(self.yes), "no": refusals[:REFUSALS_MAX], "ahead_ms": self.ahead_ms}

    @classmethod
    def from_wire(cls, fields: Mapping[str, Any]) -> Answer:
        """Of the answer of a verb. ValueError."""
        refusals = []
        for item in as_list(map_field(fields, "no"), "refusals", items_max=REFUSALS_MAX):
            hold, why, partitions = as_list(item, "a refusal", items_max=3)
            if not isinstance(why, str) or not isinstance(partitions, bytes):
                raise ValueError("a refusal without a reason")
            refusals.append(Refusal(Hold(hold), why, decode_mask(partitions)))
        return cls(mask_field(fields, "yes"), tuple(refusals), int_field(fields, "ahead_ms", high=AHEAD_MS_MAX))


class HeldUp(NamedTuple):
    """A refusal, and whose it is."""

    member: NodeId
    refusal: Refusal


def refuse(asked: int, *refusals: Refusal) -> Answer:
    """The answer that agrees to all that nothing speaks against."""
    wanted = tuple(no._replace(partitions=no.partitions & asked) for no in refusals if no.partitions & asked)
    for no in wanted:
        asked &= ~no.partitions
    return Answer(asked, wanted)


def agreed(asked: int, answers: Mapping[NodeId, Answer]) -> tuple[int, list[HeldUp]]:
    """For which of the partitions all agree, and who does not."""
    held_up = []
    for member, answer in sorted(answers.items()):
        for no in answer.refusals:
            if no.partitions & asked:
                held_up.append(HeldUp(member, no._replace(partitions=no.partitions & asked)))
    for answer in answers.values():
        asked &= answer.yes
    return asked, held_up


def mask_field(fields: Mapping[str, Any], name: str) -> int:
    """Partitions as bits. ValueError."""
    return decode_mask(bytes_field(fields, name, low=0, high=PARTITIONS_MAX // 8))


def decode_mask(data: bytes) -> int:
    """The mask that `encode_mask` wrote. ValueError."""
    if len(data) > PARTITIONS_MAX // 8:
        raise ValueError("more partitions than there can be")
    return int.from_bytes(data, "little")


def ground_of(metadata: ClusterMetadata) -> bytes:
    """A digest of what a proof rests on: members and the lives of their stores, owners, buckets. Whoever knows another
    one takes part in another proof. What horizons there are is not in it: other proofs raise them meanwhile."""
    facts = [
        metadata.generation,
        b"" if metadata.plan is None else metadata.plan.id,
        sorted([int(node), member.incarnation] for node, member in metadata.members.items()),
        sorted([int(bucket.id), bucket.n] for bucket in metadata.buckets.values()),
        [int(epoch) for epoch in metadata.range_epochs],
    ]
    return hashlib.blake2b(cbor.dumps(facts), digest_size=16).digest()


def led(ring: Ring, n: int, node: NodeId, up: Collection[NodeId]) -> int:
    """The partitions that `node` leads where there are n copies: it is the first owner that is up, itself included.

    Two nodes that disagree about who is up may both lead one: two proofs of it do each other no harm.
    """
    mask = 0
    for partition in range(ring.partitions):
        for owner in ring.primaries(PartitionId(partition), n):
            if owner == node:
                mask |= 1 << partition
            if owner == node or owner in up:
                break
    return mask


def due(
    partitions: int, oldest_death: Callable[[int], int | None], horizon: Callable[[int], int], now_ms: int
) -> dict[int, int]:
    """Of these partitions those in which something waits for a proof, with the stamp from which on it does: it is dead
    by now, and not below the horizon, where nothing waits for anybody."""
    before = (now_ms - MARGIN_MS) << LOGICAL_BITS
    deaths = ((partition, oldest_death(partition)) for partition in bits(partitions))
    return {at: death for at, death in deaths if death is not None and horizon(at) <= death < before}


def chosen(waiting: Mapping[int, int], buckets: int) -> int:
    """Of what waits, as `due` says, the part for one proof, as bits: what waits longest. Each partition is compared in
    every bucket, and counts only if all of that is done in time."""
    most = max(1, RANGES_MAX // max(1, buckets))
    return mask_of(sorted(waiting, key=lambda at: (waiting[at], at))[:most])


def mask_of(partitions: Iterable[int]) -> int:
    """Partitions as bits."""
    mask = 0
    for partition in partitions:
        mask |= 1 << partition
    return mask
