"""What befalls the nodes of the purge model, and the ring changes that go on meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from leafdb.sim.purge_node import DOUBT, PurgeNode, record_of
from leafdb.sim.purge_world import KEYS, PurgeWorld

Deed = tuple[Callable[[], None], int]


class PurgeFaults:
    """The nemesis of one history; the classes that are on are drawn."""

    def __init__(self, world: PurgeWorld, rng: Random) -> None:
        self.world = world
        self.rng = rng

    def draw(self) -> list[Deed]:
        """Nodes always come back; each kind of trouble is there or not."""
        kinds: tuple[Deed, ...] = (
            (self.down, 6), (self._power, 4), (self._wipe, 2), (self.restore, 4), (self.unreadable, 4),
            (self.lose, 4), (self.ring, 4),
        )  # fmt: skip
        return [(self._return, 6), (self._back_up, 3), *(kind for kind in kinds if self.rng.random() < 0.3)]

    def _victim(self) -> PurgeNode | None:
        node = self.rng.choice(list(self.world.nodes.values()))
        return node if node.up else None

    def down(self) -> None:
        """A kill: what was not synced may be gone, and nobody counts on it; `periodic` data is with the kernel."""
        node = self._victim()
        if node is not None:
            node.up = False
            if not self.world.periodic:
                node.store.lose_tail(self.rng)

    def _power(self) -> None:
        """The end of the log is gone: with `periodic` buckets something acknowledged may be."""
        if not self.world.periodic:
            return
        for node in self.world.nodes.values() if self.rng.random() < 0.3 else [self._victim()]:
            if node is not None and node.up:
                self._forget(node, lambda node=node: node.store.lose_tail(self.rng))  # type: ignore[misc]

    def _wipe(self) -> None:
        node = self._victim()
        if node is not None:
            self._forget(node, lambda: node.replace({}, 0))

    def restore(self) -> None:
        node = self._victim()
        if node is not None:
            self._forget(node, lambda: node.replace(*node.backup))

    def _forget(self, node: PurgeNode, how: Callable[[], None]) -> None:
        """It comes back as another incarnation, and knows that it may lack something."""
        world = self.world
        before = world.held()
        how()
        world.oracle.faulty = True
        node.up = False
        node.incarnation += 1
        node.store.write(DOUBT, 1)
        node.store.sync()
        world.oracle.lost(before, world.held())

    def unreadable(self) -> None:
        """A table that cannot be read, found at a start or by a scrub: the store knows."""
        node = self._victim()
        if node is not None and node.record(key := self.rng.randrange(KEYS)) is not None:
            self._touch(node, key, known=True)

    def lose(self) -> None:
        """A write that did not reach the disk: nobody knows."""
        node = self._victim()
        if node is not None:
            self._touch(node, self.rng.randrange(KEYS))

    def _touch(self, node: PurgeNode, key: int, *, known: bool = False) -> None:
        world = self.world
        before = world.held()
        node.store.lose(record_of(key))
        if known:
            node.doubt(vouches=False)
            node.store.sync()
        world.oracle.faulty = True
        world.oracle.lost(before, world.held())

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
