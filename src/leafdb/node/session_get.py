"""A get of a session: what it answers is not less than its session has seen, or it does not answer.

The rule is that of quorum/get_operation, the floor that of quorum/session_floor. Here is what the rule leaves to a
driver: when R replicas have answered with less, everybody else who holds the key is asked at once; then, in pauses that
grow, all holders that can be reached and those who may keep a copy for one that was away when it was written. Who
answers late is heard. At the deadline the read fails, retryably, in stage "session": the client may find a node that
can reach more.

What the session has seen may have been forgotten by right. The floor is compared with the horizon that the read goes
by, and whoever counts among its owners vouches for what lies below that: nothing, or less than was seen, is enough from
such a one.

A strict read asks no stand-ins, as ever: it waits until a copy they keep has come home.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leafdb.errors import DeadlineExceeded, NotApplied, Reason
from leafdb.limits import FLOOR_PAUSE_S_MAX, FLOOR_PAUSE_S_MIN
from leafdb.model.context import ContextError
from leafdb.node.coordinator import Coordinator, Place, Requester
from leafdb.node.get_under_way import CoordinatedGet
from leafdb.quorum.get_operation import GetOperation, GetStep
from leafdb.quorum.session_floor import SessionFloor
from leafdb.types import NodeId

STANDINS_PER_REPLICA: Final = 2
"""So many times n stand-ins are asked for a copy they may keep, the nearest first."""


def open_floor(coordinator: Coordinator, place: Place, contexts: Sequence[bytes]) -> SessionFloor | None:
    """What the answer to a session must meet; None when it has seen nothing. Raises NotApplied for a context of another
    key, bucket or cluster."""
    try:
        pasts = [coordinator.sealer.open(sealed, place.bucket.id, place.key) for sealed in contexts]
    except ContextError as error:
        raise NotApplied(str(error), reason=Reason.CONTEXT_MISMATCH) from None
    floor = SessionFloor(pasts, coordinator.replica.horizon_at(place.storage_key))
    return floor if floor.clock else None


def everybody(coordinator: Coordinator, place: Place, owners: Sequence[NodeId], *, sloppy: bool) -> list[NodeId]:
    """Who may have something of the key and can be asked now: of these owners, and of those who stand in."""
    view = coordinator.view
    nodes = [node for node in owners if node == view.self_id or node in view.usable]
    if sloppy:
        standins = coordinator.hints.fallbacks(place.partition, place.bucket, nodes)
        nodes += standins[: STANDINS_PER_REPLICA * place.bucket.properties.n]
    return nodes


class SessionGet(CoordinatedGet):
    """One get with a floor."""

    __slots__ = ("_pause_s", "_sloppy")

    def __init__(
        self,
        coordinator: Coordinator,
        session: Requester,
        request_id: int,
        place: Place,
        deadline: float,
        machine: GetOperation,
        *,
        sloppy: bool,
    ) -> None:
        super().__init__(coordinator, session, request_id, place, deadline, machine)
        self._sloppy = sloppy
        self._pause_s = 0.0

    def expired(self) -> None:
        """Below the floor it is time to ask again; else as any get."""
        coordinator = self._coordinator
        machine = self.machine
        if not self._pause_s or coordinator.now() >= self._deadline:
            super().expired()
        elif machine.below and not machine.ended:
            self._look_again()
            machine.ask_again(everybody(coordinator, self.place, self.place.primaries, sloppy=self._sloppy))
            self._step(GetStep.NOTHING)
        else:
            coordinator.wheel.add(self, self._deadline)

    def _anew(self, horizon: int) -> None:
        self._pause_s = 0.0
        super()._anew(horizon)

    def _step(self, step: GetStep) -> None:
        super()._step(step)
        if self.machine.below and not self.machine.ended and not self._pause_s:
            self._coordinator.metrics.session_waits_total += 1
            self._coordinator.wheel.remove(self)
            self._look_again()

    def _look_again(self) -> None:
        """Later, after a pause twice as long as the last. It is hedged by that."""
        self._hedged = True
        self._pause_s = min(max(2 * self._pause_s, FLOOR_PAUSE_S_MIN), FLOOR_PAUSE_S_MAX)
        self._coordinator.wheel.add(self, min(self._deadline, self._coordinator.now() + self._pause_s))

    def _fail(self) -> None:
        machine = self.machine
        if not machine.below:
            super()._fail()
            return
        self._coordinator.refuse(
            self._session,
            self._request_id,
            DeadlineExceeded(
                f"none of {len(machine.records)} replicas that answered in time has all that this session has seen of "
                "the key",
                stage="session",
                got=len(machine.records),
                required=machine.r,
            ),
        )
