"""The target's side of handoff: who may send how much, so that a node that comes back is not buried by its friends.

All holders together have at most `credits_max` records granted and not yet merged. Who says that hints are waiting
stands in a queue; free credits go round it, each time at most a fair share. A batch takes its records' credits with it;
they are free again when it is merged. Credits of a holder that goes, gives them back or sits on them return at once.

Invariant: granted (unused plus being merged) never exceeds `credits_max`; nothing beyond a holder's credits is applied.
"""

from __future__ import annotations

from math import inf

from leafdb.hints.config import HintsConfig
from leafdb.hints.effects import Apply, GrantorEffect, Send
from leafdb.hints.messages import AnyMessage, HintBatch, HintCredits, HintsDone, HintsWaiting
from leafdb.types import NodeId


class Holder:
    """One node that keeps hints for us."""

    __slots__ = ("credits", "merging", "used_at", "waiting")

    def __init__(self, now: float) -> None:
        self.waiting: int = 0
        """Records it says it still has, beyond those it holds credits for."""
        self.credits: int = 0
        self.merging: dict[int, int] = {}
        """Records of each batch under way."""
        self.used_at: float = now


class CreditGrantor:
    """One per node. A pure machine of the usual shape; `on_applied` and `on_session_lost` are its further inputs."""

    def __init__(self, config: HintsConfig) -> None:
        config.check()
        self.config = config
        self._holders: dict[NodeId, Holder] = {}
        """In the order in which they are served next."""

    def on_message(self, sender: NodeId, message: AnyMessage, now: float) -> tuple[GrantorEffect, ...]:
        """`sender` says `message`; what only a holder receives is ignored."""
        match message:
            case HintsWaiting(records=0):
                self._forget_credits(sender)
                return self._grant(now)
            case HintsWaiting(records=records):
                holder = self._holders.setdefault(sender, Holder(now))
                holder.credits = 0  # it asks when it has none left: what we thought it had is lost
                holder.waiting = records
                return self._grant(now)
            case HintBatch():
                return self._on_batch(sender, message, now)
            case _:
                return ()

    def on_applied(self, sender: NodeId, batch: int, refused: tuple[int, ...], now: float) -> tuple[GrantorEffect, ...]:
        """The records of `batch` are merged and durable, except those at the places `refused`."""
        holder = self._holders.get(sender)
        if holder is None or holder.merging.pop(batch, None) is None:
            return ()
        holder.used_at = now
        self._drop_if_done(sender, holder)
        return Send(sender, HintsDone(batch, refused)), *self._grant(now)

    def on_session_lost(self, node: NodeId, now: float) -> tuple[GrantorEffect, ...]:
        """The stream to `node` broke: what it was granted is free."""
        self._holders.pop(node, None)
        return self._grant(now)

    def on_time(self, now: float) -> tuple[GrantorEffect, ...]:
        """Take credits back from holders that sit on them."""
        for node in [node for node, holder in self._holders.items() if self._idle_since(holder) <= now]:
            self._forget_credits(node)
        return self._grant(now)

    def deadline(self) -> float:
        """When `on_time` is to be called next; infinity while nothing is granted."""
        return min((self._idle_since(holder) for holder in self._holders.values()), default=inf)

    @property
    def granted(self) -> int:
        """Records granted and not yet merged."""
        return sum(holder.credits + sum(holder.merging.values()) for holder in self._holders.values())

    def _idle_since(self, holder: Holder) -> float:
        return holder.used_at + self.config.grant_idle_s if holder.credits else inf

    def _on_batch(self, sender: NodeId, batch: HintBatch, now: float) -> tuple[GrantorEffect, ...]:
        holder = self._holders.get(sender)
        count = len(batch.hints)
        if holder is None or count > holder.credits or count == 0 or batch.batch in holder.merging:
            return (Send(sender, HintsDone(batch.batch, tuple(range(count)))),)
        holder.credits -= count
        holder.merging[batch.batch] = count
        holder.waiting = max(0, batch.waiting - holder.credits)
        holder.used_at = now
        return (Apply(sender, batch),)

    def _grant(self, now: float) -> tuple[GrantorEffect, ...]:
        free = self.config.credits_max - self.granted
        queue = [node for node, holder in self._holders.items() if holder.waiting > 0]
        effects: list[GrantorEffect] = []
        share = max(1, self.config.credits_max // max(1, len(queue)))
        for node in queue:
            holder = self._holders[node]
            credits = min(free, share - holder.credits, holder.waiting)
            if credits <= 0:
                continue
            free -= credits
            holder.credits += credits
            holder.waiting -= credits
            holder.used_at = now
            self._holders[node] = self._holders.pop(node)
            effects.append(Send(node, HintCredits(credits)))
        return tuple(effects)

    def _forget_credits(self, node: NodeId) -> None:
        holder = self._holders.get(node)
        if holder is not None:
            holder.credits = holder.waiting = 0
            self._drop_if_done(node, holder)

    def _drop_if_done(self, node: NodeId, holder: Holder) -> None:
        if not (holder.credits or holder.waiting or holder.merging):
            del self._holders[node]

    def check(self) -> None:
        """Assert the machine's invariants."""
        assert 0 <= self.granted <= self.config.credits_max
        for holder in self._holders.values():
            assert holder.credits >= 0
            assert holder.waiting >= 0
            assert holder.credits or holder.waiting or holder.merging, "an idle holder is forgotten"
