"""What a node does so that deleted data may be forgotten: takes part in proofs, and leads those of its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leafdb.node.purge_driver import PurgeDriver
from leafdb.node.purge_member import PurgeMember
from leafdb.ring.metadata import ClusterMetadata

if TYPE_CHECKING:
    from leafdb.node.node import Node


class Purge:
    """The two parts. Made before the first metadata is in force."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.member: PurgeMember = PurgeMember(node)
        self.driver: PurgeDriver = PurgeDriver(
            node, self.member, node.config.repair.purge_interval_s, node.sweeper.oldest_death
        )
        node.view.on_install.append(self._installed)

    async def run(self) -> None:
        """Lead until cancelled."""
        await self.driver.run()

    def _installed(self, metadata: ClusterMetadata) -> None:
        """Whatever is minted below a horizon would be taken for something forgotten: all have promised not to."""
        greatest = max((horizon.stamp for horizon in metadata.horizons), default=0)
        if greatest:
            self._node.leases.lift(greatest)

    def check(self) -> None:
        """The invariants of the parts."""
        self.member.promises.check()
