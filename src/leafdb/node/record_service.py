"""RECORDS frames of peers at the door: so many are served at once, and a debt that is passed on is on the disk before
that is said.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from leafdb.errors import NotApplied, Overloaded, Reason, StorageError
from leafdb.node.debts import Masks
from leafdb.node.record_messages import Mark, RecordsRequest, decode_request
from leafdb.node.record_mover import Peer
from leafdb.node.record_server import RecordServer
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.view import ClusterView
from leafdb.types import BucketId, NodeId
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

RECORDS_SERVED_MAX: Final = 4


class RecordService:
    """Of one node. `nursery` is where answers run, None while none are given."""

    def __init__(self, server: RecordServer, nursery: Callable[[], trio.Nursery | None]) -> None:
        self._server = server
        self._nursery = nursery
        self._serving = 0

    def on_frame(self, session: Peer, node: NodeId, request_id: int, body: bytes) -> None:
        """A RECORDS frame of a peer. Raises ProtocolError."""
        request = decode_request(body)
        nursery = self._nursery()
        if nursery is None or self._serving >= RECORDS_SERVED_MAX:
            busy = Overloaded("this node moves enough records already", retry_after=0.2)
            session.send(encode_frame(MessageType.ERROR, request_id, encode_error(busy)))
            return
        self._serving += 1
        nursery.start_soon(self._serve, session, node, request_id, request, name="records for a peer")

    async def _serve(self, session: Peer, node: NodeId, request_id: int, request: RecordsRequest) -> None:
        try:
            await self._server.serve(session, node, request_id, request)
        finally:
            self._serving -= 1


class MarkTaker:
    """Takes the debts that peers pass on. `owe` makes debts; `safe` calls back when all made so far are on the disk."""

    def __init__(
        self,
        view: ClusterView,
        shared: SharedRanges,
        *,
        owe: Callable[[Masks, str], None],
        safe: Callable[[Callable[[StorageError | None], None]], None],
    ) -> None:
        self._view = view
        self._shared = shared
        self._owe = owe
        self._safe = safe

    async def take(self, mark: Mark) -> None:
        """A peer passes on a debt; returns when it is on our disk. Raises NotApplied, StorageError."""
        bucket, target = BucketId(mark.bucket), NodeId(mark.target)
        if target == self._view.self_id:
            masks = {slot: mask & 1 << mark.partition for slot, mask in self._shared.with_all(bucket).items()}
        else:
            masks = {(target, bucket): self._shared.shared(target, bucket) & 1 << mark.partition}
        if not any(masks.values()):
            raise NotApplied("this node does not hold that range", reason=Reason.BAD_REQUEST)
        self._owe(masks, f"hints for {self._view.name_of(target)} were given up")
        over = trio.Event()
        problems: list[StorageError] = []

        def safe(error: StorageError | None) -> None:
            if error is not None:
                problems.append(error)
            over.set()

        self._safe(safe)
        await over.wait()
        if problems:
            raise problems[0]
