"""What every trouble needs: the nodes one may touch, who has a hand on which, what was destroyed since all was well.

Two troubles never work on the life of one node at the same time: whoever kills, pauses or replaces it claims it first.
Their faults overlap freely otherwise.

I7 promises a write to whoever loses fewer than W of its stores. So stores may be destroyed up to W - 1 of them between
two moments at which nobody owed anybody anything (`settled`): `may_destroy` says which are left.

Where the ring changes, machines come and go: one may be lost for good (`lose`), with the member that lived on it, and
one whose member is not of the cluster any more ends by itself and is retired.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Final

import trio

from leafdb.errors import CorruptionError, StorageError, UnknownFormat
from leafdb.node.endings import Expelled
from leafdb.node.node import Node
from leafdb.ring.metadata import ClusterMetadata
from leafdb.sim.plan import Plan
from leafdb.sim.replacement import replace_store
from leafdb.sim.ring_rules import may_be_gone
from leafdb.sim.simulated_cluster import SimulatedCluster, plan_link
from leafdb.sim.trace import Trace
from leafdb.storage.identity import Identity
from leafdb.testing.network import Link
from leafdb.testing.violation import Invariant, Violation, require
from leafdb.types import NodeId
from leafdb.wire.registry import Lane

NODE: Final = contextvars.ContextVar("NODE", default="-")
"""In every task of a node: its name. How the log lines of nodes in one process are told apart."""
STARTS_MAX: Final = 5
KNOWN_S: Final = 300.0


class Stage:
    """The cluster as the nemesis sees it."""

    def __init__(self, cluster: SimulatedCluster, plan: Plan, trace: Trace, rng: Random) -> None:
        self.cluster = cluster
        self.plan = plan
        self.trace = trace
        self.rng = rng
        self.ran: list[Node] = []
        """Every run of a node, in the order of their starts."""
        self.damaged: dict[NodeId, None] = {}
        """Their disks were damaged on purpose: a store that refuses to open there is right."""
        self.identities: dict[NodeId, Identity] = {}
        """Of each node's store, as of its last start."""
        self.had_absence = False
        """A node has been away for long in this run."""
        self.deaths: int = 0
        """How often a node ended otherwise than by being asked to."""
        self.stores_lost: int = 0
        """The most stores that lost something between two moments at which nobody owed anybody anything."""
        self._claims: dict[NodeId, None] = {}
        self._destroying = 0
        self.lost: dict[NodeId, None] = {}
        """Machines that will not come back."""
        self.retired: dict[NodeId, None] = {}
        """Machines whose nodes have ended since the cluster does not have them any more."""
        self.outcasts: dict[NodeId, None] = {}
        """Numbers of members that have ended with the word that they are none any more."""
        self.on_kill: Callable[[Sequence[NodeId]], None] = lambda victims: None
        """Is told who is about to be killed."""
        self.on_replace: Callable[[NodeId], None] = lambda victim: None
        """Is told whose store is gone for good."""
        self.on_start: Callable[[Node], None] = lambda node: None
        """Is told of each node that has been started."""
        self.alone: bool = False
        """One store is dealt with, and no other may forget anything meanwhile."""
        self._destroyed: dict[NodeId, None] = {}

    @property
    def link(self) -> Link | None:
        """What every way between hosts is like when nothing is wrong with it."""
        return plan_link(self.plan)

    # -- whom to touch

    @property
    def all(self) -> list[NodeId]:
        """Every node that runs, or is to."""
        return sorted(node for node in self.cluster.disks if node not in self.lost and node not in self.retired)

    @property
    def down(self) -> list[NodeId]:
        """Nodes that are to run and do not."""
        return [node for node in self.all if node not in self.cluster.nodes]

    @property
    def missing(self) -> list[NodeId]:
        """Lost machines whose members are members still."""
        watch = self.cluster.watch
        members = () if watch.newest is None else watch.newest.members
        return [machine for machine in self.lost if any(watch.machines[member] == machine for member in members)]

    def free(self) -> list[NodeId]:
        """Running nodes that nobody has claimed."""
        running = self.cluster.nodes
        return [node for node in self.all if node in running and node not in self._claims]

    def forsaken(self) -> list[NodeId]:
        """Nodes that ended by themselves."""
        return [node for node in self.down if node not in self._claims]

    @contextmanager
    def claimed(self, *nodes: NodeId) -> Iterator[None]:
        """Nobody else stops or starts these until the block ends."""
        for node in nodes:
            assert node not in self._claims
            self._claims[node] = None
        try:
            yield
        finally:
            for node in nodes:
                del self._claims[node]

    # -- what may be lost

    def may_destroy(self) -> list[NodeId]:
        """Unclaimed running nodes whose store may lose what it holds."""
        full = len(self._destroyed) >= self.plan.bucket.w - 1
        candidates = [node for node in self.free() if node in self._destroyed or not full]
        if self.plan.hunt:  # a control set without a majority of votes raises no horizon any more
            candidates = [node for node in candidates if self.cluster.can_decide(without=node)]
        return candidates

    @contextmanager
    def claimed_to_destroy(self, *, alone: bool = False) -> Iterator[NodeId | None]:
        """Claim a node whose store may be destroyed, and from now on is; None when there is none at present. `alone`:
        while no other is, since a store that is replaced has forgotten whom it has met."""
        candidates = self.may_destroy()
        # The metadata of a new store comes from another node.
        if not candidates or len(self.cluster.nodes) < 2 or self.alone or (alone and self._destroying):
            yield None
            return
        victim = self.rng.choice(candidates)
        self.destroyed(victim)
        self._destroying += 1
        self.alone = alone
        try:
            with self.claimed(victim):
                yield victim
        finally:
            self._destroying -= 1
            self.alone = False

    def destroyed(self, node: NodeId) -> None:
        """The node's store may have lost something."""
        assert node in self._destroyed or len(self._destroyed) < self.plan.bucket.w - 1
        self._destroyed[node] = None
        self.stores_lost = max(self.stores_lost, len(self._destroyed))

    def settled(self) -> None:
        """Nobody owes anybody anything: what was acknowledged is where it belongs, if everybody is there."""
        if not self.missing:
            self._destroyed.clear()

    async def lose(self, node: NodeId) -> None:
        """A machine is gone for good, with its disk."""
        self.destroyed(node)
        self.lost[node] = None
        await self.kill(node)
        self.on_replace(node)

    def expelled(self, node: NodeId, error: Expelled) -> None:
        """A node has ended since the cluster does not have it any more, it says. Raises Violation when it does."""
        watch = self.cluster.watch
        metadata = watch.newest
        numbers = [member for member, machine in watch.machines.items() if machine == node]
        gone = metadata is not None and bool(numbers) and may_be_gone(metadata, numbers[-1])
        require(gone, Invariant.BANS_FINAL, f"n{node} believes that it was removed: {error}")
        self.outcasts[numbers[-1]] = None
        self.tell("stopped", [node])
        self.trace.tell("nemesis", f"n{node} says: {error}")
        self.trace.probe("node_sent_away")
        self.retired[node] = None

    # -- starting and stopping

    async def kill(self, *nodes: NodeId, vanish: bool = False) -> None:
        """SIGKILL to those that run."""
        victims = [node for node in nodes if node in self.cluster.nodes]
        self.deaths += len(victims)
        self.tell("killed", victims)
        self.on_kill(victims)
        with trio.CancelScope(shield=True):
            await self.cluster.kill(*victims, vanish=vanish)

    async def power_cut(self, *nodes: NodeId) -> None:
        """The power of those that run goes."""
        victims = [node for node in nodes if node in self.cluster.nodes]
        self.deaths += len(victims)
        self.tell("killed", victims)
        self.on_kill(victims)
        with trio.CancelScope(shield=True):
            await self.cluster.power_cut(*victims, vanish=self.rng.random() < 0.3)

    async def start_all(self, nodes: Iterable[NodeId]) -> None:
        """Start those that are down, one after the other, whether or not the trouble was called off meanwhile."""
        with trio.CancelScope(shield=True):
            for node in nodes:
                if node not in self.cluster.nodes:
                    await self.start(node)

    def knows(self, node: NodeId, other: NodeId) -> bool:
        """Whether two running nodes have a session in which each has shown the other which run it is."""
        one, two = self.cluster.nodes[node], self.cluster.nodes[other]
        lane = Lane.CONTROL
        if not one.ready or not two.ready:
            return False
        return other in one.peers.connected(lane) and node in two.peers.connected(lane)

    async def start(self, node: NodeId) -> None:
        """Start a node; where its disk keeps it from starting, the disk is mended, or the store replaced. One that is
        told not to be of the cluster any more is not started again."""
        cluster = self.cluster
        for _ in range(STARTS_MAX):
            token = NODE.set(f"n{node}")
            try:
                await cluster.start(node)
                self._runs(node)
                return
            except (CorruptionError, UnknownFormat) as error:
                if isinstance(error.__cause__, OSError):  # the disk failed, which tables call damage, too
                    self.mend_disk(node)
                    continue
                if node not in self.damaged:
                    raise Violation(Invariant.PREFIX_DURABLE, f"n{node} cannot open its store: {error}") from error
                self.trace.probe("damage_found_at_start")
                await self.replace(node)
            except Expelled as error:
                self.expelled(node, error)
                return
            except StorageError as error:
                self._does_not_start(node, error)
            finally:
                NODE.reset(token)
                self.watch_disk(node)
        raise Violation(Invariant.LIVENESS, f"n{node} does not start on a disk that works")

    async def add(self, host: str = "") -> NodeId:
        """Start a blank node on a machine of its own, which is a shard of `host` if one is named. A new disk may fail
        like any other."""
        machine = NodeId(max(self.cluster.disks) + 1)
        token = NODE.set(f"n{machine}")
        with trio.CancelScope(shield=True), self.claimed(machine):
            try:
                assert await self.cluster.add_node(host=host) == machine
            except StorageError as error:
                self._does_not_start(machine, error)
                await self.start(machine)
            else:
                self._runs(machine)
                self.watch_disk(machine)
            finally:
                NODE.reset(token)
        return machine

    def _does_not_start(self, node: NodeId, error: StorageError) -> None:
        self.trace.tell("nemesis", f"n{node} does not start: {error}")
        self.trace.probe("start_failed")
        self.mend_disk(node)

    def _runs(self, node: NodeId) -> None:
        started = self.cluster.nodes[node]
        self.ran.append(started)
        self.identities[node] = started.engine.identity
        self.on_start(started)
        self.tell("started", [node])

    def check_end(self, node: NodeId) -> None:
        """A node that ended by itself has met a failing disk, or damage that was done on purpose, or is no member."""
        failure = self.cluster.processes[node].failure
        if isinstance(failure, Expelled):
            self.expelled(node, failure)
            return
        self.deaths += 1
        if isinstance(failure, CorruptionError) and node not in self.damaged and failure.__cause__ is None:
            raise Violation(Invariant.CORRUPTION_DETECTED, f"n{node} found damage where there is none: {failure}")

    async def replace(self, node: NodeId) -> None:
        """The operator gives a node that is down a new disk; it begins as a new incarnation that holds nothing."""
        asked_at = trio.current_time()
        while (metadata := self._known_metadata()) is None:
            await trio.sleep(0.1)
            late = trio.current_time() > asked_at + KNOWN_S  # nobody is down for ever; no deadline here, see `shield`
            require(not late, Invariant.LIVENESS, f"nobody has known the cluster's metadata for {KNOWN_S} s")
        self.damaged.pop(node, None)
        self.trace.fault("store_replaced", f"n{node}")
        self.on_replace(node)
        replace_store(self.cluster, node, self.identities[node], metadata, self.rng)

    def _known_metadata(self) -> ClusterMetadata | None:
        nodes = (self.cluster.nodes[node] for node in sorted(self.cluster.nodes))
        known = [node.view.metadata for node in nodes if node.ready and node.view.metadata is not None]
        return max(known, key=lambda metadata: metadata.epoch, default=None)

    def tell(self, what: str, nodes: Sequence[NodeId]) -> None:
        """A line of the story for each of the nodes."""
        for node in nodes:
            self.trace.tell("nemesis", f"{what} n{node}")

    def mend_disk(self, node: NodeId) -> None:
        """No fault is left on a disk, and there is room on it."""
        self.cluster.free_disk(node)
        self.cluster.disks[node].faults.clear()

    def watch_disk(self, node: NodeId) -> None:
        """Every call to the node's disk goes into the trace."""
        trace, name = self.trace, f"n{node} "

        def called(kind: str, path: str) -> None:
            trace.feed(b"disk", f"{name}{kind} {path}".encode())

        self.cluster.disks[node].on_call = called
