"""How good the failure detector is: how soon a crash is known to all, and how often a living node is called dead.

    crashes    a node dies, everybody who runs and does not stall finds out, it returns under its next boot number, and
               the next one dies; between them the cluster comes to rest
    watch      nobody dies; whoever is believed dead nevertheless is counted

A death is *false* unless its victim stood still for all but `GRACE_S` of the last so many seconds, the least that a
suspicion lasts: whoever is silent for that long is dead for all that anybody can know, and whoever wakes needs a moment
to hear the accusation and be heard. Every observer's verdict counts, of those that stall as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random
from typing import Final

from leafdb.membership.config import MembershipConfig, profile_for
from leafdb.sim.membership_field import Field, Opinion
from leafdb.types import Liveness, NodeId

GRACE_S: Final = 1.0
REST_S: Final = 20.0
STEP_S: Final = 0.05
MISSED_S: Final = 180.0
"""A crash that is not known by then is counted as not found."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    nodes: int = 50
    loss: float = 0.0
    stalled: int = 0
    seed: int = 1
    config: MembershipConfig | None = None
    """The profile for so many nodes, unless said."""

    @property
    def profile(self) -> MembershipConfig:
        """The settings of the detectors."""
        return self.config or profile_for(self.nodes)


@dataclass(frozen=True, slots=True)
class Detection:
    """Seconds from one crash until: somebody suspects, somebody believes it dead, everybody does."""

    suspected_s: float
    dead_s: float
    known_s: float


@dataclass(slots=True)
class Watched:
    """What happened while nobody died."""

    node_hours: float = 0.0
    sent: int = 0
    suspicions: int = 0
    """Beliefs that began, each observer by itself, of nodes that do not stall."""
    suspicions_of_stalled: int = 0
    deserved: int = 0
    """Verdicts on nodes that stood still."""
    false: list[Opinion] = field(default_factory=list)


@dataclass(slots=True)
class _Crash:
    """Who found out when, of one crash."""

    victim: NodeId
    at: float
    suspected_s: float = MISSED_S
    dead_s: float = MISSED_S
    known: dict[NodeId, float] = field(default_factory=dict)

    def hear(self, opinion: Opinion) -> None:
        after = opinion.when - self.at
        if opinion.about != self.victim:
            return
        self.known.pop(opinion.observer, None)
        if opinion.liveness is Liveness.SUSPECT:
            self.suspected_s = min(self.suspected_s, after)
        elif opinion.liveness is Liveness.DEAD:
            self.dead_s = min(self.dead_s, after)
            self.known[opinion.observer] = after


def crashes(setting: Setting, count: int) -> list[Detection]:
    """So many crashes, one after another. Nodes that stall neither die nor are waited for."""
    world = _field(setting, "crashes")
    rng = Random(f"{setting.seed}/victims")
    steady = [node for node in world.ids if node not in world.stalling]
    found = []
    for _ in range(count):
        world.run(REST_S + rng.random() * setting.profile.probe_interval_s)
        victim = world.stations[rng.choice(steady)]
        crash = _Crash(victim.id, world.now)
        world.opinion = crash.hear
        world.crash(victim)
        while not (crash.known.keys() >= set(steady) - {victim.id}) and world.now < crash.at + MISSED_S:
            world.run(STEP_S)
        missed = world.now >= crash.at + MISSED_S
        known_s = MISSED_S if missed else max(crash.known[node] for node in steady if node != victim.id)
        found.append(Detection(crash.suspected_s, crash.dead_s, known_s))
        world.start(victim)
    return found


def watch(setting: Setting, node_hours: float) -> Watched:
    """So many hours of so many nodes, in which nobody dies."""
    world = _field(setting, "watch")
    least, _ = setting.profile.suspicion_s(setting.nodes)
    result = Watched()

    def hear(opinion: Opinion) -> None:
        victim = world.stations[opinion.about]
        if opinion.liveness is Liveness.SUSPECT:
            if opinion.about in world.stalling:
                result.suspicions_of_stalled += 1
            else:
                result.suspicions += 1
        elif opinion.liveness is Liveness.DEAD:
            if world.awake_s(victim, least) < GRACE_S:
                result.deserved += 1
            else:
                result.false.append(opinion)

    world.opinion = hear
    world.run(node_hours * 3600.0 / setting.nodes)
    result.node_hours = node_hours
    result.sent = world.sent
    return result


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that this share of all does not exceed."""
    assert values
    assert 0 < share <= 1
    return sorted(values)[ceil(share * len(values)) - 1]


def _field(setting: Setting, what: str) -> Field:
    return Field(f"{setting.seed}/{what}", setting.nodes, setting.profile, loss=setting.loss, stalled=setting.stalled)
