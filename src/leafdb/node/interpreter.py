"""How the interpreter of a node's process is set: whatever it does beside the loop's own work, it does in short pieces.

The collector. What a request makes holds no cycles and is freed by its counts, so a collection finds next to nothing,
and what it costs is a walk over everything that was made since the one before. Seldom, then: the default walks over a
request's objects again and again, for about a tenth of a put's time. But not so seldom that one walk is a pause: 50,000
young objects take 17 to 35 ms. So the youngest generation stays small, and the older ones, which the records of the
memtable reach in thousands, are looked at as seldom as can be.

The lock. A thread that computes (it opens the tables of a compaction, it encodes a batch of the log) gives the lock up
to the loop when the loop has asked for so long, 5 ms by default: that is a request's whole 99th percentile. And the
loop gives it up with every system call, half a dozen of them in a pass, and has to ask again after each.
"""

from __future__ import annotations

import gc
import sys
from typing import Final

COLLECTOR_THRESHOLDS: Final = (400, 2_500, 50)
"""Objects until the youngest generation is walked, and how many walks of one until the next older is: a fraction
of a millisecond, and each million objects, and each fifty million."""
SWITCH_S: Final = 0.000_1


def calm_interpreter() -> None:
    """Set this process up to serve; to be called when all modules are loaded, which no collection need walk again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)
