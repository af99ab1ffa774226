"""The purge tier: histories of a partition in which deleted things are forgotten, and must not come back.

In each history clients write, delete, read and write again with what they saw long ago; nodes crash, lose the end of
their log, their disk, a single record; messages are late; hints move; stores are swept at different times; proofs of
the horizon run through it all. Between such times come quiet ones (purge_calm.py), and stories: dangerous orders of
events that chance alone would seldom find (purge_stories.py). Then everything is mended, and what was late comes at
last. Judged is: what a write had covered is not shown (I6), what was acknowledged is there (I2), who confirms a write
has it (I7), replicas are equal (I15), what is dead is gone (I33).
"""

from __future__ import annotations

from random import Random
from typing import Final

from leafdb.sim.heap import Heap, outcome
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.purge_calm import PurgeCalm, Weighted
from leafdb.sim.purge_faults import PurgeFaults
from leafdb.sim.purge_oracle import PurgeOracle
from leafdb.sim.purge_stories import PurgeStory
from leafdb.sim.purge_traffic import FORGOTTEN, LEFT_OUT, RECREATED, PurgeTraffic
from leafdb.sim.purge_world import (
    ALL_LOST,
    KEYS,
    LOSS_PROVED,
    MADE_WHOLE,
    PROOF_BEGUN,
    PROOF_REFUSED,
    PROVED,
    PurgeWorld,
)  # fmt: skip
from leafdb.sim.trace import Trace
from leafdb.testing.violation import Invariant, require
from leafdb.types import Conflict

STEPS: Final = 30
"""At most so many in one time of trouble."""
TIMES: Final = 4

LOST: Final = "a history in which destroyed stores excuse something"
UNDONE: Final = "a history in which nobody could tell what had been deleted"
PROBES: Final = (
    ALL_LOST, FORGOTTEN, LEFT_OUT, LOSS_PROVED, LOST, MADE_WHOLE, PROOF_BEGUN, PROOF_REFUSED, PROVED, RECREATED, UNDONE,
)  # fmt: skip


class PurgeHistory:
    """One history, from an empty cluster to its judgement."""

    def __init__(self, heap: Heap, name: str) -> None:
        self.rng: Random = Random(name)
        rng = self.rng
        self.trace: Trace = heap.trace
        conflict = Conflict.LWW if rng.random() < 0.15 else Conflict.SIBLINGS
        self.world: PurgeWorld = PurgeWorld(
            rng, heap.trace, members=rng.choice((3, 4, 5, 5)), periodic=rng.random() < 0.4, conflict=conflict
        )
        self.oracle: PurgeOracle = self.world.oracle
        self.traffic: PurgeTraffic = PurgeTraffic(self.world, rng)
        traffic = self.traffic
        self.faults: PurgeFaults = PurgeFaults(self.world, rng)
        deeds: list[Weighted] = [
            (traffic.write, 10), (traffic.read, 3), (traffic.deliver, 8), (traffic.sync, 2), (traffic.exchange, 3),
            (traffic.hand_over, 2), (traffic.drain_hints, 2), (traffic.sweep, 3), (traffic.learn, 2),
            (traffic.proof, 3), *self.faults.draw(),
        ]  # fmt: skip
        self.calm: PurgeCalm = PurgeCalm(self.world, traffic, rng, deeds)
        self._deeds = [deed for deed, _ in deeds]
        self._weights = [weight for _, weight in deeds]
        self.weather: float = self.world.weather

    def run(self) -> None:
        """Times of trouble, and quiet ones in which something is forgotten, in turn; then the judgement."""
        for _ in range(self.rng.randint(1, TIMES)):
            if self.rng.random() < 0.6:
                PurgeStory(self.world, self.traffic, self.faults, self.calm, self.rng, self.trouble).tell()
            else:
                self.trouble(self.rng.randint(5, STEPS))
                self.calm.lull()
        self.trouble(self.rng.randint(0, STEPS))
        self._judge()

    def trouble(self, steps: int) -> None:
        """Anything may happen."""
        world = self.world
        world.weather = self.weather
        for deed in self.rng.choices(self._deeds, self._weights, k=steps):
            world.step += 1
            deed()

    def _judge(self) -> None:
        world, oracle = self.world, self.oracle
        self.calm.mend()
        while world.deliver(world.late):
            pass
        self.calm.mend()
        world.step += 1_000
        self.calm.mend()
        self.calm.settle()
        owners = world.owners_now()
        for key in range(KEYS):
            records = [node.record(key) for node in owners]
            same = all(record == records[0] for record in records)
            require(same, Invariant.REPLICAS_EQUAL, f"replicas of key {key} differ", f"key {key}")
            self.trace.feed(b"end", records[0] or b"")
            visible = oracle.visible(key, records[0], world.now_ms())
            oracle.check_end(key, visible, world.now_ms() << 16)
            require(visible or records[0] is None, Invariant.SPACE_RECLAIMED, "what is dead is still there")
        acked = [write for write in oracle.writes if write.acked]
        self.trace.probe(LOST, any(write.lost for write in acked))
        self.trace.probe(UNDONE, any(write.undone for write in acked))
        for node in owners:
            require(node.complete, Invariant.LIVENESS, f"n{node.id} is not complete after healing")


def count_histories(seed: int, histories: int, *, first: int = 1, keep: bool = False) -> Outcome:
    """So many histories, from the `first` on; stops at the first violation."""
    heap = Heap(keep=keep)

    def body() -> None:
        for number in range(first, first + histories):
            heap.now = float(number)
            heap.trace.tell("runner", f"history {number}")
            PurgeHistory(heap, f"{seed}/{number}").run()
            heap.operations += 1

    return outcome(Tier.PURGE, seed, NODES, heap, PROBES, body)


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """An operation of this tier is a history. How many nodes there are each of them draws."""
    return count_histories(seed, operations, keep=keep)
