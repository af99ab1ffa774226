"""When to try again, and how long to wait first.

Full jitter: the wait is drawn from 0 to a cap that doubles, so that callers who failed together do not return together.
At most RETRIES_MAX times a call, and only while the client's budget lasts: every call pays in a tenth of a retry, so
when everything fails, retries add a tenth to the load and not a multiple of it. What is safe to repeat is decided in
`call.py`; this page only knows how often.
"""

from __future__ import annotations

from random import Random
from typing import Final

RETRIES_MAX: Final = 3
PAUSE_S_BASE: Final = 0.025
PAUSE_S_MAX: Final = 1.0
BUDGET_PER_CALL: Final = 0.1
BUDGET_MAX: Final = 100.0
BUDGET_START: Final = 10.0


class RetryBudget:
    """Tokens shared by all calls of a client. Threads may race on it: it bounds a load, it does not count exactly."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = BUDGET_START

    def pay_in(self) -> None:
        """A new call: a tenth of a retry is earned."""
        if self._tokens < BUDGET_MAX:
            self._tokens = min(BUDGET_MAX, self._tokens + BUDGET_PER_CALL)

    def take(self) -> bool:
        """Spend one retry; False when there is none to spend."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def check(self) -> None:
        """The budget is never overdrawn and never hoarded."""
        assert 0.0 <= self._tokens <= BUDGET_MAX


def pause_s(attempt: int, rng: Random, *, at_least: float = 0.0) -> float:
    """How long to wait before retry number `attempt` (0 is the first); `at_least` is what the server asked for."""
    cap = min(PAUSE_S_MAX, PAUSE_S_BASE * (1 << attempt))
    return at_least + rng.uniform(0.0, cap)
