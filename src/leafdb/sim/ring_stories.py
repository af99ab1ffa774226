"""Orders of events at the steps of a plan that chance seldom brings about: one node is cut off at the very moment at
which the first node has written a step down, so that it is the last to hear of it, and keys of its own move meanwhile.

    begun unheard     an old owner does not hear of the plan, and acknowledges writes alone (w=1)
    moved unheard     an old owner does not hear that reads have moved, and takes writes alone
    newcomer misses   reads have moved; a new owner is cut off and misses what others acknowledge, and the plan ends
    ended unheard     an old owner does not hear that the plan is over, takes writes alone, and has to give them away

A plan waits for an old owner that has not heard, so a story lets go after a while. It does not wait for a newcomer
whose copies are made; but nobody may drop a copy of what that one has missed before it has it. A story goes on whatever
else breaks. It has keys and chance of its own; what its clients are told is judged like all else.

No old owner alone has an acknowledged write when its plan ends: once it has heard of the plan a write counts among the
new owners too, and what it took before is copied before reads move. What only it has then is of unknown outcome.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from itertools import islice
from random import Random
from typing import Final, NamedTuple

import trio

from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase
from leafdb.ring.ring import Ring
from leafdb.ring.token import split_storage_key
from leafdb.sim.clients import DirectClient, ReadHow, Setting
from leafdb.sim.recorder import WriteHow
from leafdb.sim.ring_watch import RingWatch, Step
from leafdb.sim.stage import Stage
from leafdb.testing.cluster import host_of
from leafdb.types import NodeId, Token

NAME: Final = "cut_off_at_a_step"
"""In stories and counts."""
WRITE_S: Final = 0.5
PATIENCE_S: Final = (6.0, 14.0)
"""So long, at most, somebody whom the plan waits for is cut off."""
NEWCOMER_PATIENCE_S: Final = 30.0
"""So long a newcomer is for which the plan does not wait."""
AFTER_S: Final = 3.0
"""How long after the end of the plan it is cut off still, at most."""
LOOK_S: Final = 0.1
KEYS: Final = 4
NAMES: Final = 200
"""Of keys that are tried, for some that move."""


class Kind(Enum):
    """Who is cut off, and when."""

    BEGUN = "begun unheard"
    MOVED = "moved unheard"
    NEWCOMER = "newcomer misses"
    ENDED = "ended unheard"


CHANCES: Final = {Kind.BEGUN: 0.3, Kind.MOVED: 0.6, Kind.NEWCOMER: 0.9, Kind.ENDED: 0.9}
"""Of each to be played at a step that allows it. The first holds a plan up, and few get far in a short run."""


class Scene(NamedTuple):
    """What is played after a step."""

    kind: Kind
    step: Step
    member: NodeId
    """Who is cut off."""
    machine: NodeId


class RingStories:
    """Of one run. Played one after the other."""

    def __init__(self, stage: Stage, setting: Setting, rng: Random) -> None:
        self._stage = stage
        self._setting = setting
        self._rng = rng
        self._watch: RingWatch = stage.cluster.watch
        self._client = DirectClient(setting, "ring teller")
        self._scene: Scene | None = None
        self._ways: list[tuple[str, str]] = []
        """What is cut at present."""
        self._begun = trio.Event()

    async def run(self) -> None:
        """Until cancelled; then nobody is cut off any more."""
        with self._told_of_steps():
            while True:
                await self._begun.wait()
                scene = self._scene
                assert scene is not None
                await self._play(scene)
                self._heal()
                await self._look(scene)
                self._begun = trio.Event()
                self._scene = None

    @contextmanager
    def _told_of_steps(self) -> Iterator[None]:
        self._watch.on_step = self._stepped
        try:
            yield
        finally:
            self._watch.on_step = lambda step: None
            self._heal()
            self._client.close()

    # -- whom to cut off

    def _stepped(self, step: Step) -> None:
        """The first node has just written a step down, and nobody has heard of it from there."""
        rng = self._rng
        kinds = [kind for kind in _kinds_at(step) if rng.random() < CHANCES[kind]]
        casts = [(kind, members) for kind in kinds if (members := self._cast(kind, step))]
        if self._scene is not None or not casts:
            return
        kind, members = rng.choice(casts)
        member = rng.choice(members)
        self._scene = Scene(kind, step, member, self._watch.machines[member])
        self._cut(self._scene.machine)
        self._setting.trace.tell("ring teller", f"{kind.value}: n{self._scene.machine} in epoch {step.after.epoch}")
        self._begun.set()

    def _cast(self, kind: Kind, step: Step) -> list[NodeId]:
        """Members that run and may play the part."""
        plan, machines = step.plan, self._watch.machines
        if kind is Kind.NEWCOMER:
            wanted: Iterable[NodeId] = plan.joining
        else:  # who goes for good is told by being refused, and takes nothing alone
            old = {*step.before.owners} - plan.going if kind is Kind.ENDED else {*step.before.owners}
            wanted = [member for member in sorted(old) if not self._has_heard(machines[member], step.after)]
        return [member for member in wanted if machines[member] in self._stage.cluster.nodes]

    def _has_heard(self, machine: NodeId, metadata: ClusterMetadata) -> bool:
        belief = self._watch.last_belief(machine)
        return belief is not None and belief.epoch >= metadata.epoch

    def _cut(self, machine: NodeId) -> None:
        """In silence, so that nobody knows at once; what is under way is lost in the end."""
        mine = host_of(machine)
        self._ways = [(mine, host_of(other)) for other in self._stage.all if other != machine]
        self._setting.trace.fault(NAME, f"n{machine}")
        for one, other in self._ways:
            self._stage.cluster.network.cut(one, other, silently=True)

    def _heal(self) -> None:
        for one, other in self._ways:
            self._stage.cluster.network.reset(one, other)
            self._stage.cluster.network.heal(one, other)
        self._ways = []

    # -- what happens then

    async def _play(self, scene: Scene) -> None:
        rng, trace = self._rng, self._setting.trace
        alone = WriteHow(w=1, sloppy=False, timeout_s=WRITE_S)
        keys = list(islice(self._moving(scene), KEYS))
        newcomer = scene.kind is Kind.NEWCOMER
        with trio.move_on_after(NEWCOMER_PATIENCE_S if newcomer else rng.uniform(*PATIENCE_S)):
            for key in keys:
                if newcomer:
                    others = [node for node in self._setting.nodes if node != scene.machine]
                    how = WriteHow(sloppy=False, timeout_s=2.0)
                    sent = await self._client.put(rng.choice(others), key, None, how)
                    trace.probe("newcomer_missed_a_write", int(sent.context is not None))
                else:
                    sent = await self._client.put(scene.machine, key, None, alone)
                    trace.probe("written_alone_unheard", int(sent.context is not None))
            while self._is_in_progress(scene):  # noqa: ASYNC110  # nothing tells
                await trio.sleep(LOOK_S)
            trace.probe("plan_ended_unheard", int(scene.kind in (Kind.NEWCOMER, Kind.ENDED)))
            await trio.sleep(rng.uniform(0.0, AFTER_S))

    def _is_in_progress(self, scene: Scene) -> bool:
        metadata = self._watch.newest
        return metadata is not None and metadata.plan is not None and metadata.plan.id == scene.step.plan.id

    async def _look(self, scene: Scene) -> None:
        """What is shown of it now, at every count."""
        n = self._setting.bucket.n
        for key in [key for key in self._setting.history.keys if key.startswith(_prefix(scene))]:
            how = ReadHow(r=self._rng.randint(1, n), sloppy=False, timeout_s=1.0)
            await self._client.get(self._rng.choice(self._setting.nodes), key, how)

    def _moving(self, scene: Scene) -> Iterator[str]:
        """New keys of ranges that the plan takes from who is cut off, or gives to it."""
        setting, n = self._setting, self._setting.bucket.n
        amid = scene.step.after if scene.step.after.plan is not None else scene.step.before
        ring = self._watch.ring_of(amid)
        for number in range(NAMES):
            key = f"{_prefix(scene)}{number}"
            if _moves(ring, split_storage_key(setting.stored_key(key))[0], scene, n):
                yield key


def _prefix(scene: Scene) -> str:
    """Of the names of a scene's keys."""
    return f"moves{scene.step.after.epoch}."


def _moves(ring: Ring, token: Token, scene: Scene, n: int) -> bool:
    sets = ring.write_sets(ring.partition_of(token), n)
    if len(sets) < 2:
        return False
    old, new = (scene.member in owners for owners in sets)
    return new and not old if scene.kind is Kind.NEWCOMER else old and not new


def _kinds_at(step: Step) -> tuple[Kind, ...]:
    """What may be played at a step."""
    plan = step.after.plan
    if plan is None:
        return (Kind.ENDED,) if step.finished else ()
    match plan.phase:
        case Phase.WRITE_BOTH_READ_OLD:
            return (Kind.BEGUN,)
        case Phase.WRITE_BOTH_READ_NEW:
            return (Kind.MOVED, Kind.NEWCOMER)
        case Phase.RETREAT:
            return ()
