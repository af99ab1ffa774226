"""So many bytes a second and no more, for who moves records: what was moved is paid for afterwards, by waiting.

A limit that is changed holds for the next wait at the latest LOOK_S later. Time nobody used is not saved up.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final

import trio

LOOK_S: Final = 1.0
SLEEP_S_MIN: Final = 0.001
"""What is owed for less is carried over."""


class RateLimit:
    """One limit, shared by all who ask. 0 bytes a second: none."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._owed = 0.0
        """Bytes that were moved and not waited for."""
        self._at = now()
        self.bytes_per_s: int = 0

    def set(self, bytes_per_s: int) -> None:
        """Another limit, from now on."""
        self._pass_time()
        self.bytes_per_s = bytes_per_s

    async def spent(self, size: int, longest_s: float = inf) -> None:
        """So many bytes were moved: return when they are paid for, or after `longest_s`; what is left then the next
        one waits for. Always a checkpoint."""
        self._pass_time()
        self._owed += size
        until = self._now() + longest_s
        await trio.lowlevel.checkpoint()
        while (wait_s := min(self._owed_s(), until - self._now())) > SLEEP_S_MIN:
            await trio.sleep(min(LOOK_S, wait_s))
            self._pass_time()

    @property
    def owing(self) -> bool:
        """Whether anything is left to be waited for."""
        self._pass_time()
        return self._owed_s() > SLEEP_S_MIN

    def _owed_s(self) -> float:
        return self._owed / self.bytes_per_s if self.bytes_per_s else 0.0

    def _pass_time(self) -> None:
        now = self._now()
        self._owed = max(0.0, self._owed - (now - self._at) * self.bytes_per_s) if self.bytes_per_s else 0.0
        self._at = now
