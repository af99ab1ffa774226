"""Who may come to the ring and who may go from it, so that an operator asks for nothing that the promises exclude.

There are never fewer members than copies, however the changes end that anybody has asked for; a member that is lost for
good counts as gone from then on. So a node may leave, or a lost one be removed, while enough others stay in any case;
otherwise the lost one is replaced.
"""

from __future__ import annotations

from random import Random
from typing import Final

import trio

from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.staging import goer_of, newcomer_of
from leafdb.sim.stage import Stage
from leafdb.testing.cluster import address_of, host_of
from leafdb.types import NodeId

FORGOTTEN_S: Final = 60.0
"""An operator's request that was not heard of for so long will not be done any more."""


class Machines:
    """Of one cluster whose ring changes."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._asked: dict[NodeId, float] = {}
        """Members that somebody wants to go: when that was asked last."""

    @property
    def metadata(self) -> ClusterMetadata:
        """The newest there are."""
        metadata = self.stage.cluster.watch.newest
        assert metadata is not None, "the cluster is founded"
        return metadata

    def lost(self) -> list[NodeId]:
        """Members on machines that are gone for good."""
        machines = self.stage.cluster.watch.machines
        return [member for member in self.metadata.members if machines[member] in self.stage.lost]

    # -- who goes

    def may_lose(self) -> list[NodeId]:
        """Machines of members without which the control set still has a majority of those that are not lost."""
        metadata, machines = self.metadata, self.stage.cluster.watch.machines
        lost = set(self.lost())
        found = []
        for member in metadata.members:
            sets = [set(seats) for seats in (metadata.control, metadata.control_next) if seats]
            if all(2 * len(seats - lost - {member}) > len(seats) for seats in sets):
                found.append(machines[member])
        return found

    def may_leave(self) -> list[NodeId]:
        """Members that may be asked to leave, as things are."""
        staying = self._staying()
        return staying if len(staying) > self.stage.plan.bucket.n else []

    def may_remove(self) -> list[NodeId]:
        """Lost members that may be removed without a replacement."""
        return self.lost() if len(self._staying()) >= self.stage.plan.bucket.n else []

    def going(self, member: NodeId) -> None:
        """It is about to be asked to go."""
        self._asked[member] = trio.current_time()

    def _staying(self) -> list[NodeId]:
        """Members that stay, whatever becomes of what was asked for."""
        metadata, now = self.metadata, trio.current_time()
        plan = metadata.plan
        going = {*self.lost(), *(goer for change in metadata.staged if (goer := goer_of(change)) is not None)}
        going |= {member for member, at_s in self._asked.items() if now - at_s < FORGOTTEN_S}
        if plan is not None:
            going |= {*plan.going, *plan.joining}
        return sorted(metadata.members.keys() - going)

    # -- who comes

    def blank(self) -> list[NodeId]:
        """Machines whose nodes wait to be staged."""
        metadata = self.metadata
        named = {member.peer_address for member in metadata.members.values()}
        named |= {come.peer_address for change in metadata.staged if (come := newcomer_of(change)) is not None}
        found = []
        for machine in self.stage.free():
            node = self.stage.cluster.nodes[machine]
            waits = node.ready and node.view.metadata is None and not node.engine.identity.cluster_id
            if waits and address_of(machine) not in named:
                found.append(machine)
        return found

    async def fetch(self, rng: Random, *, must: bool = False) -> NodeId | None:
        """A machine with a blank node: one that waits, a new one, or an old one that was emptied. None: there is none,
        which cannot be when there `must`."""
        stage, rings = self.stage, self.stage.plan.rings
        assert rings is not None
        waiting = self.blank()
        if waiting and rng.random() < 0.7:
            return rng.choice(waiting)
        if len(stage.cluster.disks) < rings.machines_max:
            host = host_of(rng.choice(stage.all)) if rng.random() < rings.crowding else ""
            return await stage.add(host)
        if stage.retired:
            machine = rng.choice(sorted(stage.retired))
            del stage.retired[machine]
            stage.trace.fault("emptied_machine", f"n{machine}")
            with stage.claimed(machine), trio.CancelScope(shield=True):
                stage.cluster.wipe(machine)
                await stage.start(machine)
            return machine if machine in stage.cluster.nodes else None
        return rng.choice(waiting) if waiting else await stage.add() if must else None
