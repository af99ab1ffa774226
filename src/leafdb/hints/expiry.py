"""Giving up hints that are too old: one pass over a target's hints, whether it is up or not.

Only coordinator hints go, each after its range has been marked for anti-entropy; fallback copies stay (see `hint`).
The pass also makes the ledger's creation times exact again. The cutoff is fixed when the pass begins.
"""

from __future__ import annotations

from collections.abc import Iterable

from leafdb.hints.config import HintsConfig
from leafdb.hints.effects import Effect, MarkRange, ReadPage, Remove
from leafdb.hints.hint import Kind, decode, version_of
from leafdb.hints.ledger import Ledger
from leafdb.types import NodeId


class ExpiryPass:
    """One target's pass. Reads the next page when the removals of the last are confirmed."""

    __slots__ = ("_after", "_config", "_cutoff_ms", "_end", "_ledger", "_marked", "_removing", "target", "ticket")

    def __init__(self, target: NodeId, *, config: HintsConfig, ledger: Ledger, cutoff_ms: int) -> None:
        self.target: NodeId = target
        self.ticket: int | None = None
        self._config = config
        self._ledger = ledger
        self._cutoff_ms = cutoff_ms
        self._after: bytes | None = None
        self._end = False
        self._removing: set[bytes] = set()
        self._marked: set[MarkRange] = set()
        ledger.begin_pass(target)

    def page(self, items: Iterable[tuple[bytes, bytes]], *, end: bool) -> list[Effect]:
        """The page asked for under `ticket`."""
        self.ticket = None
        self._end = end
        effects: list[Effect] = []
        for key, value in items:
            self._after = key
            hint = decode(value)
            if hint.kind is not Kind.COORDINATOR or hint.created_ms >= self._cutoff_ms:
                self._ledger.passed(self.target, hint)
                continue
            mark = self._ledger.mark(key)
            if mark not in self._marked:
                self._marked.add(mark)
                effects.append(mark)
            self._removing.add(key)
            effects.append(Remove(key, version_of(value), expired=True))
        return effects

    def removed(self, key: bytes) -> None:
        """The removal is done, or the hint has changed since and is somebody's news again."""
        self._removing.discard(key)

    def read(self, number: int) -> ReadPage | None:
        """Ask for the next page under the ticket `number`, or None while there is something to wait for."""
        if self.ticket is not None or self._end or self._removing:
            return None
        self.ticket = number
        config = self._config
        return ReadPage(number, self.target, self._after, config.page_records_max, config.batch_bytes_max)

    @property
    def finished(self) -> bool:
        """Everything was read and every removal confirmed."""
        return self._end and not self._removing
