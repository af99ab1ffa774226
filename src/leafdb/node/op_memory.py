"""What this store remembers of operations whose value it has seen replaced: operation id to key and dot.

An operation that is there is found in its record, by the id that its sibling bears. One that was replaced or deleted
since has left nothing but a dot in the clock, and a clock does not say whose dots it has. So when a mint or a merge
drops a sibling, its id is kept here: the last ones, as many as fit into a bound of bytes, in memory. A restart forgets
them, and so does a busy node after a while; then a copy that comes late is a sibling again, as it would be without any
memory. Nothing is lost by forgetting.

**A retry** of a remembered operation is answered with the dot it had, provided that the record here knows the dot: then
whoever is given the record knows it too. Where the record is gone altogether, all that can be said is that the
operation once was here (`OperationForgotten`).

**A copy that comes of a remembered operation under another dot is covered as it comes**: the dot joins the clock and
the sibling does not get in. Such a *twin* exists when two nodes minted one operation, a first try and its retry, and
neither could ask the other. Twins that are here together go together: what covers the one (in `put` a context, when a
record comes its clock) covers the other. Why nothing acknowledged is lost by either:

1. All dots of an operation stand for one write: the same key, value and context; only its sender chooses the id, and
   half of the id is drawn by chance.
2. An id is remembered, and twins are dropped, only when a sibling that bears it was in this store and then was covered.
   A dot gets covered by a write whose context has it, and who has the dot in a context has been shown the value, or
   wrote it; or by this rule, and then the same holds of the dot that was covered first. (Hidden siblings that `put`
   drops for their number are covered by nobody who saw them. They are deletions and values long expired; the twin of
   such a value may be hidden earlier than its own expiry by as much as the retry came later.)
3. So the write was seen and replaced by somebody: "live, or covered by a write that saw it" holds of it, whichever of
   its dots was acknowledged.
4. For a record's lattice this is one more write that covers a dot. *Unknown, live, covered* is a chain for each dot, so
   replicas that remember and replicas that do not end with the same bytes once they have exchanged.

A model that tries to refute this: tests/property/test_replaced_operations.py.

It is done only where the record here knows the remembered dot. An actor is of one key, so this also says that it is the
same key; and a record that has lost what replaced the operation takes every copy. `lww` buckets do without it: there
the greatest stamp decides and coverage nothing, so what one replica left out another would bring back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from leafdb.limits import OP_MEMORY_BYTES_MAX
from leafdb.model.clock import Dot
from leafdb.model.live import NO_OPERATION
from leafdb.model.record import Header, Named
from leafdb.types import TreeId

ENTRY_BYTES: Final = 420
"""What an entry holds besides its key, about: the id, the tuple, the dot with its actor, a slot of the table."""


class OperationForgotten(Exception):
    """The operation was applied and replaced, and the record that says so is gone: there is nothing to show for it."""

    def __init__(self, op_id: bytes) -> None:
        super().__init__("the write was applied and replaced, and its record is gone")
        self.op_id = op_id


class Remembered(NamedTuple):
    """An operation that was replaced: the bucket's tree and the key it wrote, and the dot it had here."""

    tree: TreeId
    storage_key: bytes
    dot: Dot


class OpMemory:
    """Two generations: when the younger is full it becomes the older, and what was the older is forgotten."""

    __slots__ = ("_generation_bytes", "_older", "_younger", "_younger_bytes", "covered_total", "older_bytes")

    def __init__(self, bytes_max: int = OP_MEMORY_BYTES_MAX) -> None:
        self._generation_bytes = bytes_max // 2
        self._younger: dict[bytes, tuple[TreeId, bytes, Dot]] = {}
        self._older: dict[bytes, tuple[TreeId, bytes, Dot]] = {}
        self._younger_bytes = 0
        self.older_bytes: int = 0
        self.covered_total: int = 0
        """Copies that were covered as they came."""

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)

    @property
    def held_bytes(self) -> int:
        """What it holds, about."""
        return self._younger_bytes + self.older_bytes

    def note(self, tree: TreeId, storage_key: bytes, replaced: Sequence[Named]) -> None:
        """These siblings of a record were dropped, since something covers them."""
        for op_id, dot in replaced:
            if op_id != NO_OPERATION:
                self._younger[op_id] = tree, storage_key, dot
                self._younger_bytes += ENTRY_BYTES + len(storage_key)
        if self._younger_bytes > self._generation_bytes:
            self._older, self.older_bytes = self._younger, self._younger_bytes
            self._younger, self._younger_bytes = {}, 0

    def find(self, op_id: bytes) -> Remembered | None:
        """What is remembered of the operation."""
        found = self._younger.get(op_id) or self._older.get(op_id)
        return None if found is None else Remembered(*found)

    def dot_in(self, op_id: bytes, tree: TreeId, storage_key: bytes) -> Dot | None:
        """The dot that a replaced operation had in this record; None: it is not remembered, or not of this key."""
        found = self._younger.get(op_id) or self._older.get(op_id)
        return found[2] if found is not None and found[1] == storage_key and found[0] == tree else None

    def was_replaced(self, op_id: bytes, ours: Header) -> bool:
        """Whether a copy of the operation that meets this record is covered as it comes. Counts those that are."""
        found = self._younger.get(op_id) or self._older.get(op_id)
        if found is None or found[2] in ours.heads or not ours.clock.covers(found[2]):
            return False
        self.covered_total += 1
        return True

    def check(self) -> None:
        """It is within its bound: each generation but for what came last."""
        assert self._younger_bytes <= self._generation_bytes
        assert len(self) * ENTRY_BYTES <= self.held_bytes
