"""What comes late: single messages over which a horizon has passed.

A partition holds up all that two nodes say to each other, so when it ends they find out, and compare, before any
horizon can rise. What a horizon passes over comes otherwise: on a connection that is stalled while all the others go on
(`stalled.py`). Half of the time some connections are, and release what they have when a horizon has risen, whatever
clients happened to do; and half of the time a story is played (`late_stories.py`), for chance alone seldom has one
client write, another delete, and nothing else tell the one who is to hear of it late.

Meanwhile somebody says `leafdb repair purge` every second or so: that is when proofs are to be made.

All of it has chance of its own, so that what else a seed draws stays as it is.
"""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from leafdb.sim.late_stories import LateStories
from leafdb.sim.setting import Setting
from leafdb.sim.stage import Stage
from leafdb.sim.stalled import Stalled, Way, flow, running

GAP_S: Final = 0.5
LASTING_S: Final = 8.0
LASTING_S_MAX: Final = 40.0
LOOK_S: Final = (0.05, 0.5)
AFTER_S: Final = 1.0
"""How long after a horizon has risen what is stalled arrives, in the mean."""
HURRY_S: Final = 1.0
WAYS_MAX: Final = 3
STORY_CHANCE: Final = 0.6


class Late:
    """See the top of this file. For as long as clients work, also while all else is well."""

    def __init__(self, stage: Stage, setting: Setting) -> None:
        self._stage = stage
        self._seed = f"{stage.plan.seed}/late"
        self._rng = Random(self._seed)
        self._stories = LateStories(stage, setting, Random(f"{self._seed} stories"))

    async def run(self) -> None:
        """Until cancelled; then everything arrives."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._operate, Random(f"{self._seed} operator"))
                while True:
                    await trio.sleep(self._rng.expovariate(1 / GAP_S))
                    await self._trouble()
        finally:
            self._stories.close()

    async def _trouble(self) -> None:
        if self._rng.random() < STORY_CHANCE:
            await self._stories.play()
        else:
            await self._stall(min(LASTING_S_MAX, self._rng.expovariate(1 / LASTING_S)))

    async def _operate(self, rng: Random) -> None:
        while True:
            await trio.sleep(rng.expovariate(1 / HURRY_S))
            for node in running(self._stage).values():
                node.purge.driver.hurry()

    async def _stall(self, lasting_s: float) -> None:
        """Until a horizon has risen, or the time is over."""
        ways, rng = self._some_ways(), self._rng
        if not ways:
            return
        ends_s = trio.current_time() + lasting_s
        before = self._horizons()
        stalled = Stalled(self._stage, rng, ways)
        try:
            while trio.current_time() < ends_s:
                await trio.sleep(rng.uniform(*LOOK_S))
                stalled.hold()
                if self._horizons() != before:
                    before = self._horizons()
                    ends_s = min(ends_s, trio.current_time() + rng.expovariate(1 / AFTER_S))
            await stalled.release()
        finally:
            stalled.let_go()

    def _some_ways(self) -> list[Way]:
        """A few; or all that lead to one node."""
        nodes, rng = running(self._stage), self._rng
        ways = [(one, other) for one in nodes for other in nodes if flow(self._stage, one, other) is not None]
        if ways and rng.random() < 0.5:
            _, victim = rng.choice(ways)
            return [way for way in ways if way[1] == victim]
        return sorted(rng.sample(ways, min(len(ways), rng.randint(1, WAYS_MAX))))

    def _horizons(self) -> tuple[int, ...]:
        """The newest that anybody believes in."""
        metadata = self._stage.cluster.watch.newest
        return () if metadata is None else tuple(horizon.stamp for horizon in metadata.horizons)
