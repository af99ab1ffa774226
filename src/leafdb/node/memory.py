"""The memory ledger: one place where everything that grows with load says how much it holds.

Nothing is malloc'ed here. Each holder gives a gauge; admission asks the sum against `memory_bytes_max`, `/metrics`
shows each line, and the simulation asserts the sum (I35). The sum is read a few times a second, not on every request:
between two readings the holders' own bounds hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

READ_INTERVAL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Line:
    """One holder and what it held at the last reading."""

    holder: str
    held_bytes: int


class MemoryLedger:
    """Named gauges and their sum."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held_bytes: int = 0
        self._gauges: dict[str, Callable[[], int]] = {}

    def hold(self, holder: str, gauge: Callable[[], int]) -> None:
        """Register a holder; `gauge` returns its bytes now."""
        assert holder not in self._gauges
        self._gauges[holder] = gauge

    def read(self) -> tuple[Line, ...]:
        """Read every gauge; also refreshes the sum that `full` looks at."""
        lines = tuple(Line(holder, gauge()) for holder, gauge in self._gauges.items())
        self.held_bytes = sum(line.held_bytes for line in lines)
        return lines

    async def run(self) -> None:
        """Keep the sum fresh."""
        while True:
            self.read()
            await trio.sleep(READ_INTERVAL_S)

    @property
    def full(self) -> bool:
        """Whether new work must be refused until something is given back."""
        return self.held_bytes >= self.bytes_max
