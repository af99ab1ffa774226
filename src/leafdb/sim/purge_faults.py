"""What befalls the nodes of the purge model, and the ring changes that go on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from leafdb.sim.purge_node import DOUBT, PurgeNode, record_of
from leafdb.sim.purge_world import KEYS, SKEWS_MS, PurgeWorld

Deed = tuple[Callable[[], None], int]


class PurgeFaults:
    """The nemesis of one history; the classes that are on are drawn."""

    def __init__(self, world: PurgeWorld, rng: Random) -> None:
        self.world = world
        self.rng = rng

    def draw(self) -> list[Deed]:
        """Nodes always come back; each kind of trouble is there or not."""
        kinds: tuple[Deed, ...] = (
            (self.down, 6), (self._power, 4), (self.wipe, 2), (self.restore, 4), (self.unreadable, 4),
            (self.lose, 4), (self.ring, 4), (self._clock, 3),
        )  # fmt: skip
        return [(self._return, 6), (self._back_up, 3), *(kind for kind in kinds if self.rng.random() < 0.3)]

    def _victim(self) -> PurgeNode | None:
        node = self.rng.choice(list(self.world.nodes.values()))
        return node if node.up else None

    def down(self, node: PurgeNode | None = None) -> None:
        """A kill: what was not synced may be gone, and nobody counts on it; `periodic` data is with the kernel."""
        node = node or self._victim()
        if node is not None:
            node.up = False
            if not self.world.periodic:
                node.store.lose_tail(self.rng)

    def cut(self, node: PurgeNode) -> None:
        """Its power fails: the end of the log is gone, and with `periodic` buckets something acknowledged may be."""
        if self.world.periodic:
            self._forget(node, lambda: node.store.lose_tail(self.rng))
        else:
            self.down(node)

    def _power(self) -> None:
        for node in self.world.nodes.values() if self.rng.random() < 0.3 else [self._victim()]:
            if node is not None and node.up and self.world.periodic:
                self.cut(node)

    def wipe(self, node: PurgeNode | None = None) -> None:
        """Its disk is another, empty one."""
        victim = node or self._victim()
        if victim is not None:
            self._forget(victim, lambda: victim.replace({}, 0))

    def restore(self, node: PurgeNode | None = None) -> None:
        """Its disk is an old copy."""
        victim = node or self._victim()
        if victim is not None:
            self._forget(victim, lambda: victim.replace(*victim.backup))

    def _clock(self) -> None:
        """A wall clock is set, to another wrong time."""
        self.rng.choice(list(self.world.nodes.values())).skew_ms = self.rng.choice(SKEWS_MS)

    def _forget(self, node: PurgeNode, how: Callable[[], None]) -> None:
        """It comes back as another incarnation, and knows that it may lack something."""
        world = self.world
        before = world.held()
        how()
        node.up = False
        node.incarnation += 1
        node.store.write(DOUBT, 1)
        node.store.sync()
        world.oracle.lost(before & ~world.held())

    def unreadable(self, node: PurgeNode | None = None, key: int | None = None) -> None:
        """A table that cannot be read, found at a start or by a scrub: the store knows."""
        node = node or self._victim()
        key = self.rng.randrange(KEYS) if key is None else key
        if node is None or node.record(key) is None:
            return
        older = self.rng.random() < 0.5
        node.store.sync()

        def damage() -> None:
            (node.store.go_back if older else node.store.lose)(record_of(key))
            node.doubt(vouches=False)

        self._forget(node, damage)

    def doubt(self, node: PurgeNode) -> None:
        """It vouches for nothing any more: what it has below the horizon may be what was forgotten by right."""
        before = self.world.held()
        node.doubt(vouches=False)
        node.store.sync()
        self.world.oracle.lost(before & ~self.world.held())

    def lose(self, node: PurgeNode | None = None, key: int | None = None) -> None:
        """A write that did not reach the disk: nobody knows."""
        world = self.world
        node = node or self._victim()
        if node is not None:
            key = self.rng.randrange(KEYS) if key is None else key
            node.store.sync()
            world.oracle.unsure(key, node.record(key))
            before = world.held()
            node.store.lose(record_of(key))
            world.oracle.lost(before & ~world.held())

    def _return(self) -> None:
        down = [node for node in self.world.nodes.values() if not node.up]
        if down:
            self.world.start(self.rng.choice(down))

    def _back_up(self) -> None:
        node = self.rng.choice(list(self.world.nodes.values()))
        node.backup = dict(node.store.synced), node.ceiling

    def back_up_all(self) -> None:
        """Everybody's disk is copied."""
        for node in self.world.nodes.values():
            node.backup = dict(node.store.synced), node.ceiling

    def sync_all(self) -> None:
        """Everybody's disk has everything."""
        for node in self.world.nodes.values():
            node.store.sync()

    def come_back(self) -> None:
        """Everybody is up."""
        for node in self.world.nodes.values():
            if not node.up:
                self.world.start(node)

    def ring(self) -> None:
        """Somebody comes, or somebody's place is to be another's."""
        self.world.change_ring(begin=True)
