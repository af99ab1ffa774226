"""How far the wall clocks of the others are from this node's: each is asked now and then what time it is.

The answer was made somewhere between the question and its arrival, so half the round trip is how wrong the difference
can be (Cristian 1989); it is told less that much, so that a slow link is no skewed clock. Clocks decide nothing about
which write replaces which, but `lww` buckets, expiry and purging go by them, and a clock that is seconds ahead is
refused (docs/operations/trouble.md). Better to hear of it before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.codec.fields import int_field
from leafdb.errors import LeafdbError
from leafdb.limits import HLC_DRIFT_MS_ALARM
from leafdb.node.admin import Verb, ask_member
from leafdb.node.logs import Log
from leafdb.types import NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

INTERVAL_S: Final = 30.0

log: Log = Log("clock")


def skew_s(asked_ms: int, answered_ms: int, theirs_ms: int) -> float:
    """By how much their clock is ahead at the least, given this node's when it asked and when it had the answer;
    0 when the round trip can be all of it."""
    half_ms = (answered_ms - asked_ms) / 2
    ahead_ms = theirs_ms - (asked_ms + half_ms)
    return max(0.0, abs(ahead_ms) - abs(half_ms)) / 1000 * (1 if ahead_ms > 0 else -1)


class ClockWatch:
    """Of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._skews_s: dict[NodeId, float] = {}

    async def run(self) -> None:
        """Ask everybody, again and again, until cancelled."""
        while True:
            await trio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Ask every member that can be reached, one after the other, and say which are too far off."""
        node, found = self._node, {}
        for member in sorted(node.view.usable):
            asked_ms = node.world.now_ms()
            try:
                answer = await ask_member(node, member, "clock.read", {})
                theirs_ms = int_field(answer, "now_ms")
            except (LeafdbError, ValueError):
                continue  # it is away, or of a version that does not tell
            found[member] = skew = skew_s(asked_ms, node.world.now_ms(), theirs_ms)
            if abs(skew) * 1000 > HLC_DRIFT_MS_ALARM:
                log.warning("a clock is wrong: look at the time synchronisation of both machines",
                            peer=node.view.name_of(member), ahead_s=round(skew, 3))  # fmt: skip
        self._skews_s = found

    def skews(self) -> Mapping[str, float]:
        """By the name of each peer that answered last time: by how many seconds it is ahead."""
        return {self._node.view.name_of(member): skew for member, skew in self._skews_s.items()}


async def clock_read(node: Node, args: Mapping[str, Any]) -> dict[str, Any]:
    """Peer verb: what time it is here."""
    return {"now_ms": node.world.now_ms()}


PEER_VERBS: Final[Mapping[str, Verb]] = {"clock.read": clock_read}
