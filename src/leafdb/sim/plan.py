"""What the world of one seed is like: drawn once, before anything runs, and readable by a person.

Swarm testing: a run in which everything goes wrong all the time meets shallow states only, since no fault is ever the
only one. So each seed draws a handful of kinds of trouble, how often they come and how long they last, and leaves the
others out; and it draws constants so small that limits are met within a thousand operations.

Some trouble destroys what a store held: a wiped or rotten disk, one from yesterday, a power cut where buckets sync
later. What was acknowledged by two stores survives it at one of them (I7), so the nemesis has to count; which kinds
those are depends on the durability and stands here (`destroys`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Final

from leafdb.limits import KIB, MIB
from leafdb.sim.ring_plan import RING_N, RingPlan, log_uniform
from leafdb.types import Conflict, Durability

QUIET_CHANCE: Final = 0.04
"""Of a seed without any trouble."""
CLONE_CHANCE: Final = 0.06
"""Of a seed in which disks are cloned, beside its other troubles."""
CROWD_CHANCE: Final = 0.05
"""Of a seed whose clients nearly all write to one key without looking, so that it meets the limit of siblings."""
SESSION_CHANCE: Final = 0.4
SESSIONS: Final = 3
DOUBT_CHANCE: Final = 0.5
"""Of a seed in which hash trees are built anew while clients write (`doubted_trees.py`), if it is no hunt and the ring
stays: a node that doubts a tree vouches for nothing there until it has compared, which holds up others."""
RING_CHANCE: Final = 0.15
"""Of a seed in which the ring changes, too; there is a tier where it does in every seed."""
KINDS_MAX: Final = 7
PURGE_CHANCE: Final = 0.65
"""Of a seed in which what was deleted is forgotten soon; else it is not in the time that a run lasts."""
PURGE_INTERVAL_S: Final = (1.0, 15.0)
NEVER_PURGED_S: Final = 1_000_000.0
FLUSHED_CHANCE: Final = 0.5
"""Of a seed whose nodes read what was flushed last from memory."""
WINDOWS_CHANCE: Final = 0.5
WINDOWS_TTL_MS: Final = 1_000
WINDOWS_PURGE_INTERVAL_S: Final = 1.5
WINDOWS_MEMTABLE_BYTES: Final = 4 * KIB
HUNT_CHANCE: Final = 0.5
"""Of such a seed that is made for values that come back: clients delete and write anew, and whoever is away stays away
for long, or comes back with less than it had."""
HUNT_PACE: Final = 3.0
"""There a key has to rest for a while."""
HINTS_BYTES_TINY: Final = 1
LATE_CHANCE: Final = 0.75
"""Of such a seed in which single messages come very late, and proofs are hurried on meanwhile (`late.py`)."""
HUNTERS: Final = ("long_absence", "vanish", "power_cut", "wiped_store", "partition", "kill")


class Trouble(StrEnum):
    """A kind of fault. The value is its name in stories and counts."""

    SLOW_LINK = "slow_link"
    TRICKLE = "trickle"
    CLOG = "clog"
    RESET = "reset"
    PARTITION = "partition"
    ONE_WAY = "one_way_partition"
    BRIDGE = "bridge"
    FLAP = "flapping_link"
    SWIZZLE = "swizzle_clog"
    CLIENT_CUT = "client_cut_off"
    KILL = "kill"
    ABSENCE = "long_absence"
    KILL_ALL = "kill_all"
    VANISH = "vanish"
    RESTART = "clean_restart"
    PAUSE = "pause"
    POWER_CUT = "power_cut"
    POWER_CUT_ALL = "power_cut_of_all"
    SYNC_ERROR = "sync_error"
    DISK_ERROR = "disk_error"
    SHORT_WRITE = "short_write"
    DISK_FULL = "full_disk"
    SLOW_DISK = "slow_disk"
    ROT = "bit_rot"
    LOST_WRITE = "lost_write"
    MISDIRECTED_WRITE = "misdirected_write"
    WIPE = "wiped_store"
    ROLLBACK = "rolled_back_disk"
    CLONE = "cloned_disk"
    CLOCK_JUMP = "clock_jump"
    CLOCK_DRIFT = "clock_drift"


ROT_WEIGHT: Final = 6.0
"""Twice that of the weightiest other trouble, where rot is what a seed is made for."""
DESTROYERS: Final = (Trouble.ROT, Trouble.LOST_WRITE, Trouble.MISDIRECTED_WRITE, Trouble.WIPE, Trouble.ROLLBACK)
"""What was acknowledged may be gone from the store they hit, in a bucket of any durability."""
NOT_WITH_RINGS: Final = (*DESTROYERS, Trouble.CLONE, Trouble.ABSENCE)
"""Where the ring changes, an operator who loses a disk does what one does in life: another machine takes the member's
place, or none (`ring_operator`). These go another way, or take too long."""


class Shape(StrEnum):
    """Which of the two workloads."""

    MODEL = "model"
    PROGRAM = "program"


@dataclass(frozen=True, slots=True)
class BucketPlan:
    """The properties of the bucket the clients use."""

    n: int
    r: int
    w: int
    sloppy: bool
    conflict: Conflict
    durability: Durability
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Plan:
    """See the top of this file."""

    seed: int
    nodes: int
    troubles: tuple[tuple[Trouble, float], ...]
    """Each kind with its weight among the others."""
    gap_s: float
    """Between one trouble and the next, in the mean."""
    lasting_s: float
    """How long one lasts, in the mean."""
    calm_every_s: float
    """So often, in the mean, everything is mended and left alone for a while."""
    calm_s: float
    bucket: BucketPlan
    shape: Shape
    latency_s: tuple[float, float]
    """Of every link."""
    disk_latency_s: float
    """Of every write and read of a disk, in the mean; now and then one takes a hundred times as long."""
    partitions: int
    memtable_bytes: int
    block_cache_bytes: int
    wal_sync_interval_s: float
    hints_bytes_max: int
    hint_age_max_s: float
    cold: bool
    """Nothing is ever in the page cache."""
    skew_ms: int
    """Wall clocks are wrong by up to so much from the start."""
    crowded: bool = False
    """Clients write to one key without looking."""
    sessions: int = 0
    """So many clients go from node to node with a token."""
    kinds: frozenset[Trouble] = field(default=frozenset(), repr=False)
    rings: RingPlan | None = None
    """Changes of the ring, if it changes."""
    purge_interval_s: float = NEVER_PURGED_S
    """So often do nodes try to prove that what died may be forgotten."""
    hunt: bool = False
    """Clients delete much, and write anew what was deleted."""
    late: bool = False
    """Single messages come when a horizon has passed over them."""
    doubts: bool = False
    """Nodes doubt hash trees that are right, and build them anew while clients write."""
    flushed_in_memory: bool = False
    """What was flushed last is read from memory; without it reads meet tables."""

    @classmethod
    def draw(cls, seed: int, nodes: int) -> Plan:
        """The plan of this seed; the same for the same arguments, everywhere."""
        rng = Random(f"{seed}/plan")
        bucket = _draw_bucket(rng, nodes)
        troubles = _draw_troubles(rng, bucket)
        return (
            cls(
                seed=seed,
                nodes=nodes,
                troubles=troubles,
                gap_s=log_uniform(rng, 0.1, 2.0),
                lasting_s=log_uniform(rng, 0.2, 6.0),
                calm_every_s=log_uniform(rng, 5.0, 30.0),
                calm_s=log_uniform(rng, 0.5, 4.0),
                bucket=bucket,
                shape=rng.choice(tuple(Shape)),
                latency_s=rng.choice(((0.0, 0.0), (0.0001, 0.001), (0.001, 0.005), (0.0005, 0.05))),
                disk_latency_s=rng.choice((0.0002, 0.001, 0.002, 0.01)),
                partitions=rng.choice((8, 16, 32)),
                memtable_bytes=rng.choice((4 * KIB, 8 * KIB, 32 * KIB, 1 * MIB)),
                block_cache_bytes=rng.choice((0, 16 * KIB, 1 * MIB)),
                wal_sync_interval_s=rng.choice((0.01, 0.1, 0.5)),
                hints_bytes_max=rng.choice((1 * KIB, 8 * KIB, 1 * MIB, 64 * MIB)),
                hint_age_max_s=rng.choice((1.0, 5.0, 3_600.0, 3_600.0)),
                cold=rng.random() < 0.3,
                skew_ms=rng.choice((0, 0, 50, 1_000, 20_000)),
                kinds=frozenset(kind for kind, _ in troubles),
            )
            .with_clones(rng)
            .with_crowd(rng)
            .with_sessions_perhaps()
            .with_rings_perhaps()
            .with_purges_perhaps()
            .with_doubts_perhaps()
            .with_windows_perhaps()
            .with_flushed_perhaps()
        )

    def with_clones(self, rng: Random) -> Plan:
        """Now and then: with disks that are cloned. Drawn late, and added to whatever there is."""
        if rng.random() >= CLONE_CHANCE or self.bucket.w < 2:
            return self
        troubles = (*self.troubles, (Trouble.CLONE, log_uniform(rng, 0.3, 3.0)))
        return replace(self, troubles=troubles, kinds=self.kinds | {Trouble.CLONE})

    def with_crowd(self, rng: Random) -> Plan:
        """Now and then: with clients who write to one key and never look."""
        siblings = self.bucket.conflict is Conflict.SIBLINGS
        crowded = rng.random() < CROWD_CHANCE and siblings
        return replace(self, crowded=True, shape=Shape.PROGRAM) if crowded else self

    def with_sessions_perhaps(self) -> Plan:
        """Now and then: with sessions."""
        chosen = Random(f"{self.seed}/session chance").random() < SESSION_CHANCE
        return replace(self, sessions=SESSIONS) if chosen else self

    def with_doubts_perhaps(self) -> Plan:
        """Now and then: with hash trees that are doubted."""
        possible = self.rings is None and not self.hunt
        return replace(self, doubts=possible and Random(f"{self.seed}/doubt chance").random() < DOUBT_CHANCE)

    def with_purges_perhaps(self) -> Plan:
        """Mostly: with tombstones that are forgotten soon; and often with all that may bring back what they deleted."""
        rng = Random(f"{self.seed}/purge chance")
        if rng.random() >= PURGE_CHANCE:
            return self
        purged = replace(self, purge_interval_s=log_uniform(rng, *PURGE_INTERVAL_S))
        return purged.with_hunt(rng) if rng.random() < HUNT_CHANCE else purged

    def with_windows_perhaps(self) -> Plan:
        """Now and then, where values may expire and be forgotten: with so much of that that whole tables go."""
        possible = self.bucket.ttl_ms and self.purge_interval_s < NEVER_PURGED_S and not self.hunt
        chosen = Random(f"{self.seed}/window chance").random() < WINDOWS_CHANCE
        return self.with_windows() if possible and chosen else self

    def with_flushed_perhaps(self) -> Plan:
        """As often as not: with reads that need no table for a while."""
        return replace(self, flushed_in_memory=Random(f"{self.seed}/flushed chance").random() < FLUSHED_CHANCE)

    def with_windows(self) -> Plan:
        """With values that expire soon, small tables, and horizons that rise often."""
        bucket = replace(self.bucket, ttl_ms=WINDOWS_TTL_MS)
        purged = replace(self, bucket=bucket, purge_interval_s=min(self.purge_interval_s, WINDOWS_PURGE_INTERVAL_S))
        return replace(purged, memtable_bytes=min(self.memtable_bytes, WINDOWS_MEMTABLE_BYTES))

    def with_hunt(self, rng: Random) -> Plan:
        """The same seed, made for values that come back. A store that may be destroyed in it is destroyed one way."""
        possible = {kind for kind in _possible(self.bucket) if self.rings is None or kind not in NOT_WITH_RINGS}
        wanted = [Trouble(kind) for kind in rng.sample(HUNTERS, rng.randint(1, 3)) if Trouble(kind) in possible]
        if self.kinds & set(DESTROYERS):
            wanted = [kind for kind in wanted if kind not in DESTROYERS]
        troubles = self.troubles + tuple(
            (kind, log_uniform(rng, 0.5, 3.0)) for kind in wanted if kind not in self.kinds
        )
        return replace(
            self,
            hunt=True,
            doubts=False,
            troubles=troubles,
            kinds=frozenset(kind for kind, _ in troubles),
            lasting_s=max(self.lasting_s, rng.uniform(2.0, 10.0)),
            calm_every_s=min(self.calm_every_s, rng.uniform(3.0, 10.0)),
            calm_s=max(self.calm_s, rng.uniform(1.0, 5.0)),
            purge_interval_s=min(self.purge_interval_s, log_uniform(rng, 1.0, 4.0)),
        ).with_late_perhaps()

    def with_late_perhaps(self) -> Plan:
        """Mostly: with messages that come late."""
        return self.with_late() if Random(f"{self.seed}/late chance").random() < LATE_CHANCE else self

    def with_late(self) -> Plan:
        """With messages that come late; often with hints that overflow at once, so that comparing alone brings owners
        what they have missed."""
        chosen = Random(f"{self.seed}/late hints").choice((self.hints_bytes_max, HINTS_BYTES_TINY))
        return replace(self, late=True, hints_bytes_max=chosen)

    def hunted(self) -> Plan:
        """The same seed, made for values that come back, if it is not already; there is a tier where each is."""
        hunt = self if self.hunt else self.with_hunt(Random(f"{self.seed}/hunt"))
        return hunt if hunt.late else hunt.with_late()

    def rotting(self) -> Plan:
        """The same seed, in which little of a store stays in memory, and what is on disk rots more than anything else
        breaks. The ring stays, and no store is destroyed otherwise."""
        others = tuple((kind, weight) for kind, weight in self.troubles if kind not in DESTROYERS)
        return replace(
            self,
            troubles=(*others, (Trouble.ROT, ROT_WEIGHT)),
            kinds=frozenset((*(kind for kind, _ in others), Trouble.ROT)),
            memtable_bytes=min(self.memtable_bytes, 8 * KIB),
            flushed_in_memory=False,
            rings=None,
        )

    @property
    def forgets(self) -> bool:
        """Whether anything is forgotten in the time that a run lasts."""
        return self.purge_interval_s < NEVER_PURGED_S

    def with_rings_perhaps(self) -> Plan:
        """Now and then: with a ring that changes."""
        chosen = self.nodes >= RING_N and Random(f"{self.seed}/ring chance").random() < RING_CHANCE
        return self.with_rings() if chosen else self

    def with_rings(self) -> Plan:
        """The same seed, with a ring that changes."""
        if self.rings is not None:
            return self
        rings = RingPlan.draw(self.seed, self.nodes)
        troubles = tuple((kind, weight) for kind, weight in self.troubles if kind not in NOT_WITH_RINGS)
        bucket = replace(self.bucket, n=RING_N, r=RING_N // 2 + 1, w=RING_N // 2 + 1)
        if rings.losses:  # one kind of loss at a time
            bucket = replace(bucket, durability=Durability.ALWAYS)
        return replace(
            self,
            bucket=bucket,
            troubles=troubles,
            kinds=frozenset(kind for kind, _ in troubles),
            partitions=min(self.partitions, 16),
            crowded=False,
            doubts=False,
            rings=rings,
        )

    @property
    def founders(self) -> int:
        """Nodes at the beginning."""
        return self.nodes if self.rings is None else self.rings.founders

    @property
    def pace(self) -> float:
        """So many times longer than usual do clients rest."""
        ring = 1.0 if self.rings is None else self.rings.pace
        return max(ring, HUNT_PACE) if self.hunt else ring

    def destroys(self, kind: Trouble) -> bool:
        """Whether this trouble may take acknowledged writes from the store it hits."""
        return kind in DESTROYERS or (kind is Trouble.POWER_CUT and self.destroys_by_power_cut)

    @property
    def destroys_by_power_cut(self) -> bool:
        """Whether a power cut may take acknowledged writes."""
        return self.bucket.durability is Durability.PERIODIC

    @property
    def destructive(self) -> bool:
        """Whether anything in this run destroys stores."""
        lost = self.rings is not None and self.rings.losses
        return lost or any(self.destroys(kind) for kind, _ in self.troubles)

    def describe(self) -> str:
        """In words, on one line."""
        bucket = self.bucket
        troubles = ", ".join(f"{kind} {weight:.1f}" for kind, weight in self.troubles) or "none"
        rings = "" if self.rings is None else f"the ring changes: {self.rings.describe()}; "
        purges = (
            f"horizons every {self.purge_interval_s:.2f} s{', zombies hunted' * self.hunt}{', some late' * self.late}; "
            * self.forgets
        )
        return (
            f"{self.nodes} nodes, {self.partitions} partitions; bucket n={bucket.n} r={bucket.r} w={bucket.w} "
            f"{'sloppy' if bucket.sloppy else 'strict'} {bucket.conflict.name.lower()} "
            f"{bucket.durability.name.lower()} ttl {bucket.ttl_ms} ms; "
            f"{'crowded ' * self.crowded}{self.shape} workload; {'sessions; ' * bool(self.sessions)}"
            f"{'trees doubted; ' * self.doubts}{'flushed ones read from memory; ' * self.flushed_in_memory}"
            f"memtable {self.memtable_bytes} bytes, hints {self.hints_bytes_max} bytes for {self.hint_age_max_s:g} s, "
            f"{'cold' if self.cold else 'warm'} cache, disk {self.disk_latency_s * 1000:g} ms, "
            f"link {self.latency_s[0] * 1000:g} to {self.latency_s[1] * 1000:g} ms, skew {self.skew_ms} ms; "
            f"{purges}{rings}troubles every {self.gap_s:.2f} s for {self.lasting_s:.2f} s: {troubles}"
        )


def _draw_bucket(rng: Random, nodes: int) -> BucketPlan:
    n = min(nodes, 3 if rng.random() < 0.85 else 5)
    quorum = n // 2 + 1
    return BucketPlan(
        n=n,
        r=quorum,
        w=quorum,
        sloppy=rng.random() < 0.7,
        conflict=Conflict.LWW if rng.random() < 0.2 else Conflict.SIBLINGS,
        durability=rng.choice((Durability.ALWAYS, Durability.PERIODIC)),
        ttl_ms=rng.choice((0, 0, 0, 2_000, 30_000)),
    )


def _draw_troubles(rng: Random, bucket: BucketPlan) -> tuple[tuple[Trouble, float], ...]:
    possible = list(_possible(bucket))
    if rng.random() < QUIET_CHANCE:
        return ()
    # The rare and terrible kinds get a chance of their own, or seeds without any would be the exception.
    chosen = rng.sample(possible, min(len(possible), rng.randint(1, KINDS_MAX)))
    destroyers = [kind for kind in chosen if kind in DESTROYERS]
    if len(destroyers) > 1:
        kept = rng.choice(destroyers)
        chosen = [kind for kind in chosen if kind is kept or kind not in DESTROYERS]
    order = list(Trouble)
    return tuple((kind, log_uniform(rng, 0.3, 3.0)) for kind in sorted(chosen, key=order.index))


def _possible(bucket: BucketPlan) -> Iterable[Trouble]:
    for kind in Trouble:
        if kind is Trouble.POWER_CUT_ALL and bucket.durability is not Durability.ALWAYS:
            continue
        if kind is Trouble.CLONE or (kind in DESTROYERS and bucket.w < 2):
            continue
        yield kind
