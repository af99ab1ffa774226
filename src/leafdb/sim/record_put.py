"""A client's put while it is under way: what the real coordinator does with a mint, W answers and a deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from leafdb.errors import StorageError
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.hlc import LeaseExhausted
from leafdb.model.record import newest_stamp
from leafdb.node.view import BucketView
from leafdb.sim.record_world import KEY, NO_LEASE, Node, Place
from leafdb.testing.violation import Invariant, require
from leafdb.types import Durability, NodeId

W: Final = 2
DEADLINE_S: Final = 0.3


@dataclass(slots=True)
class Client:
    """What a client remembers: contexts with the writes they cover and their stamps, and a write it may try again."""

    contexts: list[tuple[CausalClock, int, int]] = field(default_factory=list)
    unanswered: Put | None = None


class Put:
    """One put or delete on its coordinator (replica.Minting), until W copies are confirmed or the deadline passes.

    `spread` sends the minted record to everybody else and fills `waiting`.
    """

    def __init__(
        self,
        client: Client,
        at: Node,
        *,
        spread: Callable[[Put], None],
        stands_for: NodeId | None,
        context: CausalClock | None,
        past: int,
        seen: int,
        op_id: bytes,
        value: bytes | None,
        expires_ms: int,
    ) -> None:
        self._spread = spread
        self.client = client
        self.at = at
        self.stands_for = stands_for
        """The primary a fallback mints for; None on a primary."""
        self.bucket: BucketView = at.bucket
        self.w: int = min(W, at.bucket.effective_n)
        self.storage_key = KEY
        self.durability: Durability = at.bucket.durability
        self.context = context
        self.past = past
        self.seen = seen
        self.op_id = op_id
        self.value = value
        self.expires_ms = expires_ms
        self.number = -1
        self.record: bytes = b""
        self.dot: Dot | None = None
        self.acked: dict[NodeId, None] = {}
        self.waiting: dict[NodeId, NodeId] = {}
        """Node -> the primary it stands for."""
        self.outcome: str = ""
        self._removals = 0

    @property
    def abandoned(self) -> bool:
        """The client was answered: too late to mint."""
        return bool(self.outcome)

    def unminted(self, error: Exception) -> None:
        """Refused, provably."""
        if isinstance(error, LeaseExhausted):
            self.at.heap.trace.probe(NO_LEASE)
        self._end("refused")

    def known(self, dots: Sequence[Dot]) -> None:
        """It is told one of them, which is all that the oracle knows of."""

    def minted(self, data: bytes, dot: Dot) -> None:
        """Send it on at once, durable or not."""
        require(not self.outcome, Invariant.NO_EXPIRED_WORK, "a put was minted after its client was answered", "key")
        self.record, self.dot = data, dot
        self._removals = self.at.removals[self._place]
        self._spread(self)

    def committed(self, error: StorageError | None) -> None:
        """Our own copy is safe."""
        self.at.hold(self._place, self.at.oracle.of(self.record).known, self._removals)
        self.confirmed(self.at.id)

    @property
    def _place(self) -> Place:
        return self.at.own if self.stands_for is None else self.at.hint_place(self.stands_for)

    def confirmed(self, node: NodeId) -> None:
        """A distinct node has it."""
        self.acked[node] = None
        self.waiting.pop(node, None)
        if len(self.acked) == self.w and not self.outcome:
            self._end("applied")

    def expired(self) -> None:
        """The deadline: answer, and keep hints for the silent."""
        if not self.outcome:
            self._end("unknown")
        if self.dot is not None and self.at.host.up:
            for primary in self.waiting.values():
                self.at.owe(primary, self.record)
        self.waiting.clear()

    def _end(self, how: str) -> None:
        self.outcome = how
        client, oracle = self.client, self.at.oracle
        self.at.heap.trace.tell("client", f"write {self.number} on {self.at.host.name}: {how}", "key")
        if how == "applied":
            assert self.dot is not None
            clock, past = (self.context or EMPTY).add(self.dot), self.past | 1 << self.number
            oracle.check_context(clock, past)
            client.contexts.append((clock, past, max(newest_stamp(self.record), self.seen)))
        elif how == "unknown":
            client.unanswered = self
