"""A put that tells what happens to it. It does what put_under_way does, and nothing else: each step is noted first.

An answer can come in the middle of a step, so whatever decides is noted before the machine hears of it.
"""

from __future__ import annotations

from leafdb.errors import StorageError
from leafdb.model.clock import CausalClock, Dot
from leafdb.node.coordinator import Coordinator, Place, Requester
from leafdb.node.explaining import Explaining
from leafdb.node.outcomes import status_of
from leafdb.node.put_under_way import CoordinatedPut
from leafdb.quorum.messages import ReplicaStatus
from leafdb.quorum.put_operation import PutOperation
from leafdb.types import Durability, NodeId
from leafdb.wire.requests import PutRequest


class ExplainedPut(CoordinatedPut):
    """One explained put under way on its coordinator."""

    __slots__ = ("_first", "_told")

    def __init__(
        self,
        coordinator: Coordinator,
        session: Requester,
        request_id: int,
        request: PutRequest,
        place: Place,
        deadline: float,
        context: CausalClock | None,
        seen: int,
        machine: PutOperation,
        durability: Durability,
    ) -> None:
        super().__init__(coordinator, session, request_id, request, place, deadline, context, seen, machine, durability)
        assert isinstance(session, Explaining)
        self._told: Explaining = session
        self._note_begin()

    def _note_begin(self) -> None:
        own = self._coordinator.view.self_id
        waiting = self.machine.waiting
        self._told.begins(self.place, self.machine)
        self._first = frozenset(waiting)
        if own in waiting:
            self._told.asked(own, "first", waiting[own])

    # -- who is asked

    def minted(self, data: bytes, dot: Dot) -> None:
        """The record exists here; or it has for long, and the ring is another one."""
        if self.record is not None:
            self._note_begin()
            if self._kept:
                self._note_answer(self._coordinator.view.self_id, ReplicaStatus.APPLIED)
        self._told.wrote(data)
        super().minted(data, dot)

    def unminted(self, error: Exception) -> None:
        """The local replica refused: nothing exists anywhere."""
        self._note_answer(self._coordinator.view.self_id, status_of(error))
        super().unminted(error)

    def _send(self, node: NodeId, frame: bytes) -> None:
        self._told.asked(node, "first" if node in self._first else "spare", self.machine.waiting.get(node))
        super()._send(node, frame)

    # -- what they answer

    def committed(self, error: StorageError | None) -> None:
        """The local copy is safe, or this node's store has failed."""
        status = ReplicaStatus.APPLIED if error is None else ReplicaStatus.FAILED
        self._note_answer(self._coordinator.view.self_id, status)
        super().committed(error)

    def put_reply(self, node: NodeId, status: ReplicaStatus) -> None:
        """Another replica has it, or says why not."""
        self._note_answer(node, status)
        super().put_reply(node, status)

    def _note_answer(self, node: NodeId, status: ReplicaStatus) -> None:
        machine = self.machine
        if node in machine.waiting:
            applied = status is ReplicaStatus.APPLIED
            self._told.answered(node, status, self.record if applied else None, counted=applied and not machine.ended)

    def peer_lost(self, node: NodeId) -> None:
        """The session to `node` broke."""
        if node in self.machine.waiting:
            self._told.lost(node)
        super().peer_lost(node)

    def expired(self) -> None:
        """The deadline."""
        self._told.out_of_time()
        super().expired()

    def _owe(self, record: bytes) -> None:
        own = self._coordinator.view.self_id
        self._told.owes(primary for primary in self.machine.owed if primary != own)
        super()._owe(record)
