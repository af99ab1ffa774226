"""One proof of the horizon, at the node that leads its partitions (docs/decisions/0008, section 2).

    begin at all members  ->  all have begun, owners exchange  ->  end at all members  ->  one change of the register

It is given up whole when a member cannot be asked or the ring, the members or the buckets change; partition by
partition for anything else. Whatever becomes of it does no harm: promises bind clocks only, and marks above the horizon
say nothing that is not so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.node.admin import PEER_TIMEOUT_S, ask_member
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer
from leafdb.node.debts import bits
from leafdb.node.logs import Log
from leafdb.node.purge_member import PROOF_BYTES, Asked, PurgeMember
from leafdb.node.purge_rules import Answer, HeldUp, Hold, Refusal, agreed, ground_of
from leafdb.node.shared_ranges import SharedRanges
from leafdb.ring.horizon_change import Proof, raise_horizons
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import BucketId, NodeId, PartitionId
from leafdb.wire.registry import Lane

if TYPE_CHECKING:
    from leafdb.node.node import Node

EXCHANGES_S_MAX: Final = 300.0
"""So long the owners have to exchange; what is not compared by then is left out."""
POLL_S_MIN: Final = 0.25
POLL_S_MAX: Final = 2.0

BEGIN: Final = "purge.begin"
PROVE: Final = "purge.prove"
END: Final = "purge.end"

log: Log = Log("purge")


class Outcome(NamedTuple):
    """What became of it."""

    stamp: int
    asked: int
    """The partitions it was about, as bits."""
    raised: int
    held_up: tuple[HeldUp, ...]


class ProofRun:
    """One of them. `run` is all of it."""

    def __init__(self, node: Node, member: PurgeMember, metadata: ClusterMetadata, partitions: int) -> None:
        self._node = node
        self._member = member
        self._metadata = metadata
        self._asked = Asked(
            leader=node.view.self_id,
            proof=node.world.random_bytes(PROOF_BYTES),
            stamp=node.world.now_ms() << LOGICAL_BITS,
            ground=ground_of(metadata),
            epoch=int(metadata.epoch),
            partitions=partitions,
        )
        self._left = partitions
        self._held_up: list[HeldUp] = []

    async def run(self) -> Outcome:
        """From the beginning to the end, in bounded time."""
        members = list(self._metadata.members)
        self._take(await self._begin(members))
        if self._left:
            await self._exchange()
        if self._left:
            self._take(await self._ask(END, members))
        raised = await self._register() if self._left else 0
        return Outcome(self._asked.stamp, self._asked.partitions, raised, tuple(self._held_up))

    async def _begin(self, members: Sequence[NodeId]) -> dict[NodeId, Answer]:
        """What all say to the beginning. Below any moment something can be proved: where this node's clock is ahead of
        a member's, it is that member's moment. Else one clock that is slow would keep everything for ever."""
        answers = await self._ask(BEGIN, members)
        ahead_ms = max(answer.ahead_ms for answer in answers.values())
        stamp = self._asked.stamp - (ahead_ms << LOGICAL_BITS)
        if not ahead_ms or stamp <= 0:
            return answers
        self._asked = self._asked._replace(proof=self._node.world.random_bytes(PROOF_BYTES), stamp=stamp)
        return await self._ask(BEGIN, members)

    # -- asking

    async def _ask(self, verb: str, members: Iterable[NodeId]) -> dict[NodeId, Answer]:
        """All at once, about what is left. Who does not answer refuses it all."""
        asked = self._asked._replace(partitions=self._left)
        answers: dict[NodeId, Answer] = {}

        async def ask(member: NodeId) -> None:
            try:
                answers[member] = await self._answer(verb, member, asked)
            except (LeafdbError, ValueError) as error:
                why = "it cannot be asked: " + (self._node.belonging.why_absent(member) or str(error))
                answers[member] = Answer(0, (Refusal(Hold.UNREACHABLE, why, asked.partitions),))

        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(ask, member)
        return answers

    async def _answer(self, verb: str, member: NodeId, asked: Asked) -> Answer:
        """Raises LeafdbError, ValueError."""
        if member == self._node.view.self_id:
            if verb == END:
                return await self._member.end(asked)
            return self._member.begin(asked) if verb == BEGIN else self._member.prove(asked)
        give_up_at = self._node.world.now() + PEER_TIMEOUT_S
        while True:
            try:
                return Answer.from_wire(await ask_member(self._node, member, verb, asked.to_wire()))
            except Overloaded as error:
                # Others have taken all its places for the moment: a proof is not lost for that.
                if self._node.world.now() + error.retry_after >= give_up_at:
                    raise
                await trio.sleep(error.retry_after)

    def _take(self, answers: Mapping[NodeId, Answer]) -> None:
        self._left, held_up = agreed(self._left, answers)
        self._held_up += held_up

    # -- exchanges

    async def _exchange(self) -> None:
        """Have the owners compare what is left, now that all members have begun. What is not compared in time is
        left out."""
        owners = self._owners()
        give_up_at = self._node.world.now() + EXCHANGES_S_MAX
        pause_s = POLL_S_MIN
        while self._left:
            if problem := self._problem():
                self._take({problem.member: Answer(0, (problem.refusal,))})
                return
            answers = await self._ask(PROVE, owners)
            # What has not been compared yet may still be; whatever else is said is said for good.
            self._take({owner: _settled(self._left, answer) for owner, answer in answers.items()})
            done, waiting = agreed(self._left, answers)
            if done == self._left:
                return
            if self._node.world.now() >= give_up_at:
                self._left, self._held_up = done, self._held_up + waiting
                return
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, POLL_S_MAX)

    def _owners(self) -> list[NodeId]:
        """Who holds any of it."""
        shared = SharedRanges(self._node.view)
        buckets = [BucketId(bucket) for bucket in self._metadata.buckets]
        return [
            node for node in self._metadata.members if any(shared.held(node, bucket) & self._left for bucket in buckets)
        ]

    def _problem(self) -> HeldUp | None:
        """Why the proof cannot be carried to its end any more."""
        view, peers = self._node.view, self._node.peers
        assert view.metadata is not None, "a member stays one"
        if view.metadata is not self._metadata and ground_of(view.metadata) != self._asked.ground:
            why = "the ring, the members or the buckets have changed"
            return HeldUp(view.self_id, Refusal(Hold.RING, why, self._left))
        for member in self._metadata.members:
            if member != view.self_id and peers.session(member, Lane.CONTROL) is None:
                return HeldUp(member, Refusal(Hold.UNREACHABLE, "the session with it was lost", self._left))
        return None

    # -- the register

    async def _register(self) -> int:
        """Raise what is left; answers what of it is."""
        metadata = self._metadata
        proof = Proof(
            stamp=self._asked.stamp,
            partitions={PartitionId(at): metadata.range_epochs[at] for at in bits(self._left)},
            members={node: member.incarnation for node, member in metadata.members.items()},
            generation=metadata.generation,
        )

        def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
            return raise_horizons(current, proof, change_id=change_id)

        try:
            chosen = await self._node.register.change(change, CHANGE_TIMEOUT_S, gives_way=True)
        except LeafdbError as error:
            # Also when it is not known what became of it: then the horizon is raised or it is not.
            changed = isinstance(error, NotApplied) and error.reason in (Reason.STALE_EPOCH, Reason.PLAN_IN_PROGRESS)
            hold = Hold.RING if changed else Hold.BUSY
            self._held_up.append(HeldUp(self._asked.leader, Refusal(hold, str(error), self._left)))
            return 0
        raised = 0
        for at in bits(self._left):
            raised |= (chosen.horizons[at].stamp >= proof.stamp) << at if chosen.horizons else 0
        if raised != self._left:
            why = "others own these partitions since"
            self._held_up.append(HeldUp(self._asked.leader, Refusal(Hold.RING, why, self._left & ~raised)))
        log.debug("a horizon is proved", partitions=raised.bit_count(), stamp=proof.stamp, epoch=int(chosen.epoch))
        await offer(self._node, chosen)
        return raised


def _settled(asked: int, answer: Answer) -> Answer:
    """The answer without what may still come."""
    final = tuple(no for no in answer.refusals if no.hold is not Hold.UNEQUAL)
    refused = 0
    for no in final:
        refused |= no.partitions
    return Answer(asked & ~refused, final)
