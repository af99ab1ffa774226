"""How long a suspect has to answer, and how far we may trust our own ears: the two timers Lifeguard adds to SWIM.

`Suspicion`: with nobody but the first accuser the timer runs to its maximum; each further accuser shortens it, by the
logarithm of their number, down to the minimum at `confirmations_wanted`. One slow observer alone is thus patient, and
a real crash, which everybody sees, is agreed on quickly. An obituary heard from somebody else (`hasten`) brings the
timer to its minimum and no further: its author may be the one who is cut off.

`LocalHealth`: a score from 0 (well) to `score_max`. It rises when evidence points at ourselves (helpers that do not
answer either, being suspected by others, waking up late) and falls with every probe that succeeds. Our own probe
interval and timeouts are multiplied by score + 1, so a node that is short of CPU accuses late instead of wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import log

from leafdb.types import NodeId


class Suspicion:
    """The timer of one suspect. Accusers are counted once each."""

    __slots__ = ("_accusers", "_hastened", "asked_at", "confirmations_wanted", "max_s", "min_s", "started", "timeout_s")

    def __init__(self, accuser: NodeId, *, now: float, min_s: float, max_s: float, confirmations_wanted: int) -> None:
        self._accusers = {accuser}
        self._hastened = False
        self.asked_at: float = now
        """When the suspect was last asked because its time was nearly over."""
        self.started: float = now
        self.resize(min_s=min_s, max_s=max_s, confirmations_wanted=confirmations_wanted)

    def resize(self, *, min_s: float, max_s: float, confirmations_wanted: int) -> None:
        """The cluster is of another size now. The suspect keeps the time it has had, and its accusers."""
        assert 0 < min_s <= max_s
        self.min_s: float = min_s
        self.max_s: float = max_s
        self.confirmations_wanted: int = confirmations_wanted
        self._set_timeout()

    @property
    def confirmations(self) -> int:
        """Independent accusers beyond the first."""
        return max(0, len(self._accusers) - 1)

    def confirm(self, accuser: NodeId) -> bool:
        """Count `accuser`; answers whether that is news (a new accuser, and the timer not yet at its minimum)."""
        if accuser in self._accusers or self.confirmations >= self.confirmations_wanted:
            return False
        self._accusers.add(accuser)
        self._set_timeout()
        return True

    def hasten(self) -> None:
        """Somebody has seen this suspicion through: the minimum is enough."""
        self._hastened = True
        self._set_timeout()

    def discard(self, accusers: Iterable[NodeId]) -> None:
        """These are members no longer: what they said does not count."""
        self._accusers.difference_update(accusers)
        self._set_timeout()

    def _set_timeout(self) -> None:
        """max - (max - min) * log(n + 1) / log(k + 1), with n confirmations of k wanted."""
        if self.confirmations_wanted == 0 or self._hastened:
            self.timeout_s: float = self.min_s
            return
        share = log(self.confirmations + 1) / log(self.confirmations_wanted + 1)
        self.timeout_s = max(self.min_s, self.max_s - (self.max_s - self.min_s) * share)

    @property
    def expires(self) -> float:
        """When the suspect is to be believed dead."""
        return self.started + self.timeout_s


class LocalHealth:
    """How unwell we believe we are."""

    __slots__ = ("score", "score_max")

    def __init__(self, score_max: int) -> None:
        self.score: int = 0
        self.score_max: int = score_max

    def worse(self, by: int = 1) -> None:
        """Evidence against ourselves."""
        assert by >= 0
        self.score = min(self.score_max, self.score + by)

    def better(self) -> None:
        """A probe succeeded."""
        self.score = max(0, self.score - 1)

    def scale(self, seconds: float) -> float:
        """Our own timeout or interval, stretched."""
        return seconds * (self.score + 1)
