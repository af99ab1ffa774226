"""When horizons are proved, and what people are told of it.

Each node looks after the partitions it leads: those of whose owners it is the first that is up. Every
`repair.purge_interval` it proves (`purge_proof`) all of them in which something waits to be forgotten, or as many at a
time as can be compared in time. Where nothing dies nobody is asked anything, nor while a member is away or the ring
changes: then it is known that nothing will come of it. A proof that was begun and raises nothing is tried again after
twice as long, and so on up to BACKOFF_MAX intervals. Who has put right what held it up need not wait: `leafdb repair
purge` has all leaders try at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.model.hlc import stamp_ms
from leafdb.node.logs import Log
from leafdb.node.purge_member import PurgeMember
from leafdb.node.purge_proof import Outcome, ProofRun
from leafdb.node.purge_rules import HeldUp, Hold, Refusal, chosen, due, led
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import NodeId
from leafdb.wire.registry import Lane

if TYPE_CHECKING:
    from leafdb.node.node import Node

BACKOFF_MAX: Final = 8
HELD_UP_SHOWN: Final = 32
NEXT_PART_S: Final = 1.0
"""Until the next proof, when there was too much for one."""
GOLDEN: Final = 0.618_033_988_75
"""The first look of each node comes at a moment of its own."""

log: Log = Log("purge")


class PurgeDriver:
    """See the top of this file. `run` is its one task."""

    def __init__(
        self, node: Node, member: PurgeMember, interval_s: float, oldest_death: Callable[[int], int | None]
    ) -> None:
        """`oldest_death` says from which stamp on something in a partition waits to be forgotten; None: nothing."""
        self._node = node
        self._member = member
        self.interval_s = interval_s
        self.oldest_death = oldest_death
        self._wake = trio.Event()
        self._next_at = node.world.now()
        self._failures = 0
        self.tries: int = 0
        """Looks whether there is something to prove, and what came of it, that are over."""
        self.under_way: bool = False
        self._led_of: tuple[int, int, frozenset[NodeId]] = (-1, 0, frozenset())
        self._led = 0
        """What it leads, for that epoch, that many copies, and those that are up."""
        self._last: Outcome | None = None
        self._last_ms = 0
        self._held_up: tuple[HeldUp, ...] = ()
        """What came in the way of the last try."""
        self._since_ms: dict[tuple[NodeId, Hold], int] = {}
        """Since when that is so, over tries."""

    async def run(self) -> None:
        """Prove until cancelled."""
        pause_s = self.interval_s * (0.5 + self._node.view.self_id * GOLDEN % 0.5)
        while True:
            self._next_at = self._node.world.now() + pause_s
            with trio.move_on_after(pause_s):
                await self._wake.wait()
            self._wake = trio.Event()
            self.under_way = True
            try:
                pause_s = await self._turn()
            finally:
                self.under_way = False
            self.tries += 1

    def hurry(self) -> int:
        """Try at once; answers how many tries will be over when that one is."""
        self._failures = 0
        self._wake.set()
        return self.tries + (2 if self.under_way else 1)

    # -- one try

    async def _turn(self) -> float:
        """Prove what waits, if it can be; answers after how many seconds to look again."""
        metadata, waiting = self._node.view.metadata, self.waiting()
        if metadata is None or not waiting:
            self._failures = 0
            self._note(())
            return self.interval_s
        asked = chosen(waiting, len(metadata.buckets))
        held_up = list(self._in_the_way(metadata, asked))
        if held_up:
            self._node.metrics.purge_proofs_refused_total += 1
            self._note(held_up)
            return self.interval_s
        self._node.metrics.purge_proofs_begun_total += 1
        outcome = await ProofRun(self._node, self._member, metadata, asked).run()
        self._last, self._last_ms = outcome, self._node.world.now_ms()
        self._note(outcome.held_up)
        # Not in step with the leaders of other partitions: their changes of the register would meet for ever.
        jitter = 0.75 + 0.5 * self._node.world.rng.random()
        if not outcome.raised:
            self._node.metrics.purge_proofs_refused_total += 1
            self._failures += 1
            return self.interval_s * jitter * min(BACKOFF_MAX, 1 << min(self._failures, 16))
        self._node.metrics.purge_proofs_made_total += 1
        self._node.metrics.purge_horizons_raised_total += outcome.raised.bit_count()
        self._failures = 0
        return NEXT_PART_S if asked.bit_count() < len(waiting) else self.interval_s * jitter

    def waiting(self) -> dict[int, int]:
        """The partitions that this node leads and in which something waits for a proof, and from which stamp on."""
        view = self._node.view
        ring = view.ring
        if ring is None or not view.buckets:
            return {}
        n = max(bucket.properties.n for bucket in view.buckets.values())
        seen = (view.epoch, n, frozenset(view.usable))
        if seen != self._led_of:
            self._led_of, self._led = seen, led(ring, n, view.self_id, view.usable)
        return due(self._led, self.oldest_death, self._node.horizons.of, self._node.world.now_ms())

    def _in_the_way(self, metadata: ClusterMetadata, waiting: int) -> Iterable[HeldUp]:
        """What would stop a proof from the start: nobody need be asked to know it."""
        view, peers = self._node.view, self._node.peers
        if metadata.plan is not None:
            yield HeldUp(view.self_id, Refusal(Hold.RING, "a change of the ring is in progress", waiting))
        for member in metadata.members:
            if member != view.self_id and peers.session(member, Lane.CONTROL) is None:
                why = self._node.belonging.why_absent(member) or peers.problem(member) or "it is down"
                yield HeldUp(member, Refusal(Hold.UNREACHABLE, f"it cannot be asked: {why}", waiting))

    def _note(self, held_up: Iterable[HeldUp]) -> None:
        now_ms = self._node.world.now_ms()
        before, known = self._since_ms, self._held_up
        self._held_up = tuple(held_up)
        self._since_ms = {
            (each.member, each.refusal.hold): before.get((each.member, each.refusal.hold), now_ms)
            for each in self._held_up
        }
        name = self._node.view.name_of
        for each in self._held_up:
            if all((each.member, each.refusal.hold) != (old.member, old.refusal.hold) for old in known):
                log.info(
                    "tombstones wait to be forgotten",
                    member=name(each.member),
                    reason=each.refusal.why,
                    partitions=each.refusal.partitions.bit_count(),
                )

    # -- for people

    def lag_s(self) -> float:
        """For how long the oldest of what waits here has been dead; 0: nothing waits."""
        waiting = self.waiting()
        return max(0.0, (self._node.world.now_ms() - stamp_ms(min(waiting.values()))) / 1000) if waiting else 0.0

    def held_up(self) -> dict[str, float]:
        """How many partitions the last try left where they are, by reason."""
        masks = dict.fromkeys(Hold, 0)
        for each in self._held_up:
            masks[each.refusal.hold] |= each.refusal.partitions
        return {hold.value: float(mask.bit_count()) for hold, mask in masks.items()}

    def report(self) -> dict[str, Any]:
        """For `repair status`. Ages are in seconds, and moments in unix milliseconds."""
        waiting, now_ms = self.waiting(), self._node.world.now_ms()
        horizon_ms = stamp_ms(min((self._node.horizons.of(at) for at in waiting), default=0))
        last = self._last
        return {
            "interval_s": self.interval_s,
            "waiting": len(waiting),
            "oldest_s": self.lag_s(),
            "horizon_ms": horizon_ms,
            "held_up": [self._line(each, now_ms) for each in self._held_up[:HELD_UP_SHOWN]],
            "last": {} if last is None else {
                "at_ms": self._last_ms, "ago_s": max(0.0, (now_ms - self._last_ms) / 1000),
                "asked": last.asked.bit_count(), "raised": last.raised.bit_count(),
            },
            "next_s": max(0.0, self._next_at - self._node.world.now()),
            "under_way": self.under_way,
            "tries": self.tries,
        }  # fmt: skip

    def _line(self, each: HeldUp, now_ms: int) -> dict[str, Any]:
        since_ms = self._since_ms[each.member, each.refusal.hold]
        return {
            "member": self._node.view.name_of(each.member),
            "hold": each.refusal.hold.value,
            "why": each.refusal.why,
            "partitions": each.refusal.partitions.bit_count(),
            "since_ms": since_ms,
            "since_s": max(0.0, (now_ms - since_ms) / 1000),
        }
