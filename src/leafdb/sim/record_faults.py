"""What befalls the nodes of a history: kills, power cuts, wiped and restored disks, single records lost, partitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from leafdb.sim.heap import Heap, Nemesis, Network, draw_some
from leafdb.sim.record_oracle import bits
from leafdb.sim.record_world import Node

EVERY_S: Final = 0.08
DOWN_S: Final = 0.2
DOT_LOST: Final = "a dot left and its record was lost"


class Faults:
    """The nemesis of one history: the classes that are on are drawn."""

    def __init__(self, heap: Heap, net: Network, nodes: Sequence[Node], primaries: int, rng: Random) -> None:
        self.heap = heap
        self.net = net
        self.nodes = nodes
        self.primaries: Sequence[Node] = nodes[:primaries]
        self.evil = rng
        deeds: tuple[tuple[str, Callable[[], str | None]], ...] = (
            ("kill", partial(self._crash, power=False)),
            ("power cut", partial(self._crash, power=True)),
            ("clean restart", partial(self._down, Node.stop, clean=True)),
            ("wipe", partial(self._down, Node.wipe, clean=False)),
            ("restore", partial(self._down, Node.restore, clean=False)),
            ("unreadable record", self._quarantine),
            ("partition", self._partition),
            ("stall", self._stall),
        )
        self._nemesis = Nemesis(heap, rng, draw_some(rng, deeds), every_s=EVERY_S)

    def stop(self) -> None:
        """No more of it; who is down stays down."""
        self._nemesis.stop()

    def _victim(self) -> Node | None:
        node = self.evil.choice(self.nodes)
        return node if node.host.up else None

    def _later(self, node: Node, *, clean: bool) -> None:
        self.heap.at(self.heap.now + self.evil.random() * DOWN_S, partial(self._start, node, clean=clean))

    def _start(self, node: Node, *, clean: bool) -> None:
        if not node.host.up:
            node.boot(clean=clean)
            self.heap.trace.tell(node.host.name, "started")

    def _crash(self, *, power: bool) -> str | None:
        node = self._victim()
        if node is None:
            return None
        before = self._known(node)
        node.crash(power=power)
        lost = before & ~self._known(node)
        elsewhere = 0
        for other in self.nodes:
            if other is not node and lost:
                elsewhere |= self._known(other)
        mine = [number for number in bits(lost & elsewhere) if node.oracle.minted_by(number) == node.id]
        self.heap.trace.probe(DOT_LOST, bool(mine))
        self._later(node, clean=False)
        return node.host.name

    def _down(self, how: Callable[[Node], None], *, clean: bool) -> str | None:
        node = self._victim()
        if node is None:
            return None
        how(node)
        self._later(node, clean=clean)
        return node.host.name

    def _quarantine(self) -> str | None:
        node = self._victim()
        if node is None:
            return None
        places = [node.own, *(node.hint_place(primary.id) for primary in self.primaries)]
        place = self.evil.choice(places) if self.evil.random() < 0.3 else node.own
        return node.host.name if node.quarantine(place) else None

    def _partition(self) -> str | None:
        hosts = [node.host for node in self.nodes]
        self.evil.shuffle(hosts)
        size = self.evil.randint(1, len(hosts) - 1) if len(hosts) > 1 else 0
        one_way = self.evil.random() < 0.4
        self.net.split(hosts[:size], hosts[size:], one_way=one_way)
        self.heap.at(self.heap.now + self.evil.random() * 0.3, self.net.heal)
        return f"{'/'.join(sorted(host.name for host in hosts[:size]))}{' one way' if one_way else ''}"

    def _stall(self) -> str | None:
        node = self._victim()
        if node is None:
            return None
        node.host.stall(self.evil.random() * 0.3)
        return node.host.name

    def _known(self, node: Node) -> int:
        known = node.oracle.of(node.record()).known
        for primary in self.primaries:
            known |= node.oracle.of(node.hint(primary.id)).known
        return known
