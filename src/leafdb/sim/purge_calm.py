"""Quiet times in the purge model: nobody is in trouble for a while, and something may be proved and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from random import Random
from typing import Final

from leafdb.sim.purge_node import PurgeNode, hint_of
from leafdb.sim.purge_traffic import Offer, PurgeTraffic
from leafdb.sim.purge_world import PurgeWorld
from leafdb.testing.violation import Invariant, require

LULL: Final = 60
SETTLED_MAX: Final = 12

Weighted = tuple[Callable[[], None], int]


class PurgeCalm:
    """`others` is what may come between, seldom."""

    def __init__(self, world: PurgeWorld, traffic: PurgeTraffic, rng: Random, others: list[Weighted]) -> None:
        self.world = world
        self.traffic = traffic
        self.rng = rng
        deeds = [(traffic.proof, 60), (traffic.deliver, 100), (traffic.exchange, 60), *others]
        self._deeds = [deed for deed, _ in deeds]
        self._weights = [weight for _, weight in deeds]

    def lull(self) -> None:
        """Hardly anything happens, and a horizon may be proved: then things are forgotten. What is late stays late."""
        world, rng = self.world, self.rng
        world.weather = 0.0
        down = [node for node in world.nodes.values() if not node.up]
        for node in down[rng.random() < 0.3 :]:
            world.start(node)
        self.settle(hints=rng.random() < 0.6)
        self.traffic.begin()
        self.quiet()

    def quiet(self, *, learn: bool = True, only: bool = False) -> None:
        """A proof comes to its end, one way or the other, and most owners hear of it. `only`: nothing else happens."""
        world, rng = self.world, self.rng
        world.weather = 0.0
        chosen = self._deeds[:3] if only else self._deeds
        for deed in rng.choices(chosen, self._weights[: len(chosen)], k=LULL):
            world.step += 1
            deed()
            if world.proof is None or world.proof.over:
                break
        for node in world.owners_now() if learn else ():
            if node.up and rng.random() < 0.8:
                node.learn(world.horizon)
                self.traffic.swept(node)

    def mend(self) -> None:
        """Everybody is up and hears everybody, a horizon is proved, and what is dead is forgotten."""
        world = self.world
        world.weather = 0.0
        for node in world.nodes.values():
            if not node.up:
                world.start(node)
        self.settle()
        self._prove()
        for node in world.owners_now():
            node.learn(world.horizon)
            self.traffic.swept(node)

    def settle(self, *, hints: bool = True) -> None:
        """Until nothing changes any more."""
        world = self.world
        world.hushed.clear()
        for _ in range(SETTLED_MAX):
            before = [dict(node.store.data) for node in world.nodes.values()]
            for node in world.nodes.values():
                if node.up:
                    node.learn(world.horizon)
                    self.traffic.swept(node)
            self.drain()
            for node in world.nodes.values() if hints else ():
                self._hand_over_of(node)
            for number in world.leftover:
                for owner in world.owners_now():
                    world.exchange(world.nodes[number], owner)
                    self.drain()
            for a, b in combinations(world.owners_now(), 2):
                world.exchange(a, b)
                self.drain()
            world.change_ring()
            if before == [node.store.data for node in world.nodes.values()]:
                return
        require(False, Invariant.LIVENESS, "a healed cluster does not come to rest")

    def drain(self) -> None:
        """All disks have everything, and all mail is read."""
        for node in self.world.nodes.values():
            node.store.sync()
        while self.world.deliver(self.world.mail):
            pass

    def _hand_over_of(self, holder: PurgeNode) -> None:
        if not holder.up:
            return
        for (_, key, target), record in holder.hints():
            owners = self.world.owners_now()
            targets = [node for node in owners if node.id == target] or owners
            offer = Offer(holder, hint_of(key, target), record, {node.id for node in targets})
            for node in [node for node in targets if node.up]:
                self.traffic.hint_arrives(offer, node)
        self.drain()

    def _prove(self) -> None:
        world = self.world
        world.begin_proof(world.nodes[world.owners[0]])
        for _ in range(4):
            self.drain()
            world.advance_proof()
            for a, b in combinations(world.owners_now(), 2):
                world.exchange(a, b)
                self.drain()
