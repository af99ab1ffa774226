"""What can go wrong with a cluster in memory, for tests of programs that use one.

`Faults` is what the fixture `leafdb_faults` hands out. Nodes are named by their numbers, 1 to n; `CLIENTS` stands for
all clients of the test. What was broken stays so until it is taken back by its counterpart, or by `heal`, which mends
everything at once. Nothing here waits but `kill`, `start` and `power_cut`; what follows from a fault shows as time goes
by: three seconds or so until the others have noticed that a node is silent.

    faults.partition([1], [2, 3])         # nobody in one group reaches anybody in another
    faults.delay(1, 2, 0.25)              # what 1 says takes 250 ms to 2
    with faults.paused(3):                # 3 stands still, as in a long garbage collection
        ...
    await faults.kill(2)                  # SIGKILL
    faults.heal()
    await faults.start(2)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from leafdb.testing.cluster import CLIENT_HOST, MemoryCluster, host_of
from leafdb.testing.network import Link
from leafdb.types import NodeId

CLIENTS: Final = 0
"""All clients of the test, where the number of a node is asked for."""


class Faults:
    """See the module."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._network = cluster.network
        self._usual = cluster.network.default_link
        self._links: dict[tuple[str, str], Link] = {}
        self._cuts: dict[tuple[str, str], None] = {}
        self._clogs: dict[tuple[str, str], None] = {}
        self._paused: dict[NodeId, None] = {}

    # -- the network

    def partition(self, *groups: Iterable[int], silently: bool = True) -> None:
        """Nobody in one group reaches anybody in another; who is in no group reaches everybody.

        Packets are lost without a word, as in most real partitions; with `silently=False` connections break at once
        and new ones are refused.
        """
        sides = [tuple(group) for group in groups]
        for at, side in enumerate(sides):
            for other in sides[at + 1 :]:
                for one in side:
                    self.cut(one, *other, silently=silently)

    def cut(self, one: int, *others: int, silently: bool = True) -> None:
        """`one` does not reach the others, nor they it; all others when none is named. `silently` as above."""
        for other in others or self._all_but(one):
            ends = self._host(one), self._host(other)
            self._cuts[ends] = None
            self._network.cut(*ends, silently=silently)

    def cut_one_way(self, source: int, *targets: int) -> None:
        """Nothing that `source` sends reaches the targets; what they send reaches it."""
        for target in targets or self._all_but(source):
            way = self._host(source), self._host(target)
            self._clogs[way] = None
            self._network.clog(*way)

    def delay(self, source: int, target: int, seconds: float, *, jitter: float = 0.0) -> None:
        """What `source` sends takes so long to `target`, up to `jitter` seconds more; 0 takes it back."""
        if seconds < 0 or jitter < 0:
            raise ValueError("a delay is not negative")
        self._link(source, target, Link((seconds, seconds + jitter)) if seconds or jitter else None)

    def throttle(self, source: int, target: int, bytes_per_s: float | None) -> None:
        """Each connection carries only so much from `source` to `target`; None takes it back."""
        if bytes_per_s is not None and bytes_per_s <= 0:
            raise ValueError("a bandwidth is more than nothing; cut_one_way lets nothing through")
        self._link(source, target, None if bytes_per_s is None else Link(bytes_per_s=bytes_per_s, trickle_bytes=1024))

    def drop(self, one: int, other: int) -> None:
        """All connections between the two break now; new ones may be made at once."""
        self._network.reset(self._host(one), self._host(other))

    def heal_network(self) -> None:
        """Everybody reaches everybody, as quickly as in the beginning."""
        for ends in self._cuts:
            self._network.heal(*ends)
        for way in self._clogs:
            self._network.unclog(*way)
        for way in self._links:
            self._network.set_link(*way, self._usual)
        for broken in (self._cuts, self._clogs, self._links):
            broken.clear()

    # -- nodes

    def pause(self, node: int) -> None:
        """The node stands still, as by SIGSTOP: it answers nothing, its connections stay open, time goes on."""
        number = self._running(node)
        self._paused[number] = None
        self._cluster.pause(number)

    def resume(self, node: int) -> None:
        """The node goes on where it was."""
        number = self._number(node)
        self._paused.pop(number, None)
        if number in self._cluster.nodes:
            self._cluster.resume(number)

    @contextmanager
    def paused(self, node: int) -> Iterator[None]:
        """`pause` until the block ends."""
        self.pause(node)
        try:
            yield
        finally:
            self.resume(node)

    async def kill(self, *nodes: int, vanish: bool = False) -> None:
        """SIGKILL: what was written to files stays, nothing else does.

        The others see their connections break; with `vanish` they are told nothing, as when a machine loses power.
        """
        await self._cluster.kill(*map(self._running, nodes), vanish=vanish)

    async def power_cut(self, *nodes: int) -> None:
        """The machines lose their power: what was not synced may be gone, in part or altogether."""
        await self._cluster.power_cut(*map(self._running, nodes), vanish=True)

    async def stop(self, *nodes: int) -> None:
        """A clean end."""
        await self._cluster.stop(*map(self._running, nodes))

    async def start(self, *nodes: int) -> None:
        """Start nodes that do not run, on the disks they left. Returns when they serve."""
        for node in nodes:
            number = self._number(node)
            if number in self._cluster.nodes:
                raise ValueError(f"node {node} runs already")
            await self._cluster.start(number)

    def skew(self, node: int, seconds: float) -> None:
        """From now on the node's wall clock is so much ahead of the true time (behind, when negative): a step, as when
        somebody sets it. Timers and deadlines do not depend on it."""
        self._cluster.skew_ms[self._number(node)] = int(seconds * 1000)

    # -- disks

    def fill_disk(self, node: int) -> None:
        """The node's disk is full: it refuses writes and goes on reading."""
        self._cluster.fill_disk(self._number(node))

    def free_disk(self, node: int) -> None:
        """There is room again."""
        self._cluster.free_disk(self._number(node))

    def slow_disk(self, node: int, seconds: float) -> None:
        """Each call to the node's disk takes so long; 0 takes it back."""
        self._cluster.slow_disk(self._number(node), (lambda: seconds) if seconds else None)

    # -- all

    def heal(self) -> None:
        """Mend everything but nodes that do not run: network, pauses, clocks and disks."""
        self.heal_network()
        for node in list(self._paused):
            self.resume(node)
        for node in self._cluster.disks:
            self._cluster.skew_ms[node] = 0
            self._cluster.free_disk(node)
            self._cluster.slow_disk(node, None)

    # -- names

    def _number(self, node: int) -> NodeId:
        number = NodeId(node)
        if number not in self._cluster.disks:
            raise ValueError(f"there is no node {node}: the cluster has nodes 1 to {len(self._cluster.disks)}")
        return number

    def _running(self, node: int) -> NodeId:
        number = self._number(node)
        if number not in self._cluster.nodes:
            raise ValueError(f"node {node} does not run")
        return number

    def _host(self, node: int) -> str:
        return CLIENT_HOST if node == CLIENTS else host_of(self._number(node))

    def _all_but(self, one: int) -> list[int]:
        return [node for node in (CLIENTS, *self._cluster.disks) if node != one]

    def _link(self, source: int, target: int, link: Link | None) -> None:
        way = self._host(source), self._host(target)
        if link is not None:
            self._links[way] = link
        else:
            self._links.pop(way, None)
        self._network.set_link(*way, link or self._usual)
