"""Giving hints up because somebody says so: each range is marked for anti-entropy before a hint of it goes.

For a coordinator hint that makes everything good: its record stands in the bucket's tree of its holder or of other
primaries. A fallback copy may be all that is left of an acknowledged write, on a node whom no comparison of the range
asks: it goes only when whoever asks has agreed to lose it, and stays otherwise. A hint that changes meanwhile is
somebody's news again, and stays.

A slice of it is done at a time, so that no request waits long; `next` leads on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from leafdb.hints.effects import MarkRange
from leafdb.hints.hint import Kind, decode, target_range, version_of
from leafdb.node.engine_reads import read_page
from leafdb.node.hint_keeper import HINTS_TREE, HintKeeper
from leafdb.node.hinted_handoff import HintedHandoff
from leafdb.node.pace import Pace
from leafdb.storage.engine import Engine
from leafdb.types import Durability, NodeId

PAGE_HINTS: Final = 256
PAGE_BYTES_MAX: Final = 1 << 20
SLICE_S: Final = 0.5


class Slice(NamedTuple):
    """What was given up, or would be: all of them, those that may be all that is left of a write; and what stays."""

    records: int
    fallback_records: int
    size: int
    ranges: int
    kept: int
    next: bytes
    """Where the next slice begins; empty: that was the last one."""

    def to_wire(self) -> dict[str, Any]:
        """As verbs say it."""
        return {
            "records": self.records,
            "fallback_records": self.fallback_records,
            "bytes": self.size,
            "ranges": self.ranges,
            "kept": self.kept,
            "next": self.next,
        }


class _Purge(NamedTuple):
    """Remove one hint, unless it has changed since it was read."""

    handoff: HintedHandoff
    key: bytes
    version: int

    def run(self, value: bytes | None, sequence: int) -> None:
        if value is not None and version_of(value) == self.version:
            self.handoff.purged(self.key, value)

    def refuse(self, error: Exception) -> None:
        """It stays: who asked looks again."""


class HintPurge:
    """Of one node. `mark` makes a range owe its target an exchange."""

    def __init__(
        self,
        engine: Engine,
        keeper: HintKeeper,
        handoff: HintedHandoff,
        mark: Callable[[MarkRange], None],
        pace: Pace,
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._keeper = keeper
        self._handoff = handoff
        self._mark = mark
        self._pace = pace
        self._now = now

    async def run(self, target: NodeId, after: bytes, *, lose: bool, dry: bool) -> Slice:
        """Give up the hints for a target from `after` on; `lose`: fallback copies too; `dry`: count only. Raises
        StorageError."""
        start, stop = target_range(target)
        start = max(start, after)
        records = fallbacks = size = kept = 0
        marked: set[MarkRange] = set()
        until = self._now() + SLICE_S
        while True:
            page = await read_page(
                self._engine, HINTS_TREE, start, stop, limit=PAGE_HINTS, bytes_max=PAGE_BYTES_MAX,
                durability=Durability.ALWAYS,
            )  # fmt: skip
            began = self._pace.begin()
            for key, value in page.items:
                fallback = decode(value).kind is not Kind.COORDINATOR
                if fallback and not lose and not dry:
                    kept += 1
                    continue
                records += 1
                fallbacks += fallback
                size += len(key) + len(value)
                mark = self._keeper.ledger.mark(key)
                if mark not in marked and not dry:
                    self._mark(mark)
                marked.add(mark)
                if not dry:
                    purge = _Purge(self._handoff, key, version_of(value))
                    self._keeper.replica.queue.do(HINTS_TREE, key, purge)
            await self._pace.spent(began)
            if page.next_key is None or self._now() >= until:
                return Slice(records, fallbacks, size, len(marked), kept, page.next_key or b"")
            start = page.next_key
