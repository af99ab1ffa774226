"""The pure tier's world: one heap of (time, action), hosts that crash and stall, a network that loses and reorders.

Protocol machines are stepped here without a loop, a stream or a disk: an event costs some ten microseconds, so a run
sees more of the rare orders in a second than whole nodes do in minutes. Harsher than the real transport on purpose:
messages are datagrams, each may be lost, doubled or late on its own.

    Heap      what happens when; at equal times in the order it was asked for
    Host      one node: its lives and its stalls. A timer belongs to the life that set it, mail to whoever is up.
              Who wakes from a stall runs the timers that came due before it reads what came: the order that misjudges
    Network   loss, doubling, stragglers, one-way cuts
    Nemesis   does something bad now and then

Everything is drawn from streams of their own (`Random(f"{seed}/what")`), so that one more draw here changes nothing
there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from leafdb.sim.outcome import Broken, Outcome, Tier
from leafdb.sim.trace import Trace
from leafdb.testing.violation import Invariant, Violation

Action = Callable[[], None]


class Heap:
    """The clock and the order of everything. `operations` counts what the runner was asked to do."""

    def __init__(self, *, keep: bool = False) -> None:
        self.now: float = 0.0
        self.trace: Trace = Trace(lambda: self.now, keep=keep)
        self.events: int = 0
        self.operations = 0
        self._entries: list[tuple[float, int, Host | None, int, bytes | None, Action]] = []
        self._count = 0

    def at(self, when: float, action: Action) -> None:
        """Do it then, whoever is up."""
        self.push(when, None, 0, None, action)

    def push(self, when: float, host: Host | None, life: int, mail: bytes | None, action: Action) -> None:
        """An entry of `host`, bound to one `life` of it (0: to any). `mail` is what the message says, for the trace."""
        self._count += 1
        heapq.heappush(self._entries, (when, self._count, host, life, mail, action))

    def step(self) -> bool:
        """Do the next thing; False when there is none."""
        if not self._entries:
            return False
        when, _, host, life, mail, action = heapq.heappop(self._entries)
        self.now = max(self.now, when)
        if host is not None and not host.ready(life, mail, action):
            return True
        self.events += 1
        if mail is not None and host is not None:
            self.trace.feed(host.label, mail)
        action()
        return True

    def run(self, until: float = inf) -> None:
        """Do everything that is due by then, and let the clock come to it; by default all there is."""
        while self._entries and self._entries[0][0] <= until:
            self.step()
        if until < inf:
            self.now = max(self.now, until)

    def clear(self) -> None:
        """Forget what was going to happen: the next history begins."""
        self._entries.clear()


class Host:
    """One node as the heap sees it. The runner hangs its machines on it."""

    __slots__ = ("_heap", "_mail", "_stalled_until", "_timers", "label", "life", "name", "up")

    def __init__(self, heap: Heap, name: str) -> None:
        self._heap = heap
        self.name: str = name
        self.label: bytes = name.encode()
        self.life: int = 1
        self.up: bool = True
        self._stalled_until = 0.0
        self._timers: list[Action] = []
        self._mail: list[tuple[bytes, Action]] = []

    def at(self, when: float, action: Action) -> None:
        """A timer of this life: after a crash nothing comes of it."""
        self._heap.push(when, self, self.life, None, action)

    @property
    def stalled(self) -> bool:
        """Whether it stands still: nothing it was to do is done, and nothing is lost."""
        return self._heap.now < self._stalled_until

    def stall(self, seconds: float) -> None:
        """Stand still for so long, or longer if it does already."""
        self._stalled_until = max(self._stalled_until, self._heap.now + seconds)
        self._heap.at(self._stalled_until, self._wake)

    def crash(self) -> None:
        """Gone, with its timers and what it had not read."""
        self.life += 1
        self.up = False
        self._stalled_until = 0.0
        self._timers.clear()
        self._mail.clear()

    def start(self) -> None:
        """Up again."""
        self.up = True

    def ready(self, life: int, mail: bytes | None, action: Action) -> bool:
        """Whether the entry is to be done now; what a stall delays is kept."""
        if not self.up or (life and life != self.life):
            return False
        if not self.stalled:
            return True
        if mail is None:
            self._timers.append(action)
        else:
            self._mail.append((mail, action))
        return False

    def _wake(self) -> None:
        if self.stalled:
            return
        timers, self._timers = self._timers, []
        mail, self._mail = self._mail, []
        life = self.life
        for action in timers:
            if self.life == life:
                action()
        for data, action in mail:
            if self.life == life:
                self._heap.trace.feed(self.label, data)
                action()


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to each message on its own."""

    loss: float = 0.0
    doubling: float = 0.0
    straggling: float = 0.0
    """How many take up to `straggle_s` in place of `delay_s`, and are overtaken."""
    delay_s: tuple[float, float] = (0.0002, 0.01)
    straggle_s: float = 1.0

    @classmethod
    def draw(cls, rng: Random) -> Weather:
        """Each kind of trouble by itself: absent, some, much."""
        return cls(rng.choice((0.0, 0.05, 0.25)), rng.choice((0.0, 0.1, 0.4)), rng.choice((0.0, 0.05, 0.3)))


CALM = Weather()


class Network:
    """Carries actions from host to host; what is cut is lost, in that direction."""

    def __init__(self, heap: Heap, rng: Random, weather: Weather = CALM) -> None:
        self._heap = heap
        self._rng = rng
        self.weather = weather
        self._cuts: set[tuple[str, str]] = set()

    def send(self, source: Host, target: Host, mail: bytes, action: Action) -> None:
        """`action` runs at `target` when the message arrives, if it does."""
        weather, rng, trace = self.weather, self._rng, self._heap.trace
        if self._cuts and (source.name, target.name) in self._cuts:
            trace.faults["message cut off"] += 1
            return
        copies = 1
        if weather.doubling and rng.random() < weather.doubling:
            copies = 2
            trace.faults["message doubled"] += 1
        for _ in range(copies):
            if weather.loss and rng.random() < weather.loss:
                trace.faults["message lost"] += 1
                continue
            low, high = weather.delay_s
            if weather.straggling and rng.random() < weather.straggling:
                high = weather.straggle_s
                trace.faults["message late"] += 1
            self._heap.push(self._heap.now + low + (high - low) * rng.random(), target, 0, mail, action)

    def cut(self, source: Host, target: Host) -> None:
        """Lose everything in this direction."""
        self._cuts.add((source.name, target.name))

    def reaches(self, source: Host, target: Host) -> bool:
        """Whether this direction is not cut."""
        return (source.name, target.name) not in self._cuts

    def split(self, group: Sequence[Host], others: Sequence[Host], *, one_way: bool = False) -> None:
        """Cut between two groups; one way: the others no longer hear the group."""
        for a in group:
            for b in others:
                self.cut(a, b)
                if not one_way:
                    self.cut(b, a)

    def heal(self) -> None:
        """No cuts. The weather stays."""
        self._cuts.clear()


class Nemesis:
    """Does one of its deeds every so often, on average `every_s` apart, until stopped. A deed returns what it did, or
    None when there was nothing to do it to."""

    def __init__(
        self, heap: Heap, rng: Random, deeds: Sequence[tuple[str, Callable[[], str | None]]], every_s: float
    ) -> None:
        self._heap = heap
        self._rng = rng
        self._deeds = deeds
        self._every_s = every_s
        self._stopped = not deeds
        self._again()

    def stop(self) -> None:
        """No more."""
        self._stopped = True

    def _again(self) -> None:
        if not self._stopped:
            self._heap.at(self._heap.now + self._rng.expovariate(1.0 / self._every_s), self._act)

    def _act(self) -> None:
        if self._stopped:
            return
        name, deed = self._rng.choice(self._deeds)
        text = deed()
        if text is not None:
            self._heap.trace.fault(name, text)
        self._again()


def draw_some(
    rng: Random, deeds: Iterable[tuple[str, Callable[[], str | None]]]
) -> list[tuple[str, Callable[[], str | None]]]:
    """Each with an even chance: a run with everything on never goes deep into anything."""
    return [deed for deed in deeds if rng.random() < 0.5]


def outcome(tier: Tier, seed: int, nodes: int, heap: Heap, probes: Iterable[str], body: Action) -> Outcome:
    """Run `body` in `heap`; whatever goes wrong in it becomes the outcome's `broken`."""
    broken: Broken | None = None
    try:
        body()
    except Violation as violation:
        broken = Broken(violation.invariant.value, violation.message, violation.key)
    except AssertionError as error:
        broken = Broken(Invariant.SELF_CHECK.value, f"an assertion failed: {error}")
    except Exception as error:  # a machine raised what it must not: that is the finding
        broken = Broken(Invariant.SELF_CHECK.value, f"{type(error).__name__}: {error}")
    trace = heap.trace
    if broken is not None:
        trace.tell("checker", f"{broken.invariant}: {broken.message}", broken.key)
    return Outcome(
        tier=tier,
        seed=seed,
        nodes=nodes,
        operations=heap.operations,
        virtual_s=heap.now,
        trace=trace.hexdigest(),
        broken=broken,
        faults=dict(sorted(trace.faults.items())),
        probes={name: trace.probes[name] for name in sorted(probes)},
        lines=tuple(trace.lines),
    )
