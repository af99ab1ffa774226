"""The history of the ring as the stores of all nodes were told it, judged from outside (I18, I19, I21, I22).

Every node writes the metadata it believes in to its store, and every such write passes by here. So the versions of all
nodes can be compared byte by byte, each with the one before it (`ring_rules`), and at the moment a plan takes a step
what everybody holds can be held against what clients were told:

- **a plan begins, or reads move** (I21): those who will be asked from now on have every acknowledged write of the range
  that readers were promised to find, so many of them as acknowledged it;
- **a member has left** (I11): it keeps no hint;
- **a write is acknowledged, a read shows something** (I19): so many of each set of owners, of some version that was in
  force meanwhile, have it.

A version is one node's belief; the newest is what the ring is. Problems are kept, and raised by `check`, outside nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from leafdb.node.node import Node
from leafdb.node.register import META_TREE, METADATA_KEY
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.ring.plan import Phase, Plan
from leafdb.ring.ring import Ring
from leafdb.ring.token import split_storage_key
from leafdb.ring.transitions import awaited
from leafdb.sim.ring_rules import Problem, lasting_problems, phase_of, step_problems
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.violation import Invariant, violated
from leafdb.types import NodeId, TreeId

if TYPE_CHECKING:
    from leafdb.sim.setting import Setting

Version = tuple[int, int]
"""(generation, epoch)."""

AWAITED: Final = (
    (Phase.WRITE_BOTH_READ_OLD, Phase.WRITE_BOTH_READ_NEW),
    (Phase.WRITE_BOTH_READ_NEW, None),
    (Phase.RETREAT, None),
)
"""Steps that are taken when those concerned have heard of the one before."""


class Step(NamedTuple):
    """A plan was begun, moved on, or is over."""

    before: ClusterMetadata
    after: ClusterMetadata

    @property
    def plan(self) -> Plan:
        """The plan that it is about."""
        plan = self.after.plan or self.before.plan
        assert plan is not None
        return plan

    @property
    def finished(self) -> bool:
        """Whether the plan is done."""
        return self.after.plan is None and phase_of(self.before) is Phase.WRITE_BOTH_READ_NEW

    @property
    def given_up(self) -> bool:
        """Whether the plan is over, and came to nothing."""
        return self.after.plan is None and not self.finished


class RingWatch:
    """Of one cluster, from before it is founded. `setting` is given to it when there are clients."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.setting: Setting | None = None
        self.steps: list[Step] = []
        """Of all plans, in order."""
        self.on_step: Callable[[Step], None] = lambda step: None
        """Is told of each, at the moment at which the first node has written it down."""
        self.control_changes: int = 0
        self.excused: set[NodeId] = set()
        """Members that are gone for good, and of which an operator has said so."""
        self.machines: dict[NodeId, NodeId] = {}
        """By the number of everybody who was ever a member: the machine it lives on."""
        self.names: dict[str, set[NodeId]] = {}
        """By name: the numbers of everybody who was ever a member."""
        self._bytes: dict[bytes, ClusterMetadata] = {}
        self._versions: dict[Version, ClusterMetadata] = {}
        self._rings: dict[Version, Ring] = {}
        self._believed: dict[NodeId, tuple[Node, Version]] = {}
        """By machine: the run that wrote last, and what."""
        self._before: dict[NodeId, Version] = {}
        """By machine: what it wrote before that."""
        self._newest: Version = (0, 0)
        self._problem: Problem | None = None
        cluster.observe_writes(self._written)

    # -- what the ring is

    @property
    def newest(self) -> ClusterMetadata | None:
        """The newest version that anybody believes in; None before the cluster is founded."""
        return self._versions.get(self._newest)

    @property
    def ring(self) -> Ring:
        """Its ring."""
        return self._rings[self._newest]

    def ring_of(self, metadata: ClusterMetadata) -> Ring:
        """The ring of a version that somebody believes in."""
        return self._rings[metadata.generation, metadata.epoch]

    def last_belief(self, machine: NodeId) -> ClusterMetadata | None:
        """The metadata in the store of a machine, as they were written last; None when there are none."""
        believed = self._believed.get(machine)
        return None if believed is None else self._versions.get(believed[1])

    def floor(self) -> int:
        """The oldest epoch that a member believes in, or will when it has started: who is down, or has not read its
        store yet, may have lost what it wrote last."""
        running = self._cluster.nodes.items()
        epochs = {machine: node.view.epoch for machine, node in running if node.view.metadata is not None}
        metadata = self.newest
        for member in () if metadata is None else metadata.members:
            machine = self.machines[member]
            if machine not in epochs and machine in self._before:
                epochs[machine] = self._before[machine][1]
        return min(epochs.values(), default=0)

    def horizon(self, partition: int) -> int:
        """The newest horizon of a partition that anybody believes in; 0: none."""
        metadata = self.newest
        return metadata.horizons[partition].stamp if metadata is not None and metadata.horizons else 0

    def heard_horizon(self, partition: int) -> int:
        """The newest that every member's store has been told of, be it running or not."""
        metadata = self.newest
        if metadata is None or not metadata.horizons:
            return 0
        least = metadata.horizons[partition].stamp
        for member in metadata.members:
            belief = self.last_belief(self.machines[member])
            if belief is None or not belief.horizons:
                return 0
            least = min(least, belief.horizons[partition].stamp)
        return least

    def plans_between(self, first: int, last: int) -> Iterator[bytes]:
        """The ids of all plans that were in progress in these epochs."""
        for version, metadata in self._versions.items():
            if first <= version[1] <= last and metadata.plan is not None:
                yield metadata.plan.id

    # -- what stores are told

    def _written(self, machine: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        if tree != META_TREE or key != METADATA_KEY or value is None:
            return
        told = len(self.steps)
        metadata = self._bytes.get(value)
        if metadata is None:
            metadata = self._bytes[value] = decode(value)
            self._met(metadata)
        version = (metadata.generation, metadata.epoch)
        node = self._cluster.processes[machine].node
        before = self._believed.get(machine)
        if before is not None and before[0] is node and version < before[1]:
            self._found(Invariant.ONE_HISTORY, f"n{machine} goes back from version {before[1]} to {version}")
        if before is not None and before[1] != version:
            self._before[machine] = before[1]
        self._believed[machine] = node, version
        for step in self.steps[told:]:
            self.on_step(step)

    def _met(self, metadata: ClusterMetadata) -> None:
        """A version that nobody had before, or other bytes of one that somebody had."""
        version = (metadata.generation, metadata.epoch)
        if version in self._versions:
            self._found(Invariant.ONE_HISTORY, f"two nodes mean different things by version {version}")
            return
        self._versions[version] = metadata
        self._rings[version] = Ring(metadata)
        for number, member in metadata.members.items():
            self.machines.setdefault(number, machine_at(member.peer_address))
            self.names.setdefault(member.name, set()).add(number)
        before = self._versions.get((metadata.generation, metadata.epoch - 1))
        after = self._versions.get((metadata.generation, metadata.epoch + 1))
        for one, other in ((before, metadata), (metadata, after)):
            if one is not None and other is not None:
                for problem in step_problems(one, other):
                    self._found(*problem)
                self._stepped(one, other)
        self._newest = max(self._newest, version)

    def _stepped(self, before: ClusterMetadata, after: ClusterMetadata) -> None:
        self.control_changes += before.control != after.control
        if phase_of(before) is phase_of(after):
            return
        step = Step(before, after)
        self.steps.append(step)
        if step.given_up:
            committed_on = self._versions.get((before.generation, step.plan.epoch - 1))
            for problem in () if committed_on is None else lasting_problems(committed_on, after):
                self._found(*problem)
        if step.finished and self.setting is not None:
            for member in step.plan.leaving:
                if hints := self.setting.copies.hints_on(self.machines[member]):
                    self._found(Invariant.HINTS_CONSERVED, f"n{member} has left for good, and kept {hints} hints")
        if (phase_of(before), phase_of(after)) in AWAITED:
            self._check_heard(before)
        if not step.given_up:
            self._check_there(before, after)

    # -- at a step

    def _check_heard(self, before: ClusterMetadata) -> None:
        """Nobody moves on before those who are awaited have come as far."""
        late = [
            node for node in sorted(awaited(before) - self.excused) if not self._has_heard(self.machines[node], before)
        ]
        if late:
            what = f"epoch {before.epoch + 1} came before {_names(late)} had heard of the one before"
            self._found(Invariant.QUORUMS_MEET, what)

    def _has_heard(self, machine: NodeId, metadata: ClusterMetadata) -> bool:
        """Whether a machine was told of the phase that the plan is in, be it in an earlier epoch of the same phase."""
        belief = self.last_belief(machine)
        if belief is None or belief.epoch >= metadata.epoch:
            return belief is not None
        return belief.plan == metadata.plan

    def _check_there(self, before: ClusterMetadata, after: ClusterMetadata) -> None:
        """Those who are read from now on have what readers were promised; at a commit they are those of before."""
        setting = self.setting
        if setting is None:
            return
        n = setting.bucket.n
        ring, old = self._rings[after.generation, after.epoch], self._rings[before.generation, before.epoch]
        for key, stored in setting.stored_keys():
            partition = ring.partition_of(split_storage_key(stored)[0])
            if not (ring if before.plan is None else old).is_changing(partition, n):
                continue
            owners = ring.primaries(partition, n)
            for write in setting.history.of_key(key).acked:
                if write.primaries <= setting.history.stores_lost:
                    continue
                having = [node for node in owners if any(setting.copies.has(node, stored, dot) for dot in write.dots)]
                if len(having) < min(write.primaries, len(owners)):
                    text = (
                        f"epoch {after.epoch} reads {_names(owners)}; of these {_names(having)} have {write.text} of "
                        f"{key}, which {write.primaries} owners had acknowledged"
                    )
                    self._found(Invariant.NOTHING_LEFT_BEHIND, text)

    # -- at an answer

    def check_counts(
        self, stored: bytes, holders: Mapping[NodeId, set[NodeId]], wanted: int, since: int, text: str, key: str
    ) -> None:
        """What a client was told rests on so many of each set of owners, in some version from the epoch `since` on.
        `holders` have it, each for itself and for others."""
        setting = self.setting
        assert setting is not None
        told = ""
        for version, ring in self._rings.items():
            if version[1] < since:
                continue
            partition = ring.partition_of(split_storage_key(stored)[0])
            sets = ring.write_sets(partition, setting.bucket.n)
            counts = [sum(bool(each & set(owners)) for each in holders.values()) for owners in sets]
            if all(count >= min(wanted, len(owners)) for count, owners in zip(counts, sets, strict=True)):
                return
            told = f"of {' and of '.join(map(_names, sets))} in epoch {version[1]} {counts} have it"
        violated(Invariant.QUORUMS_MEET, f"{text}; {told}", key)

    # -- problems

    def _found(self, invariant: Invariant, text: str) -> None:
        if self._problem is None:
            self._problem = invariant, text

    def check(self) -> None:
        """Raise Violation for the first thing that was wrong."""
        if self._problem is not None:
            violated(*self._problem)


def machine_at(peer_address: str) -> NodeId:
    """The machine with this address (`host_of`)."""
    host, _, _ = peer_address.rpartition(":")
    return NodeId(int(host.rpartition("-")[2]))


def _names(nodes: list[NodeId] | tuple[NodeId, ...]) -> str:
    return " ".join(f"n{node}" for node in nodes) or "nobody"
