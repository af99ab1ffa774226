"""A put of a session: it is minted over a record that has what its session has seen of the key, or not at all.

Of the four guarantees two are about writes: who sees a write sees what its session had written (monotonic writes) and
read (writes follow reads) before it. Here is why one rule is enough for both, and for the reads of everybody:

- Call a record *closed* if it covers, with each write it covers, all that this write follows.
- Records travel and are joined whole. A join of closed records is closed.
- A put adds one write to the record it is minted over, and whatever its context brings. Minted over a closed record
  that covers the context and all that the session has seen, it leaves a closed record.

So all records are closed, those of stand-ins too, and a read of any one replica shows a write with all that it follows.
A put of a session therefore names as its floor what its session has seen and its context does not cover; and the
context itself, when the session does not know where that came from, or built upon such a one. A put whose context is
all that its session has seen needs no floor: that was read from a closed record, or made of the session's own writes,
each over all that was seen. A blind put names all that was seen. In an lww bucket every put does: it wins over what it
follows only when minted above its stamp.

What breaks it for a key is a client without a session that writes there over a context which its coordinator has not
got: the record then covers a write and not what that follows. So the last two guarantees are those of keys that are
written by sessions.

**How.** The coordinator looks at the record it would mint over, its own or the copy it keeps for the primary it stands
in for. When that meets the floor, it mints: one local read more. Otherwise it reads from others, as `session_get` does,
merges what meets the floor into its own, and mints over that. If nobody it can reach has it in time, the put is refused
and nothing was written: that is what the guarantee costs while the network is parted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from leafdb.errors import NotEnoughReplicas
from leafdb.model.record import RecordError
from leafdb.node.coordinator import Coordinator, Place, Requester
from leafdb.node.get_under_way import MERGES
from leafdb.node.put_under_way import CoordinatedPut
from leafdb.node.session_get import SessionGet, everybody
from leafdb.node.timers import TICK_S
from leafdb.quorum.get_operation import Floor, GetOperation
from leafdb.types import NodeId

EARLIER_S: Final = 3 * TICK_S
"""The read gives up so long before the put, whose own deadline has less to tell."""


def follow(
    coordinator: Coordinator,
    session: Requester,
    place: Place,
    put: CoordinatedPut,
    stands_for: NodeId,
    deadline: float,
    floor: Floor,
    mint: Callable[[], None],
) -> None:
    """Mint when the record here, or what others have, meets the floor. `stands_for` is this node, or the primary into
    whose copy it mints."""
    own = coordinator.view.self_id
    machine = GetOperation(
        r=0,  # nobody is shown anything, so nobody has to hold it
        pr=0,
        asked={own},
        spares=[node for node in everybody(coordinator, place, place.holders, sloppy=True) if node != own],
        primaries=place.primaries,
        merge=MERGES[place.bucket.conflict],
        floor=floor,
    )
    deadline -= EARLIER_S
    read = _ReadBefore(coordinator, session, place, deadline, machine, put, stands_for, mint)
    read.id = coordinator.register(read, deadline)
    read.begin()


class _ReadBefore(SessionGet):
    """The read before a put."""

    __slots__ = ("_mint", "_own", "_put", "_stands_for")

    def __init__(
        self,
        coordinator: Coordinator,
        session: Requester,
        place: Place,
        deadline: float,
        machine: GetOperation,
        put: CoordinatedPut,
        stands_for: NodeId,
        mint: Callable[[], None],
    ) -> None:
        super().__init__(coordinator, session, 0, place, deadline, machine, sloppy=True)
        self._put = put
        self._stands_for = stands_for
        self._mint = mint
        self._own = coordinator.view.self_id
        self._hedged = True

    def _read_here(self, value: bytes | None, error: Exception | None) -> None:
        # Complete or not: what matters is what it is minted over.
        if error is not None:
            self._give_up(error)
        else:
            complete = self._own in self.place.holders and self._definitive
            self._answered(self._own, value, vouches=complete)

    def _repair(self) -> None:
        """The record that is minted goes to everybody anyway."""
        self.machine.repairs.clear()

    def _answer(self) -> None:
        coordinator, machine, place = self._coordinator, self.machine, self.place
        machine.waiting.clear()
        merged = machine.merged
        bucket = place.bucket
        if merged is None or (self._stands_for == self._own and machine.records.get(self._own) == merged):
            self._mint()
        elif self._stands_for == self._own:
            coordinator.replica.merge(
                bucket.tree, place.storage_key, merged, bucket.conflict, bucket.durability, self._taken_in
            )
        else:
            coordinator.hints.keep(self._stands_for, bucket, place.storage_key, merged, self._taken_in)

    def _taken_in(self, error: Exception | None) -> None:
        if error is None:
            self._mint()
        else:
            self._put.unminted(error)

    def _fail(self) -> None:
        heard = len(self.machine.records)
        text = f"none of {heard} replicas that answered in time has what this session had seen; nothing was written"
        self._put.unminted(NotEnoughReplicas(text, alive=0, required=1))

    def _malformed(self, error: RecordError) -> None:
        self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self.machine.expired()
        self._coordinator.forget(self.id, self)
        self._put.unminted(error)
