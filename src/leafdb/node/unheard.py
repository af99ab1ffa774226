"""A change of the metadata that was made, and of which nobody has heard.

A change is made once a majority of the control set has accepted it. Its proposer may end that very moment, and with it
all whom it told: then each acceptor of the majority holds it, synced, and no member believes in it, until somebody
changes something else. A bucket whose creation ended as "unknown" would come up by itself days later.

So each acceptor looks now and then whether it has accepted what its node has not heard of. What stays so from one look
to the next is asked for: a round of the register that changes nothing ends with a value that is chosen for certain
(CASPaxos, section 2.1: a read is a change by the identity), this one or another, and everybody is told of it. Who made
the change is still at it mostly: hence the second look, and moments of each node's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from leafdb.consensus.ballot import Ballot
from leafdb.errors import LeafdbError
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer
from leafdb.node.logs import Log
from leafdb.node.register import Version
from leafdb.ring.metadata import ClusterMetadata

if TYPE_CHECKING:
    from leafdb.node.node import Node

LOOK_S: Final = 10.0

log: Log = Log("register")


class Unheard:
    """See the top of this file. `run` is its one task."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._heard: Ballot | None = None
        """What was accepted under it has been heard of: it need not be decoded again."""
        self._seen: Version | None = None
        """Accepted at the last look, and not heard of."""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await trio.sleep(LOOK_S * (0.5 + self._node.world.rng.random()))
            await self._look()

    async def _look(self) -> None:
        register = self._node.register
        if self._node.view.metadata is None or register.accepted_under == self._heard:
            return
        _, ballot, accepted = register.standing()
        before, self._seen = self._seen, None
        if accepted is None or accepted.version <= register.newest:
            self._heard = ballot
            return
        if accepted.version != before or register.busy:
            self._seen = accepted.version
            return
        try:
            chosen = await register.change(_as_it_is, CHANGE_TIMEOUT_S, gives_way=True)
        except LeafdbError as error:
            log.info("whether a change was made cannot be known yet", epoch=int(accepted.epoch), reason=str(error))
            return
        log.info("a change was found of which nobody had heard", epoch=int(chosen.epoch))
        await offer(self._node, chosen)


def _as_it_is(current: ClusterMetadata, _: bytes) -> ClusterMetadata:
    return current
