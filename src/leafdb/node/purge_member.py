"""A member's part in proofs of the horizon: what it promises, proves and vouches for (docs/decisions/0008, section 2).

    begin    mint nothing below T from now on; refused where hints are kept, or records that are others'
    prove    all have begun: exchange what this node shares, of each pair the one whose turn it is
    end      the promise made durable; an owner's mark, behind everything it vouches for

Whatever keeps a horizon from rising is said with the partitions it concerns; the others go on. Nothing here waits for
anybody but the own disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from leafdb.codec.fields import bytes_field, int_field
from leafdb.errors import StorageError
from leafdb.hints.hint import decode_key
from leafdb.limits import NODE_ID_MAX
from leafdb.model.hlc import STAMP_MAX
from leafdb.model.record import header
from leafdb.node.debts import bits, encode_mask
from leafdb.node.promises import Promise, Promises
from leafdb.node.purge_rules import Answer, Hold, Refusal, ground_of, mask_field, mask_of, refuse
from leafdb.node.repair_schedule import begun_here
from leafdb.node.shared_ranges import SharedRanges
from leafdb.types import BucketId, NodeId, PartitionId

if TYPE_CHECKING:
    from leafdb.node.node import Node

PROOF_BYTES: Final = 8
GROUND_BYTES: Final = 16
SYNC_S_MAX: Final = 2.0
"""So long an answer waits for the disk at most."""


class Asked(NamedTuple):
    """The arguments of each of the three."""

    leader: NodeId
    proof: bytes
    stamp: int
    ground: bytes
    epoch: int
    """Of the leader's metadata."""
    partitions: int

    def to_wire(self) -> dict[str, Any]:
        """The arguments of a verb."""
        return {
            "leader": int(self.leader), "proof": self.proof, "stamp": self.stamp, "ground": self.ground,
            "epoch": self.epoch, "partitions": encode_mask(self.partitions),
        }  # fmt: skip

    @classmethod
    def from_wire(cls, args: Mapping[str, Any]) -> Asked:
        """Of the arguments of a verb. ValueError."""
        return cls(
            leader=NodeId(int_field(args, "leader", low=1, high=NODE_ID_MAX)),
            proof=bytes_field(args, "proof", low=PROOF_BYTES, high=PROOF_BYTES),
            stamp=int_field(args, "stamp", low=1, high=STAMP_MAX),
            ground=bytes_field(args, "ground", low=GROUND_BYTES, high=GROUND_BYTES),
            epoch=int_field(args, "epoch"),
            partitions=mask_field(args, "partitions"),
        )


class PurgeMember:
    """Of one node; made when its parts are there."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.promises: Promises = Promises(node.world.now)
        self._ground: tuple[int, int, bytes] = (-1, -1, b"")
        self._shared = SharedRanges(node.view)
        node.anti_entropy.exchanges.on_proved = self.promises.proved

    # -- the steps

    def begin(self, asked: Asked) -> Answer:
        """Mint nothing below the stamp from now on. In this life, which is why a promise ends with the process."""
        node = self._node
        stranger = self._stranger(asked)
        if stranger is not None:
            return refuse(asked.partitions, stranger)
        ahead_ms = node.leases.ahead_ms(asked.stamp)
        if ahead_ms:
            why = f"the clock of {node.view.name_of(asked.leader)} is {ahead_ms / 1000:.0f} s ahead of its own"
            return Answer(0, (Refusal(Hold.CLOCK, why, asked.partitions),), ahead_ms)
        node.leases.lift(asked.stamp)
        answer = refuse(asked.partitions, self._marked_above(asked), *self._in_the_way(asked.partitions))
        if not self.promises.make(asked.leader, asked.proof, asked.stamp, asked.ground, answer.yes):
            return refuse(asked.partitions, Refusal(Hold.BUSY, "it has promised too much already", asked.partitions))
        node.hints.watch = self._hint_taken
        return answer

    def prove(self, asked: Asked) -> Answer:
        """All members have begun: owe what is this node's to compare. Agrees to what it has compared since."""
        promise, problem = self._promise(asked)
        if promise is None:
            return refuse(asked.partitions, problem)
        if promise.since is None:
            promise.since = self._node.anti_entropy.debts.claims
            promise.owed = self._own_part(asked.partitions)
        self._owe(promise)
        return refuse(asked.partitions, *self._unequal(promise))

    async def end(self, asked: Asked) -> Answer:
        """Agree for good. An owner vouches from now on, durably, and whatever comes of the proof."""
        promise, problem = self._promise(asked)
        if promise is None:
            return refuse(asked.partitions, problem)
        held = self._held()
        answer = refuse(asked.partitions, *self._against(promise, held))
        if answer.yes:
            slow = await self._durable(promise, answer.yes & held)
            after, problem = self._promise(asked)
            if slow is not None or after is not promise:
                return refuse(asked.partitions, slow or problem)
            late = refuse(answer.yes, *self._hints_since(promise))
            answer = Answer(late.yes, answer.refusals + late.refusals)
        self.promises.kept(asked.leader)
        return answer

    # -- what may be in the way

    def _stranger(self, asked: Asked) -> Refusal | None:
        """Why this node cannot take part in such a proof at all."""
        node = self._node
        metadata = node.view.metadata
        if metadata is None:
            return Refusal(Hold.RING, "it is not part of a cluster yet", asked.partitions)
        if metadata.plan is not None:
            return Refusal(Hold.RING, "a change of the ring is in progress", asked.partitions)
        if self._ground[:2] != metadata.version:
            self._ground = (*metadata.version, ground_of(metadata))
        if self._ground[2] != asked.ground:
            if asked.epoch > metadata.epoch:
                node.news.behind(asked.leader)
            why = f"it knows other members, owners or buckets, those of epoch {metadata.epoch}, not of {asked.epoch}"
            return Refusal(Hold.RING, why, asked.partitions)
        return None

    def _promise(self, asked: Asked) -> tuple[Promise | None, Refusal]:
        stranger = self._stranger(asked)
        promise = self.promises.find(asked.leader, asked.proof)
        if stranger is not None:
            return None, stranger
        why = "it knows nothing of this proof: it was started anew since, or has heard of a later one"
        return promise, Refusal(Hold.FORGOTTEN, why, asked.partitions)

    def _marked_above(self, asked: Asked) -> Refusal:
        """Marks of proofs that came to nothing and had later stamps. Between such a mark and a horizon below it things
        may have been written that are older than both; an old copy of this store has the mark, lacks these, and would
        be believed. So horizons do not rise below a mark; clocks soon do."""
        marked = mask_of(at for at in bits(asked.partitions) if self._node.horizons.mark(at) > asked.stamp)
        why = "it has vouched for more already, in a proof that came to nothing: it waits until clocks have passed that"
        return Refusal(Hold.CLOCK, why, marked)

    def _in_the_way(self, partitions: int) -> list[Refusal]:
        """Writes that may be nowhere but here, and that no exchange would bring to the owners."""
        node = self._node
        found = []
        ledger, leftovers = node.hints.ledger, node.estate.leftovers
        hinted = ledger.kept() & partitions
        if hinted:
            names = ", ".join(map(node.view.name_of, ledger.targets()))
            found.append(Refusal(Hold.HINT, f"it keeps hints for {names}", hinted))
        if leftovers.partitions & partitions:
            why = leftovers.problem() or "it gives away ranges that are not its own any more"
            found.append(Refusal(Hold.LEFTOVER, why, leftovers.partitions & partitions))
        if not leftovers.looked or node.replica.queue.older_waiting:
            why = "it looks whether it has anything that is not its own any more"
            found.append(Refusal(Hold.LEFTOVER, why, partitions))
        return found

    def _hints_since(self, promise: Promise) -> list[Refusal]:
        return [Refusal(Hold.HINT, "it took in a hint older than the proof", promise.taken)]

    def _unequal(self, promise: Promise) -> list[Refusal]:
        """A refusal for each peer with whom something is still to be compared."""
        by_peer: dict[NodeId, int] = {}
        for (peer, _), mask in promise.owed.items():
            by_peer[peer] = by_peer.get(peer, 0) | mask
        queue, name = self._node.anti_entropy.queue, self._node.view.name_of
        return [
            Refusal(Hold.UNEQUAL, f"it has not been compared with {name(peer)}" + because(queue.why(peer)), mask)
            for peer, mask in sorted(by_peer.items())
        ]

    def _against(self, promise: Promise, held: int) -> list[Refusal]:
        """What speaks against agreeing for good. `held`: what this node owns."""
        node = self._node
        found = [
            Refusal(Hold.FORGOTTEN, "it did not agree to begin", ~promise.partitions),
            *self._hints_since(promise),
            *(self._unequal(promise) if promise.since is not None else ()),
        ]
        if promise.since is None:
            found.append(Refusal(Hold.UNEQUAL, "it was not asked to compare anything", held))
        owned = bits(held & promise.partitions)
        unvouched = mask_of(at for at in owned if not node.horizons.vouches(at))
        # Who does not vouch is not complete either; that is the reason to be told then.
        lacking = mask_of(at for at in owned if not self._complete(PartitionId(at))) & ~unvouched
        found.append(Refusal(Hold.INCOMPLETE, "it may lack something, and has not been made whole yet", lacking))
        found.append(Refusal(Hold.UNVOUCHED, "it cannot vouch for what was deleted before", unvouched))
        return found

    def _complete(self, partition: PartitionId) -> bool:
        complete = self._node.completeness.definitive_in
        return all(complete(BucketId(bucket), partition) for bucket in self._node.view.buckets)

    # -- what is done

    def _held(self) -> int:
        """The partitions of which this node owns any bucket's."""
        own = self._node.view.self_id
        mask = 0
        for bucket in self._node.view.buckets:
            mask |= self._shared.held(own, BucketId(bucket))
        return mask

    def _own_part(self, partitions: int) -> dict[tuple[NodeId, BucketId], int]:
        """What this node compares with others for a proof: of each pair one begins, so one of them does."""
        own = self._node.view.self_id
        shared = self._shared.with_all().items()
        parts = {slot: begun_here(own, slot[0], mask & partitions) for slot, mask in shared}
        return {slot: mask for slot, mask in parts.items() if mask}

    def _owe(self, promise: Promise) -> None:
        """Make the debts that are missing: the other side may have begun an exchange that settled one, and it may have
        read its side too early. What is under way is left alone, for a debt made again would spoil it."""
        repair = self._node.anti_entropy
        missing = {}
        for slot, mask in promise.owed.items():
            mask &= ~(repair.debts.mask(*slot) | repair.debts.claimed(*slot))
            if mask:
                missing[slot] = mask
        if missing:
            repair.schedule.compare(missing)

    async def _durable(self, promise: Promise, owned: int) -> Refusal | None:
        """Make good what is promised, on the disk. Why it could not be done; None: it is."""
        left, over = 2, trio.Event()
        problems: list[StorageError] = []

        def done(error: StorageError | None) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                problems.append(error)
            if not left:
                over.set()

        self._node.leases.secure(promise.stamp, done)
        self._node.horizons.vouch(bits(owned), promise.stamp, done)
        with trio.move_on_after(SYNC_S_MAX):
            await over.wait()
        if problems:
            return Refusal(Hold.BUSY, f"its store failed: {problems[0]}", promise.partitions)
        return None if over.is_set() else Refusal(Hold.BUSY, "its disk takes too long", promise.partitions)

    def _hint_taken(self, key: bytes, record: bytes) -> None:
        self.promises.drop_old()
        if not len(self.promises):
            self._node.hints.watch = None
            return
        partition = decode_key(key).partition(self._node.hints.ledger.partitions)
        self.promises.hint_taken(partition, min((head.stamp for head in header(record).heads.values()), default=0))


def because(why: str) -> str:
    """A reason in brackets, if there is one."""
    return f" ({why})" if why else ""
