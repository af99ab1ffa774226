"""Does to a cluster what its plan says, one trouble beside another, until the workload is done; then mends everything.

It goes in rounds: troubles for a while, drawn one after the other as time goes by, so that a shorter run is the
beginning of a longer one; then everything is mended and left alone (a stability window), which is when a cluster shows
whether it comes back, and after which stores may be destroyed anew, since nobody owes anybody anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from leafdb.sim import disk_troubles, network_troubles, node_troubles
from leafdb.sim.plan import Trouble
from leafdb.sim.stage import Stage

Maker = Callable[[Stage, float], Awaitable[None]]

MAKERS: Final[Mapping[Trouble, Maker]] = {
    Trouble.SLOW_LINK: network_troubles.slow_link,
    Trouble.TRICKLE: network_troubles.trickle,
    Trouble.CLOG: network_troubles.clog,
    Trouble.RESET: network_troubles.reset,
    Trouble.PARTITION: network_troubles.partition,
    Trouble.ONE_WAY: network_troubles.one_way,
    Trouble.BRIDGE: network_troubles.bridge,
    Trouble.FLAP: network_troubles.flap,
    Trouble.SWIZZLE: network_troubles.swizzle,
    Trouble.CLIENT_CUT: network_troubles.client_cut,
    Trouble.KILL: node_troubles.kill,
    Trouble.ABSENCE: node_troubles.absence,
    Trouble.KILL_ALL: node_troubles.kill_all,
    Trouble.VANISH: node_troubles.vanish,
    Trouble.RESTART: node_troubles.restart,
    Trouble.PAUSE: node_troubles.pause,
    Trouble.POWER_CUT: node_troubles.power_cut,
    Trouble.POWER_CUT_ALL: node_troubles.power_cut_all,
    Trouble.SYNC_ERROR: disk_troubles.sync_error,
    Trouble.DISK_ERROR: disk_troubles.disk_error,
    Trouble.SHORT_WRITE: disk_troubles.short_write,
    Trouble.DISK_FULL: disk_troubles.disk_full,
    Trouble.SLOW_DISK: disk_troubles.slow_disk,
    Trouble.ROT: disk_troubles.rot,
    Trouble.LOST_WRITE: disk_troubles.lost_write,
    Trouble.MISDIRECTED_WRITE: disk_troubles.misdirected_write,
    Trouble.WIPE: node_troubles.wipe,
    Trouble.ROLLBACK: node_troubles.rollback,
    Trouble.CLONE: node_troubles.clone,
    Trouble.CLOCK_JUMP: node_troubles.clock_jump,
    Trouble.CLOCK_DRIFT: node_troubles.clock_drift,
}

CARE_S: Final = 0.5
"""How long a node that ended by itself stays down, about."""
SETTLING_S: Final = 30.0
"""How long a stability window waits for the cluster to owe nothing; the clients go on meanwhile."""
LASTING_MAX: Final = 5.0
"""The longest trouble, as a multiple of the mean."""


class Nemesis:
    """See the top of this file."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._rng = stage.rng

    async def run(self, done: trio.Event) -> None:
        """Rounds of trouble until `done`; then everything is mended."""
        plan = self._stage.plan
        while not done.is_set():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when, done, nursery.cancel_scope)
                with trio.move_on_after(self._rng.expovariate(1 / plan.calm_every_s)):
                    await self._rage()
                await self._calm()
                nursery.cancel_scope.cancel()
        await self.mend()

    async def _rage(self) -> None:
        plan, rng = self._stage.plan, self._rng
        kinds = [kind for kind, _ in plan.troubles]
        weights = [weight for _, weight in plan.troubles]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.look_after)
            while True:
                await trio.sleep(rng.expovariate(1 / plan.gap_s))
                if kinds:
                    kind = rng.choices(kinds, weights)[0]
                    lasting_s = min(LASTING_MAX * plan.lasting_s, rng.expovariate(1 / plan.lasting_s))
                    nursery.start_soon(MAKERS[kind], self._stage, lasting_s, name=kind)

    async def look_after(self) -> None:
        """Somebody looks after nodes that ended by themselves, until cancelled."""
        while True:
            await trio.sleep(self._rng.expovariate(1 / CARE_S))
            await self.revive()

    async def revive(self) -> None:
        """Start every node that ended by itself, its disk mended."""
        stage = self._stage
        for node in stage.forsaken():
            if node in stage.forsaken():  # it may have been seen to while another one started
                stage.check_end(node)
                if node in stage.retired:
                    continue
                stage.trace.probe("node_ended_by_itself")
                with stage.claimed(node):
                    stage.mend_disk(node)
                    await stage.start_all([node])

    async def _calm(self) -> None:
        """Everything is well for a while."""
        stage = self._stage
        await self.mend()
        stage.trace.tell("nemesis", "calm")
        await trio.sleep(stage.plan.calm_s)
        with trio.move_on_after(SETTLING_S):
            while stage.cluster.unsettled() or stage.down:
                await trio.sleep(0.05)
                await self.revive()
            stage.settled()
            stage.trace.probe("settled_amid_load")

    async def mend(self) -> None:
        """Whatever a trouble did it has taken back; what is left is nodes that are down."""
        stage = self._stage
        for node in stage.all:
            stage.mend_disk(node)
        with trio.CancelScope(shield=True):
            await trio.sleep(0.2)  # what has failed ends
            await self.revive()


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
