"""When to try again, and how long to wait first.

Full jitter: the wait is drawn from 0 to a cap that doubles, so that callers who failed together do not return together.
At most RETRIES_MAX times a call, and only while the client's budget lasts: every call earns a tenth of a retry (see
`token_bucket`). What is safe to repeat is decided in `call.py`; this page only knows how often.
"""

from __future__ import annotations

from random import Random
from typing import Final

RETRIES_MAX: Final = 3
PAUSE_S_BASE: Final = 0.025
PAUSE_S_MAX: Final = 1.0
RETRY_SHARE: Final = 0.1
RETRIES_SAVED_MAX: Final = 100.0
RETRIES_AT_FIRST: Final = 10.0


def pause_s(attempt: int, rng: Random, *, at_least: float = 0.0) -> float:
    """How long to wait before retry number `attempt` (0 is the first); `at_least` is what the server asked for."""
    cap = min(PAUSE_S_MAX, PAUSE_S_BASE * (1 << attempt))
    return at_least + rng.uniform(0.0, cap)
