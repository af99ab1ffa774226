"""What a node spends its time with: the stacks of its threads, looked at many times a second.

A thread of its own looks at every other (`sys._current_frames`), so that a loop that is busy is seen as well. It costs
some tens of microseconds a look and nothing in between. The answer is in the form that flame graphs are drawn from:
`thread;outermost;...;innermost` and how often it was seen. A thread that waits is seen waiting: its innermost function
says so.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping
from types import FrameType
from typing import Final

SECONDS_MAX: Final = 60.0
INTERVAL_S: Final = 0.01
DEPTH_MAX: Final = 96
STACKS_MAX: Final = 4_096
OTHERS: Final = "(other stacks)"


def sample(seconds: float, stop: threading.Event) -> Mapping[str, int]:
    """Look for about so many seconds, or until `stop`; on the thread that calls. How often each stack was seen."""
    assert 0 < seconds <= SECONDS_MAX
    seen: Counter[str] = Counter()
    own = threading.get_ident()
    for _ in range(max(1, round(seconds / INTERVAL_S))):
        if stop.wait(INTERVAL_S):
            break
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for number, frame in sys._current_frames().items():
            if number != own:
                stack = f"{names.get(number, 'thread')};{folded(frame)}"
                seen[stack if stack in seen or len(seen) < STACKS_MAX else OTHERS] += 1
    return seen


def folded(frame: FrameType | None) -> str:
    """A stack from the outermost function to the innermost; of one that is too deep the innermost part."""
    names: list[str] = []
    while frame is not None and len(names) < DEPTH_MAX:
        code = frame.f_code
        names.append(f"{frame.f_globals.get('__name__', '?')}:{code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(names))
