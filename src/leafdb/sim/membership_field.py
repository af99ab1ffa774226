"""Failure detectors of a large cluster for a long time: the lean world in which the detector is measured.

`membership_world` watches each step and is made to find bugs; this one only carries messages and lets time pass, some
twenty times cheaper, so that days of a cluster fit into minutes. No sessions: without their head start detection is
slower, so the figures err on the safe side.

*Loss* is of single messages, each on its own. Real nodes talk over streams, which lose nothing but time: what a stream
repeats for a second is to a probe with half a second's patience the same as lost, and all that is harsher here is that
the retry does not arrive later either.

*Standing still*: a node processes nothing for a while, again and again (Lifeguard's scenario: short of CPU, paused,
swapped). Mail waits for it. When it runs again its timers come first, which is the order that misjudges, then the mail.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import exp, inf, log
from random import Random
from typing import Final

from leafdb.membership.config import MembershipConfig
from leafdb.membership.effects import Effect, MemberChanged, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.messages import AnyMessage
from leafdb.types import Liveness, NodeId

DELAY_S: Final = (0.0002, 0.01)
STILL_S: Final = (0.1, 30.0)
"""How long a node stands still: log-uniform, so as often 0.1 to 0.3 s as 10 to 30 s."""
AWAKE_S: Final = (0.1, 10.0)
"""How long it runs in between, the same way."""
STALLS_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Opinion:
    """At `when`, `observer` began to believe `about` to be `liveness`."""

    when: float
    observer: NodeId
    about: NodeId
    liveness: Liveness


class Station:
    """One node of the field."""

    __slots__ = ("awake_at", "boots", "detector", "id", "inbox", "life", "stalls", "up", "wake_at")

    def __init__(self, node: NodeId) -> None:
        self.id: NodeId = node
        self.up: bool = True
        self.life: int = 0
        self.boots: int = 0
        self.detector: FailureDetector
        self.wake_at: float = inf
        self.awake_at: float = -inf
        """The end of the last time it stood still."""
        self.stalls: deque[tuple[float, float]] = deque(maxlen=STALLS_KEPT)
        self.inbox: list[tuple[NodeId, AnyMessage]] = []


class Field:
    """All nodes, the network between them, and time, which passes in `run`. `opinion` hears every change of mind."""

    def __init__(self, name: str, count: int, config: MembershipConfig, *, loss: float, stalled: int) -> None:
        assert 0 <= stalled <= count
        self.name = name
        self.config = config
        self.now: float = 0.0
        self.sent: int = 0
        self.ids: list[NodeId] = [NodeId(number) for number in range(1, count + 1)]
        self.stations: dict[NodeId, Station] = {node: Station(node) for node in self.ids}
        self.stalling: frozenset[NodeId] = frozenset(self.ids[:stalled])
        self.opinion: Callable[[Opinion], None] = lambda opinion: None
        self._loss = loss
        self._network = Random(f"{name}/net")
        self._stalls = Random(f"{name}/stalls")
        self._events: list[tuple[float, int, Callable[[Station, object], None], Station, object]] = []
        self._count = 0
        for station in self.stations.values():
            self.start(station)
        for node in sorted(self.stalling):
            self._push(_log_uniform(self._stalls, AWAKE_S), self._fall, self.stations[node], None)

    def start(self, station: Station) -> None:
        """A new life, with the next boot number and nothing remembered."""
        station.boots += 1
        station.life += 1
        station.up = True
        rng = Random(f"{self.name}/{station.id}/{station.boots}")
        station.detector = FailureDetector(self.config, station.id, boot=station.boots, now=self.now, rng=rng)
        station.wake_at = inf
        self._perform(station, station.detector.set_members(self.ids, self.now))

    def crash(self, station: Station) -> None:
        """Gone, with what it had not read."""
        station.up = False
        station.inbox.clear()

    def awake_s(self, station: Station, lately_s: float) -> float:
        """How much of the last so many seconds it was not standing still."""
        since = self.now - lately_s
        return lately_s - sum(max(0.0, min(end, self.now) - max(start, since)) for start, end in station.stalls)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        events, pop = self._events, heapq.heappop
        while events and events[0][0] <= until:
            self.now, _, action, station, what = pop(events)
            action(station, what)
        self.now = until

    # -- events

    def _push(self, after: float, action: Callable[[Station, object], None], station: Station, what: object) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + after, self._count, action, station, what))

    def _perform(self, station: Station, effects: Iterable[Effect]) -> None:
        rng, loss, (low, high) = self._network.random, self._loss, DELAY_S
        for effect in effects:
            if type(effect) is Send:
                self.sent += 1
                if rng() >= loss:
                    mail = station.id, effect.message
                    self._count += 1
                    when = self.now + low + (high - low) * rng()
                    heapq.heappush(self._events, (when, self._count, self._deliver, self.stations[effect.to], mail))
            elif type(effect) is MemberChanged:
                self.opinion(Opinion(self.now, station.id, effect.node, effect.liveness))
        deadline = station.detector.deadline()
        if deadline < station.wake_at:
            station.wake_at = deadline
            self._push(deadline - self.now, self._timer, station, station.life)

    def _deliver(self, station: Station, what: object) -> None:
        assert isinstance(what, tuple)
        if not station.up:
            return
        if self.now < station.awake_at:
            station.inbox.append(what)
            return
        self._perform(station, station.detector.on_message(what[0], what[1], self.now))

    def _timer(self, station: Station, what: object) -> None:
        if not station.up or what != station.life or station.wake_at > self.now or self.now < station.awake_at:
            return  # of an earlier life, or overtaken; or it stands still, and `_wake` sees to it
        station.wake_at = inf
        due = station.detector.deadline() <= self.now
        self._perform(station, station.detector.on_time(self.now) if due else ())

    def _fall(self, station: Station, what: object) -> None:
        seconds = _log_uniform(self._stalls, STILL_S)
        station.awake_at = self.now + seconds
        station.stalls.append((self.now, station.awake_at))
        self._push(seconds, self._wake, station, None)

    def _wake(self, station: Station, what: object) -> None:
        self._push(_log_uniform(self._stalls, AWAKE_S), self._fall, station, None)
        if station.up:
            if station.wake_at <= self.now:
                self._timer(station, station.life)
            inbox, station.inbox = station.inbox, []
            for mail in inbox:
                self._deliver(station, mail)


def _log_uniform(rng: Random, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return exp(log(low) + (log(high) - log(low)) * rng.random())
