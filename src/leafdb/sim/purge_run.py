"""The purge tier: histories of a partition in which deleted things are forgotten, and must not come back.

In each history clients write, delete, read and write again with what they saw long ago; nodes crash, lose the end of
their log, their disk, a single record; messages are late; hints move; stores are swept at different times; proofs of
the horizon run through it all. Then everything is mended, and what was late comes at last. Judged is: what a write had
covered is not shown (I6), what was acknowledged is there (I2), replicas are equal (I15), what is dead is gone (I33).
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from random import Random
from typing import Final

from leafdb.sim.heap import Heap, outcome
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.purge_faults import PurgeFaults
from leafdb.sim.purge_node import PurgeNode
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
from leafdb.testing.violation import Invariant, require
from leafdb.types import Conflict

STEPS: Final = 30
"""At most so many in one time of trouble."""
TIMES: Final = 4
LULL: Final = 60
STORM: Final = 0.9
"""So many messages are lost, or late, or both."""
SETTLED_MAX: Final = 12
PROBES: Final = (
    ALL_LOST, FORGOTTEN, LEFT_OUT, LOSS_PROVED, MADE_WHOLE, PROOF_BEGUN, PROOF_REFUSED, PROVED, RECREATED,
)  # fmt: skip


class PurgeHistory:
    """One history, from an empty cluster to its judgement."""

    def __init__(self, heap: Heap, name: str) -> None:
        self.rng = rng = Random(name)
        self.trace = heap.trace
        conflict = Conflict.LWW if rng.random() < 0.15 else Conflict.SIBLINGS
        self.world = PurgeWorld(
            rng, heap.trace, members=rng.choice((3, 4, 4, 5)), periodic=rng.random() < 0.4, conflict=conflict
        )
        self.oracle = self.world.oracle
        self.traffic = traffic = PurgeTraffic(self.world, rng)
        self.faults = PurgeFaults(self.world, rng)
        deeds = [
            (traffic.write, 10), (traffic.read, 2), (traffic.deliver, 8), (traffic.sync, 2), (traffic.exchange, 3),
            (traffic.hand_over, 2), (traffic.move_hints, 2), (traffic.sweep, 3), (traffic.learn, 2),
            (traffic.proof, 3), *self.faults.draw(),
        ]  # fmt: skip
        self._proving = (traffic.proof, traffic.deliver, traffic.exchange)
        self._eager = (60, 100, 60)
        self._deeds = [deed for deed, _ in deeds]
        self._weights = [weight for _, weight in deeds]
        self.weather = self.world.weather

    def run(self) -> None:
        """Times of trouble, and quiet ones in which something is forgotten, in turn; then the judgement."""
        for _ in range(self.rng.randint(1, TIMES)):
            if self.rng.random() < 0.5:
                self._story()
            else:
                self._trouble(self.rng.randint(5, STEPS))
                self._lull()
        self._trouble(self.rng.randint(5, STEPS))
        self._judge()

    def _trouble(self, steps: int) -> None:
        world = self.world
        world.weather = self.weather
        for deed in self.rng.choices(self._deeds, self._weights, k=steps):
            world.step += 1
            deed()

    def _story(self) -> None:
        """What chance alone would seldom do in this order; anything may come between."""
        traffic, faults, lull, settle = self.traffic, self.faults, self._lull, self._settle
        late, begin, move = traffic.late, traffic.begin, traffic.move_hints
        value, delete = partial(traffic.write, delete=False), partial(traffic.write, delete=True)
        lone, gone = partial(value, cut=True), partial(delete, cut=True)
        quiet, unheard = self._quiet, partial(self._quiet, learn=False)
        stories = (
            (value, settle, faults.back_up_all, delete, settle, lull, faults.restore, lull),
            (value, value, delete, lull, value, late, late, lull, late),
            (value, settle, lone, faults.sync_all, faults.down, lull, faults.come_back, lull),
            (value, settle, gone, faults.sync_all, faults.down, lull, faults.come_back, lull),
            (value, settle, traffic.start_exchanges, begin, gone, quiet, lull),
            (value, settle, delete, begin, quiet, faults.down, faults.come_back, late, lull),
            (value, settle, delete, lull, faults.lose, value, late, settle),
            (value, settle, lull, faults.unreadable, late, delete, lull, late, lull),
            (lone, begin, move, quiet, traffic.hand_over, lull),
            (value, settle, begin, unheard, faults.down, faults.down, faults.come_back, gone, faults.sync_all, lull),
            (value, settle, begin, faults.ring, lone, faults.sync_all, quiet, traffic.hand_over, lull),
        )
        for deed in self.rng.choice(stories):
            self.world.weather = self.rng.choice((0.0, STORM))
            deed()
            self.world.step += 1
            self._trouble(self.rng.choice((0, 0, 0, 1, 3)))

    # -- the end

    def _lull(self) -> None:
        """Hardly anything happens, and a horizon may be proved: then things are forgotten. What is late stays late."""
        world, rng = self.world, self.rng
        world.weather = 0.0
        down = [node for node in world.nodes.values() if not node.up]
        for node in down[rng.random() < 0.3 :]:
            world.start(node)
        self._settle(hints=rng.random() < 0.6)
        self.traffic.begin()
        self._quiet()

    def _quiet(self, *, learn: bool = True) -> None:
        """A proof comes to its end, one way or the other, and most owners hear of it."""
        world, rng = self.world, self.rng
        world.weather = 0.0
        for deed in rng.choices((*self._proving, *self._deeds), (*self._eager, *self._weights), k=LULL):
            world.step += 1
            deed()
            if world.proof is None or world.proof.over:
                break
        for node in world.owners_now() if learn else ():
            if node.up and rng.random() < 0.8:
                node.learn(world.horizon)
                self.traffic.swept(node)

    def _mend(self) -> None:
        """Everybody is up and hears everybody, a horizon is proved, and what is dead is forgotten."""
        world = self.world
        world.weather = 0.0
        for node in world.nodes.values():
            if not node.up:
                world.start(node)
        self._settle()
        self._prove()
        for node in world.owners_now():
            node.learn(world.horizon)
            self.traffic.swept(node)

    def _settle(self, *, hints: bool = True) -> None:
        """Until nothing changes any more."""
        world = self.world
        for _ in range(SETTLED_MAX):
            before = [dict(node.store.data) for node in world.nodes.values()]
            for node in world.nodes.values():
                if node.up:
                    node.learn(world.horizon)
                    self.traffic.swept(node)
            self._drain()
            for node in world.nodes.values() if hints else ():
                self._hand_over_of(node)
            for number in world.leftover:
                for owner in world.owners_now():
                    world.exchange(world.nodes[number], owner)
                    self._drain()
            for a, b in combinations(world.owners_now(), 2):
                world.exchange(a, b)
                self._drain()
            world.change_ring()
            if before == [node.store.data for node in world.nodes.values()]:
                return
        require(False, Invariant.LIVENESS, "a healed cluster does not come to rest")

    def _hand_over_of(self, holder: PurgeNode) -> None:
        if not holder.up:
            return
        for (_, key, target), record in holder.hints():
            owners = self.world.owners_now()
            targets = [node for node in owners if node.id == target] or owners
            left = {node.id for node in targets}
            for node in [node for node in targets if node.up]:
                self.traffic.hint_arrives(holder, node, key, target, record, left)
        self._drain()

    def _drain(self) -> None:
        for node in self.world.nodes.values():
            node.store.sync()
        while self.world.deliver(self.world.mail):
            pass

    def _prove(self) -> None:
        world = self.world
        world.begin_proof(world.nodes[world.owners[0]])
        for _ in range(4):
            self._drain()
            world.advance_proof()
            for a, b in combinations(world.owners_now(), 2):
                world.exchange(a, b)
                self._drain()

    def _judge(self) -> None:
        world, oracle = self.world, self.oracle
        self._mend()
        while world.deliver(world.late):
            pass
        self._mend()
        world.step += 1_000
        self._mend()
        self._settle()
        owners = world.owners_now()
        for key in range(KEYS):
            records = [node.record(key) for node in owners]
            same = all(record == records[0] for record in records)
            require(same, Invariant.REPLICAS_EQUAL, f"replicas of key {key} differ", f"key {key}")
            self.trace.feed(b"end", records[0] or b"")
            visible = oracle.visible(key, records[0], world.now_ms())
            oracle.check_end(key, visible, world.now_ms() << 16)
            require(visible or records[0] is None, Invariant.SPACE_RECLAIMED, "what is dead is still there")
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
