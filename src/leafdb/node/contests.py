"""Two starts of one store at a time: a later one knocks while an earlier one is still connected.

Mostly the earlier one is dead and nobody has heard of it yet: its machine lost power, its connections are half open.
But it may live: then the later one runs from a copy of its disk that was taken while it ran, and no count of starts can
tell, for the copy's start is the next one. So the earlier one is asked something that only a living process answers,
now that the later one has been seen. An answer proves that there are two, and the later one is refused for as long as
the earlier one stays connected. Silence, or the end of its session, lets the later one in when it comes again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from leafdb.types import NodeId
from leafdb.wire.hello import PeerFacts, Refusal


@dataclass(slots=True)
class _Contest:
    """A later start that knocked, and what the earlier one said since."""

    boot: int
    nonce: bytes
    elder_nonce: bytes
    lives: bool | None = None
    """Whether the earlier one answered; None: it is still being asked."""


class Contests:
    """Those under way, one a node. `elder(node)` answers the facts of the session there is with a node; `ask(node,
    told)` asks over it, within a deadline, whether anybody is there: False when it cannot, else `told` is called once,
    later."""

    def __init__(
        self,
        elder: Callable[[NodeId], PeerFacts | None],
        ask: Callable[[NodeId, Callable[[bool], None]], bool],
    ) -> None:
        self._elder = elder
        self._ask = ask
        self._open: dict[NodeId, _Contest] = {}

    def verdict(self, facts: PeerFacts) -> Refusal | None:
        """Whether a start that is newer than any that was welcome has to wait, or is a copy's."""
        elder = self._elder(facts.node)
        if elder is None or elder.boot >= facts.boot:
            self._open.pop(facts.node, None)
            return None
        contest = self._open.get(facts.node)
        asked = (facts.boot, facts.boot_nonce, elder.boot_nonce)
        if contest is None or (contest.boot, contest.nonce, contest.elder_nonce) != asked:
            contest = _Contest(*asked)
            if not self._ask(facts.node, lambda lives, contest=contest: _told(contest, lives=lives)):  # type: ignore[misc]
                return None
            self._open[facts.node] = contest
        if contest.lives is None:
            return Refusal.CONTESTED
        if contest.lives:
            return Refusal.CLONE
        del self._open[facts.node]
        return None


def _told(contest: _Contest, *, lives: bool) -> None:
    contest.lives = lives
