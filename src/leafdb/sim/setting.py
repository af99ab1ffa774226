"""What the clients of one run share: the cluster, the bucket, the record of what they were told, the budget.

Texts told to the trace are made of what is the same in every run of a seed: numbers of writes, counts, names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import CausalClock
from leafdb.model.key import encode_key
from leafdb.ring.token import TOKEN_BYTES, storage_key
from leafdb.sim.copies import Copies
from leafdb.sim.plan import Plan, Trouble
from leafdb.sim.ring_watch import RingWatch
from leafdb.sim.trace import Trace
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.cluster_process import Process
from leafdb.testing.history import History
from leafdb.testing.linearizability import Recording
from leafdb.testing.session_guarantees import Event
from leafdb.types import Conflict, Key, NodeId

BUCKET: Final = "data"
GAP_S: Final = (0.15, 0.4)
"""Bounds of the mean time a client rests between operations, drawn for each run."""
CLOCK_GRACE_MS: Final = 200


@dataclass(slots=True)
class Setting:
    """Made by `open`."""

    cluster: MemoryCluster
    plan: Plan
    trace: Trace
    bucket: BucketProperties
    history: History
    copies: Copies
    sessions: list[Event] = field(default_factory=list)
    """For the checker of session guarantees."""
    local: dict[tuple[NodeId, str], CausalClock] = field(default_factory=dict)
    """What each node has shown of its own store."""
    names: Recording = field(default_factory=Recording)
    """Buckets created and dropped, by name, for the linearizability checker."""
    ring: RingWatch | None = None
    """The history of the ring, where somebody watches it."""
    left: int = 0
    """Client operations that may still be begun."""
    moment: int = 0
    _met: dict[NodeId, Process] = field(default_factory=dict)
    """The run of each node that clients have been told of."""

    @classmethod
    async def open(cls, cluster: MemoryCluster, plan: Plan, trace: Trace) -> Setting:
        """Create the bucket of the plan in a founded cluster in which everybody is well."""
        wanted = plan.bucket
        bucket = await cluster.create_bucket(
            BUCKET,
            n=wanted.n,
            r=wanted.r,
            w=wanted.w,
            sloppy=wanted.sloppy,
            conflict=wanted.conflict,
            durability=wanted.durability,
            ttl_ms=wanted.ttl_ms,
        )
        history = History(wanted.n, conflict=wanted.conflict, ttl_ms=wanted.ttl_ms)
        history.token = lambda key: storage_key(bucket.id, encoded(key))[:TOKEN_BYTES]
        history.stores_lost = wanted.w - 1 if plan.destructive else 0
        if not plan.kinds & {Trouble.CLOCK_JUMP, Trouble.CLOCK_DRIFT}:
            history.expiry_slack_ms = 2 * plan.skew_ms + CLOCK_GRACE_MS
        return cls(cluster, plan, trace, bucket, history, Copies(cluster, bucket.id, bucket.n, plan.partitions))

    def watched(self, ring: RingWatch) -> None:
        """From now on what clients are told is held against the history of the ring."""
        self.ring = ring
        ring.setting = self

    @property
    def nodes(self) -> list[NodeId]:
        """The machines of all members, running or not."""
        metadata = None if self.ring is None else self.ring.newest
        if self.ring is None or metadata is None or self.plan.rings is None:
            return sorted(self.cluster.disks)
        return sorted({self.ring.machines[member] for member in metadata.members})

    def machine(self, member: NodeId) -> NodeId:
        """Where a member lives."""
        return member if self.ring is None else self.ring.machines[member]

    def stored_keys(self) -> Iterator[tuple[str, bytes]]:
        """Every key of the history, with the key it is stored under."""
        for key in self.history.keys:
            yield key, self.stored_key(key)

    def stored_key(self, key: str) -> bytes:
        """What a key is stored under."""
        return storage_key(self.bucket.id, encoded(key))

    @property
    def lww(self) -> bool:
        """Whether the newest write wins."""
        return self.bucket.conflict is Conflict.LWW

    def take(self) -> bool:
        """Begin one more client operation; False: the run's are used up."""
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def tick(self) -> int:
        """The number of this moment: events at one virtual instant still have an order."""
        self.moment += 1
        return self.moment

    def sure_primaries(self, r: int, pr: int, sloppy: bool | None) -> int:
        """How many primaries a read surely hears. A stand-in's copy may count to r, never to pr."""
        bucket = self.bucket
        strict = sloppy is False or (sloppy is None and not bucket.sloppy)
        nobody_else = self.plan.rings is None and len(self.cluster.disks) == bucket.n
        return (r or bucket.r) if strict or nobody_else else pr or bucket.pr

    def revived(self, rng: Random) -> NodeId | None:
        """A node that runs and was started since this was last asked; None when there is none."""
        fresh = []
        for node in self.nodes:
            process = self.cluster.processes.get(node)
            if node in self.cluster.nodes and process is not self._met.get(node):
                if node in self._met:
                    fresh.append(node)
                if process is not None:
                    self._met[node] = process
        return rng.choice(fresh) if fresh else None


class Workload(Protocol):
    """A generator of client operations. Those of fewer operations are the beginning of those of more."""

    name: str

    async def run(self, operations: int) -> None:
        """Perform exactly so many client operations, by clients side by side, then return."""


def key_of(name: str) -> Key:
    """A key by the name it has in histories: `part/row` is a pair."""
    part, slash, row = name.partition("/")
    return (part, row) if slash else name


def name_of(key: bytes | tuple[bytes, bytes]) -> str:
    """The name of a key that a scan showed."""
    return key.decode() if isinstance(key, bytes) else "/".join(part.decode() for part in key)


def encoded(name: str) -> bytes:
    """The key of this name as it goes over the wire."""
    return encode_key(key_of(name))


def dots_text(values: Iterable[bytes]) -> str:
    """Written values for people: the numbers of their writes."""
    return " ".join(value.rstrip(b".").decode() for value in values) or "nothing"
