"""A get that tells what happens to it. It does what get_under_way does, and nothing else: each step is noted first.

An answer can come in the middle of a step, so whatever decides is noted before the machine hears of it.
"""

from __future__ import annotations

from leafdb.node.explaining import Explaining
from leafdb.node.get_under_way import CoordinatedGet
from leafdb.node.outcomes import status_of
from leafdb.node.session_get import SessionGet
from leafdb.quorum.messages import ReplicaStatus
from leafdb.types import NodeId

COUNTING = frozenset({ReplicaStatus.FOUND, ReplicaStatus.ABSENT})


class ExplainedGet(CoordinatedGet):
    """One explained get under way on its coordinator. It has no slots of its own, so that another kind of get can be
    told of as well: `class ExplainedOther(ExplainedGet, OtherGet)`."""

    _told: Explaining
    _first: frozenset[NodeId]
    """Who is asked at once."""
    _hedging: bool

    def begin(self) -> None:
        """Ask everybody who is to be asked at once."""
        assert isinstance(self._session, Explaining)
        self._told = self._session
        self._first = frozenset(self.machine.waiting)
        self._hedging = False
        self._told.begins(self.place, self.machine)
        super().begin()

    # -- who is asked

    def _send(self, node: NodeId, frame: bytes) -> None:
        self._note_asked(node)
        super()._send(node, frame)

    def _ask_self(self) -> None:
        self._note_asked(self._coordinator.view.self_id)
        super()._ask_self()

    def _note_asked(self, node: NodeId) -> None:
        self._told.asked(node, "first" if node in self._first else "hedge" if self._hedging else "spare")

    # -- what they answer

    def get_reply(self, node: NodeId, status: ReplicaStatus, record: bytes) -> None:
        """A replica's record, its definitive absence, or neither."""
        if status is not ReplicaStatus.NEWER_HORIZON:
            self._note_answer(node, status, record or None)
        super().get_reply(node, status, record)

    def _anew(self, horizon: int) -> None:
        self._told.begins_anew("a newer purge horizon was heard of: everybody was asked anew, by that one")
        super()._anew(horizon)

    def _read_here(self, value: bytes | None, error: Exception | None) -> None:
        own = self._coordinator.view.self_id
        if error is not None:
            status = status_of(error)
        elif not (self._definitive if own in self.place.holders else value is not None):
            status = ReplicaStatus.UNKNOWN
        else:
            status = ReplicaStatus.ABSENT if value is None else ReplicaStatus.FOUND
        self._note_answer(own, status, value)
        super()._read_here(value, error)

    def _note_answer(self, node: NodeId, status: ReplicaStatus, record: bytes | None) -> None:
        machine = self.machine
        if node in machine.waiting:
            counts = status in COUNTING and not machine.ended and machine.writing_back is None
            self._told.answered(node, status, record, counted=counts)

    def peer_lost(self, node: NodeId) -> None:
        """The session to `node` broke."""
        machine = self.machine
        if node in machine.waiting or (machine.writing_back and node in machine.writing_back):
            self._told.lost(node)
        super().peer_lost(node)

    def expired(self) -> None:
        """First the hedge, then the deadline."""
        if self._hedged or self._coordinator.now() >= self._deadline:
            self._told.out_of_time()
            super().expired()
        else:
            self._hedging = True
            super().expired()
            self._hedging = False

    # -- who is brought up to date

    def _repair(self) -> None:
        machine = self.machine
        self._told.repairs(machine.repairs, waited_for=machine.writing_back is not None and not machine.ended)
        super()._repair()

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """A write-back is confirmed, or not."""
        self._told.written_back(node, confirmed=status is ReplicaStatus.APPLIED)
        super().put_reply(node, status)

    def _repaired_here(self, error: Exception | None) -> None:
        self._told.written_back(self._coordinator.view.self_id, confirmed=error is None)
        super()._repaired_here(error)


class ExplainedSessionGet(ExplainedGet, SessionGet):
    """One explained get with a floor."""

    __slots__ = ()
