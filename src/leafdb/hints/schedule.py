"""The holder's side of handoff, for all targets: when a session returns its hints start home at once, when it is lost
they stop, and what grows too old is given up for anti-entropy.

Inputs beside messages and time: `on_session_established` and `on_session_lost` from the transport, `on_pauses` when
somebody has paused or resumed delivery, `on_added` after the driver has written a hint the ledger admitted, `on_page`
and `on_removed` answering effects, and `expire`, called about once a minute with the wall clock, the only place where
it matters. Time is monotonic everywhere else.

Conservation: a hint leaves the tree by `Remove` alone, which is asked for only after the target acknowledged that very
version as durable, or after the `MarkRange` of its range (coordinator hints only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING

from leafdb.hints.config import HintsConfig
from leafdb.hints.effects import Effect, Send
from leafdb.hints.expiry import ExpiryPass
from leafdb.hints.hint import decode_key
from leafdb.hints.ledger import Ledger
from leafdb.hints.messages import AnyMessage, HintCredits, HintsDone, HintsWaiting
from leafdb.hints.replay import Replay
from leafdb.types import NodeId

if TYPE_CHECKING:
    from random import Random


class Schedule:
    """One per node. Every method that takes `now` answers with effects, to be performed in order. `paused` says to whom
    nothing is delivered for now."""

    def __init__(
        self, config: HintsConfig, ledger: Ledger, *, rng: Random, paused: Callable[[NodeId], bool] = lambda _: False
    ) -> None:
        config.check()
        self.config = config
        self.ledger = ledger
        self._rng = rng
        self._paused = paused
        self._up: set[NodeId] = set()
        self._last_number = 0
        self._replays: dict[NodeId, Replay] = {}
        self._expiries: dict[NodeId, ExpiryPass] = {}

    # -- the transport's news

    def on_session_established(self, target: NodeId, now: float) -> tuple[Effect, ...]:
        """The bulk stream to `target` is up: begin at once."""
        self._up.add(target)
        if self._paused(target):
            return ()
        replay = self._replays[target] = Replay(
            target, config=self.config, ledger=self.ledger, rng=self._rng, number=self._number, now=now
        )
        return tuple(replay.pump(now))

    def on_session_lost(self, target: NodeId, now: float) -> tuple[Effect, ...]:
        """The bulk stream to `target` broke: stop."""
        self._up.discard(target)
        self._replays.pop(target, None)
        return ()

    def on_pauses(self, now: float) -> tuple[Effect, ...]:
        """Other targets are paused than before: stop there, giving back what was granted, and begin elsewhere. What is
        on its way may arrive, and be sent once more: that changes nothing."""
        effects: list[Effect] = []
        for target in sorted(self._up):
            if not self._paused(target) and target not in self._replays:
                effects += self.on_session_established(target, now)
            elif self._paused(target) and self._replays.pop(target, None) is not None:
                effects.append(Send(target, HintsWaiting(0, 0)))
        return tuple(effects)

    def on_message(self, sender: NodeId, message: AnyMessage, now: float) -> tuple[Effect, ...]:
        """`sender` says `message`; what only a target receives is ignored, and so is a sender that is not up."""
        replay = self._replays.get(sender)
        if replay is None:
            return ()
        effects: list[Effect] = []
        match message:
            case HintCredits(credits=credits):
                replay.credited(credits)
            case HintsDone(batch=batch, refused=refused):
                effects += replay.done(batch, refused, now)
            case _:
                return ()
        return (*effects, *replay.pump(now))

    # -- the driver's answers

    def on_added(self, target: NodeId, now: float) -> tuple[Effect, ...]:
        """A hint for `target` was written."""
        replay = self._replays.get(target)
        if replay is None:
            return ()
        replay.added(now)
        return tuple(replay.pump(now))

    def on_page(
        self, ticket: int, items: Sequence[tuple[bytes, bytes]], *, end: bool, now: float
    ) -> tuple[Effect, ...]:
        """The hints asked for by ReadPage; `end`: there are none after them. Late answers are ignored."""
        for replay in self._replays.values():
            if replay.page(ticket, items, end=end):
                return tuple(replay.pump(now))
        for expiry in self._expiries.values():
            if expiry.ticket == ticket:
                return (*expiry.page(items, end=end), *self._continue(expiry))
        return ()

    def on_page_failed(self, ticket: int, now: float) -> tuple[Effect, ...]:
        """The hints asked for by ReadPage could not be read: begin again later, and prove nothing meanwhile."""
        for replay in self._replays.values():
            if replay.page_failed(ticket, now):
                return tuple(replay.pump(now))
        for target, expiry in self._expiries.items():
            if expiry.ticket == ticket:
                del self._expiries[target]
                break
        return ()

    def on_removed(self, key: bytes, value: bytes | None, now: float) -> tuple[Effect, ...]:
        """A Remove was performed: `value` is what was removed, None if the hint had changed or gone and was left."""
        if value is not None:
            self.ledger.removed(key, value)
        target = decode_key(key).target
        effects: list[Effect] = []
        expiry = self._expiries.get(target)
        if expiry is not None:
            expiry.removed(key)
            effects += self._continue(expiry)
        replay = self._replays.get(target)
        if replay is not None:
            replay.removed(key, really=value is not None)
            effects += replay.pump(now)
        return tuple(effects)

    # -- time

    def expire(self, now_ms: int) -> tuple[Effect, ...]:
        """Begin to give up coordinator hints made more than `age_s_max` before `now_ms`, the wall clock."""
        cutoff_ms = now_ms - int(self.config.age_s_max * 1000)
        effects: list[Effect] = []
        for target in self.ledger.targets():
            if target not in self._expiries and self.ledger.may_hold_older(target, cutoff_ms):
                expiry = ExpiryPass(target, config=self.config, ledger=self.ledger, cutoff_ms=cutoff_ms)
                self._expiries[target] = expiry
                effects += self._continue(expiry)
        return tuple(effects)

    def on_time(self, now: float) -> tuple[Effect, ...]:
        """Do what is due."""
        due = [replay for replay in self._replays.values() if replay.deadline() <= now]
        return tuple(effect for replay in due for effect in replay.pump(now))

    def deadline(self) -> float:
        """When `on_time` is to be called next, if nothing else comes; infinity when there is nothing to do."""
        return min((replay.deadline() for replay in self._replays.values()), default=inf)

    # -- for status pages

    def up(self) -> list[NodeId]:
        """The targets whose session is up."""
        return sorted(self._up)

    def in_flight(self) -> int:
        """Hints sent and not yet answered."""
        return sum(replay.in_flight for replay in self._replays.values())

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _continue(self, expiry: ExpiryPass) -> list[Effect]:
        if expiry.finished:
            self.ledger.end_pass(expiry.target)
            del self._expiries[expiry.target]
            return []
        read = expiry.read(self._number())
        return [read] if read is not None else []

    def check(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Assert the machine's invariants; `items` is the whole hints tree."""
        self.ledger.check(items)
        for target, replay in self._replays.items():
            assert replay.target == target
            assert target in self._up
            assert not self._paused(target)
            replay.check()
        for target, expiry in self._expiries.items():
            assert expiry.target == target
            assert not expiry.finished
