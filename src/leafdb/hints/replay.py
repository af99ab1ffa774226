"""The way home of one target's hints, while its session is up.

A pass reads all its hints in key order, page by page, and sends them in batches within the target's credits. What is
acknowledged is removed, if unchanged; what is refused stays for the next pass, after a pause. A pass ends when all read
hints are answered and all removals confirmed; another follows while there is reason to: hints added or changed behind
the cursor, or refusals. Losing the session forgets the pass; the hints are where they were.

Nothing but `Remove` after an acknowledgement takes a hint away, so every step may be lost or repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING

from leafdb.hints.config import HintsConfig
from leafdb.hints.effects import Drained, Effect, ReadPage, Remove, Send
from leafdb.hints.hint import decode, decode_key, version_of
from leafdb.hints.ledger import Ledger
from leafdb.hints.messages import HintBatch, HintItem, HintsWaiting
from leafdb.types import NodeId

if TYPE_CHECKING:
    from random import Random


class Batch:
    """Hints sent and not yet answered, in order, with the versions they had."""

    __slots__ = ("expires", "removals")

    def __init__(self, removals: list[Remove], expires: float) -> None:
        self.removals: list[Remove] = removals
        self.expires: float = expires


class Replay:
    """One target that is up. Built when its session returns, thrown away when it is lost."""

    def __init__(
        self, target: NodeId, *, config: HintsConfig, ledger: Ledger, rng: Random, number: Callable[[], int], now: float
    ) -> None:
        self.target = target
        self.config = config
        self._ledger = ledger
        self._rng = rng
        self._number = number
        self._credits = 0
        self._asked_until = -inf
        """Credits were asked for, by a message of its own or with the last batch; ask again then."""
        self._paused_until = now
        """Nothing is begun, read or sent before."""
        self._wanted = True
        """A pass is to begin."""
        self._failures = 0
        self._idle()

    def _idle(self) -> None:
        self._passing = False
        self._ticket: int | None = None
        """Of the page being read."""
        self._after: bytes | None = None
        self._end = False
        self._page: deque[tuple[bytes, bytes]] = deque()
        self._batches: dict[int, Batch] = {}
        self._removing: set[bytes] = set()
        self._again = False
        """Something was added or changed behind the cursor, or refused."""

    @property
    def in_flight(self) -> int:
        """Hints sent and not yet answered."""
        return sum(len(batch.removals) for batch in self._batches.values())

    # -- inputs; each may be followed by `pump`

    def added(self, now: float) -> None:
        """A hint for the target came."""
        if self._passing:
            self._again = True
        elif not self._wanted:
            self._wanted = True
            self._paused_until = max(self._paused_until, now + self.config.linger_s)

    def page(self, ticket: int, items: Iterable[tuple[bytes, bytes]], *, end: bool) -> bool:
        """The page asked for under `ticket`; False if it is not ours."""
        if ticket != self._ticket:
            return False
        self._ticket = None
        self._page.extend(items)
        self._end = end
        if self._page:
            self._after = self._page[-1][0]
        assert self._page or end, "an empty page that is not the end"
        return True

    def page_failed(self, ticket: int, now: float) -> bool:
        """The page could not be read; False if it is not ours."""
        if ticket != self._ticket:
            return False
        self._give_up_pass(now)
        return True

    def credited(self, credits: int) -> None:
        """The target takes so many more."""
        self._credits = min(self._credits + credits, self.config.credits_max)
        self._asked_until = -inf

    def done(self, batch: int, refused: tuple[int, ...], now: float) -> list[Effect]:
        """The target's answer to a batch."""
        sent = self._batches.pop(batch, None)
        if sent is None:
            return []
        places = set(refused)
        removals = [removal for place, removal in enumerate(sent.removals) if place not in places]
        self._removing.update(removal.key for removal in removals)
        if removals:
            self._failures = 0
        if len(removals) < len(sent.removals):
            self._again = True
            self._pause(now)
        return list(removals)

    def removed(self, key: bytes, *, really: bool) -> None:
        """The removal asked for is done, or was not due because the hint has changed since."""
        if key in self._removing:
            self._removing.remove(key)
            self._again |= not really

    # -- steps

    def deadline(self) -> float:
        """When `pump` has something to do, if nothing else comes."""
        due = min((batch.expires for batch in self._batches.values()), default=inf)
        if not self._passing:
            return self._paused_until if self._wanted and self._ledger.records(self.target) else inf
        if self._page and len(self._batches) < self.config.batches_in_flight_max:
            due = min(due, max(self._paused_until, self._asked_until))
        elif not self._end and self._ticket is None and not self._page:
            due = min(due, self._paused_until)
        return due

    def pump(self, now: float) -> list[Effect]:
        """Do all that can be done now."""
        if any(batch.expires <= now for batch in self._batches.values()):
            self._give_up_pass(now)
        if now < self._paused_until:
            return [*self._give_back(), *self._finish(now)]
        if not self._passing:
            if not self._wanted or self._ledger.records(self.target) == 0:
                return self._give_back()
            self._passing = True
            self._wanted = False
        effects = [*self._ask(now), *self._send(now)]
        if self._page:
            effects += self._ask(now)  # the last batch has used up the credits
        return [*effects, *self._read(), *self._finish(now)]

    def _ask(self, now: float) -> list[Effect]:
        if self._credits > 0 or now < self._asked_until:
            return []
        if not self._page and (self._end or self._batches):
            return []  # nothing to send, or not known yet
        self._asked_until = now + self.config.reply_timeout_s
        records = max(1, self._ledger.records(self.target) - self.in_flight - len(self._removing))
        return [Send(self.target, HintsWaiting(records, self._ledger.target_bytes(self.target)))]

    def _send(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._page and self._credits > 0 and len(self._batches) < self.config.batches_in_flight_max:
            items: list[HintItem] = []
            removals: list[Remove] = []
            size = 0
            while self._page and self._credits > 0:
                key, value = self._page[0]
                size += len(key) + len(value)
                if items and size > self.config.batch_bytes_max:
                    break
                self._page.popleft()
                self._credits -= 1
                parts = decode_key(key)
                assert parts.target == self.target
                items.append(HintItem(parts.bucket, parts.storage_key, decode(value).record))
                removals.append(Remove(key, version_of(value)))
            number = self._number()
            self._batches[number] = Batch(removals, now + self.config.reply_timeout_s)
            waiting = max(0, self._ledger.records(self.target) - self.in_flight - len(self._removing))
            # Nothing waits: the target owes us no more credits, whatever was asked for before.
            self._asked_until = now + self.config.reply_timeout_s if waiting else -inf
            effects.append(Send(self.target, HintBatch(number, waiting, tuple(items))))
        return effects

    def _read(self) -> list[Effect]:
        if self._end or self._page or self._ticket is not None:
            return []
        self._ticket = self._number()
        config = self.config
        return [ReadPage(self._ticket, self.target, self._after, config.page_records_max, config.batch_bytes_max)]

    def _finish(self, now: float) -> list[Effect]:
        """End the pass if it has come to its end, and say what follows."""
        if not self._passing or not self._end or self._page or self._batches or self._removing:
            return []
        again, left = self._again, self._ledger.records(self.target)
        self._idle()
        if left:
            self._wanted = True
            if again:
                self._paused_until = max(self._paused_until, now + self.config.linger_s)
            else:
                self._pause(now)  # the ledger knows of hints that the pass did not meet: look again, unhurried
            return []
        return [*self._give_back(), Drained(self.target)]

    def _give_back(self) -> list[Effect]:
        """Credits that are not to be used now, be it that they came too late: others wait for them."""
        if not self._credits:
            return []
        self._credits = 0
        self._asked_until = -inf
        return [Send(self.target, HintsWaiting(0, 0))]

    def _pause(self, now: float) -> None:
        self._failures += 1
        pause_s = min(self.config.backoff_s_max, self.config.backoff_s_min * 2 ** min(self._failures - 1, 16))
        self._paused_until = now + pause_s * (0.5 + 0.5 * self._rng.random())

    def _give_up_pass(self, now: float) -> None:
        """The target, or our own disk, does not answer: begin again, later. Late answers find nothing to change."""
        self._idle()
        self._asked_until = -inf
        self._wanted = True
        self._pause(now)

    def check(self) -> None:
        """Assert the invariants."""
        assert self._credits >= 0
        assert len(self._batches) <= self.config.batches_in_flight_max
        assert self._passing or not (self._page or self._batches or self._removing or self._ticket is not None)
        assert len(self._page) <= self.config.page_records_max
