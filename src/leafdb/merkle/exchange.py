"""The initiator's side of an exchange: finds the keys that differ and sees to their repair, in both directions.

    compare -> equal                                                 equal trees: two small messages, nothing else
    compare -> branches, leaves -> differing, (want -> keys)*, finish

Work is proportional to the difference: hashes of differing branches, key lists of differing leaves, records of
differing keys. The leaves are worked off in windows; the answers are paged; a page's repairs are done before the next
page is asked for, so memory is bounded on both sides and the responder only ever answers.

A key only they have is fetched, one only we have is offered, one that differs is fetched, merged here, and then offered
(unless the driver says that the merge gave exactly theirs). The trees may be older than the lists: a write under way
then looks like a difference and is merged once more, which changes nothing.

Where one store is made whole by the other (`mends`), "nothing of this key" is news as well: what only the store to be
made whole has is asked for, or offered, too, and comes as nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from typing import TypeVar

from leafdb.merkle.compare import Entry, ascending, between, difference, differing
from leafdb.merkle.effects import Counts, Done, Effect, ExchangeConfig, Failed, Fetch, NeedLeaves, Offer, Send
from leafdb.merkle.messages import (
    AnyMessage,
    Branches,
    Cancel,
    Compare,
    Differing,
    Equal,
    Finish,
    KeyList,
    Keys,
    Leaves,
    Refuse,
    Want,
)
from leafdb.merkle.size import payload_bytes
from leafdb.merkle.tree import BRANCHES, FAN_OUT, Tree, leaf_of
from leafdb.types import BucketId, NodeId, PartitionId

T = TypeVar("T")


class Initiator:
    """One exchange with `peer`. Call `start`, then feed it until it says Done or Failed; then throw it away."""

    def __init__(
        self,
        config: ExchangeConfig,
        *,
        peer: NodeId,
        exchange: int,
        bucket: BucketId,
        partition: PartitionId,
        tree: Tree,
    ) -> None:
        self.config = config
        self.peer = peer
        self.exchange = exchange
        self.bucket = bucket
        self.partition = partition
        self.counts: Counts = Counts()
        self.ended: bool = False
        self._tree = tree
        self._asked: AnyMessage | None = None
        """What the peer owes an answer to."""
        self._answer_until = inf
        self._left: deque[int] = deque()
        """Differing leaves beyond the window."""
        self._leaves_at_once = 1
        self._window: deque[int] = deque()
        """Leaves whose lists are being compared; the first perhaps in part, up to `_after`."""
        self._after = b""
        self._own: dict[int, Sequence[Entry]] = {}
        """Our lists of the window's leaves, as far as they have come."""
        self._page: Keys | None = None
        """Their lists, waiting for ours."""
        self._to_fetch: deque[bytes] = deque()
        self._to_offer: deque[bytes] = deque()
        self._repairing: Fetch | Offer | None = None
        self._mended_here = False
        self._mended_there = False

    # -- inputs

    def mends(self, *, here: bool, there: bool) -> None:
        """Our store is made whole by theirs, or theirs by ours. To be said before the answer to `compare`; after it
        nothing changes any more."""
        assert not (here and there)
        if isinstance(self._asked, Compare):
            self._mended_here, self._mended_there = here, there

    def start(self, now: float) -> tuple[Effect, ...]:
        """Say our root."""
        root, keys = self._tree.root(), self._tree.keys
        return (self._ask(Compare(self.exchange, self.bucket, self.partition, root, keys), now),)

    def on_message(self, sender: NodeId, message: AnyMessage, now: float) -> tuple[Effect, ...]:
        """The peer's answer. One that was not asked for ends the exchange, one of another exchange is ignored."""
        if self.ended or sender != self.peer or message.exchange != self.exchange:
            return ()
        asked, self._asked, self._answer_until = self._asked, None, inf
        self._count_bytes(message)
        match asked, message:
            case Compare(), Equal():
                return (self._done(),)
            case Compare(), Refuse(reason=reason):
                return self._failed(f"refused: {reason.name.lower()}", tell=False)
            case Compare(), Branches():
                return self._on_branches(message, now)
            case Leaves(), Differing():
                return self._on_differing(asked, message, now)
            case Want(), Keys() if self._page is None:
                return self._on_keys(asked, message, now)
            case _:
                return self._failed(f"unexpected {message.kind}")

    def on_leaf(self, leaf: int, entries: Sequence[Entry], now: float) -> tuple[Effect, ...]:
        """Our own list of a leaf: every key in it with its record's digest, in order of keys."""
        if self.ended or leaf not in self._window:
            return ()
        assert ascending([key for key, _ in entries])
        self._own[leaf] = entries
        return self._proceed(now)

    def on_fetched(self, received: int, size: int, now: float, *, settled: Iterable[bytes] = ()) -> tuple[Effect, ...]:
        """The Fetch is done: so many records of `size` bytes came and were merged.

        `settled`: keys for which the merge gave exactly the peer's record, so that nothing need be offered.
        """
        if self.ended:
            return ()
        assert isinstance(self._repairing, Fetch)
        self._repairing = None
        self.counts = replace(self.counts, received=self.counts.received + received, bytes=self.counts.bytes + size)
        gone = set(settled)
        if gone:
            self._to_offer = deque(key for key in self._to_offer if key not in gone)
        return self._proceed(now)

    def on_offered(self, sent: int, size: int, now: float) -> tuple[Effect, ...]:
        """The Offer is done: the peer merged so many records of `size` bytes."""
        if self.ended:
            return ()
        assert isinstance(self._repairing, Offer)
        self._repairing = None
        self.counts = replace(self.counts, sent=self.counts.sent + sent, bytes=self.counts.bytes + size)
        return self._proceed(now)

    def abort(self, reason: str) -> tuple[Effect, ...]:
        """The session is lost, the node drains, a repair failed: give up."""
        return () if self.ended else self._failed(reason)

    def on_time(self, now: float) -> tuple[Effect, ...]:
        """Give up waiting for the peer."""
        return self._failed("no answer in time") if not self.ended and self._answer_until <= now else ()

    def deadline(self) -> float:
        """When `on_time` is to be called; infinity while it is the driver's turn."""
        return inf if self.ended else self._answer_until

    # -- the levels

    def _on_branches(self, message: Branches, now: float) -> tuple[Effect, ...]:
        places = differing(self._tree.branches(), message.hashes)
        if not places:
            return self._failed("roots differ, branches do not")
        self.counts = replace(self.counts, branches=len(places))
        self._leaves_at_once = self.config.leaves_at_once(max(message.keys, self._tree.keys))
        leaves = tuple((place, self._tree.leaves_of(place)) for place in places)
        return (self._ask(Leaves(self.exchange, leaves), now),)

    def _on_differing(self, asked: Leaves, message: Differing, now: float) -> tuple[Effect, ...]:
        asked_branches = {place for place, _ in asked.branches}
        if len(set(message.leaves)) != len(message.leaves) or any(
            leaf // FAN_OUT not in asked_branches for leaf in message.leaves
        ):
            return self._failed("leaves that were not asked for")
        self.counts = replace(self.counts, leaves=len(message.leaves))
        self._left.extend(message.leaves)
        return self._proceed(now)

    def _on_keys(self, asked: Want, message: Keys, now: float) -> tuple[Effect, ...]:
        if not _answers(asked, message):
            return self._failed("key lists that were not asked for")
        self._page = message
        return self._proceed(now)

    # -- the keys

    def _proceed(self, now: float) -> tuple[Effect, ...]:
        """The next thing to do, once what was asked of peer and driver is there."""
        if self._page is not None and all(each.leaf in self._own for each in self._page.lists):
            for each in self._page.lists:
                self._compare(each)
            self._page = None
        if self._repairing is not None or self._page is not None or self._asked is not None:
            return ()
        if self._to_fetch:
            self._repairing = Fetch(tuple(_take(self._to_fetch, self.config.keys_max)))
            return (self._repairing,)
        if self._to_offer:
            self._repairing = Offer(tuple(_take(self._to_offer, self.config.keys_max)))
            return (self._repairing,)
        if self._window:
            return (self._ask(Want(self.exchange, tuple(self._window), self._after), now),)
        if self._left:
            self._own.clear()
            self._window.extend(_take(self._left, self._leaves_at_once))
            window = tuple(self._window)
            return (NeedLeaves(window), self._ask(Want(self.exchange, window, b""), now))
        finish = Finish(self.exchange, self.counts.keys, self.counts.sent, self.counts.received)
        return (Send(self.peer, finish), self._done())

    def _compare(self, theirs: KeyList) -> None:
        """One of their lists against the same stretch of ours."""
        assert theirs.leaf == self._window[0]
        last = None if theirs.whole else theirs.entries[-1][0]
        found = difference(between(self._own[theirs.leaf], self._after, last), theirs.entries)
        self._to_fetch.extend([*found.theirs, *found.both, *(found.mine if self._mended_here else ())])
        self._to_offer.extend([*found.mine, *found.both, *(found.theirs if self._mended_there else ())])
        keys = len(found.mine) + len(found.theirs) + len(found.both)
        self.counts = replace(self.counts, keys=self.counts.keys + keys)
        if last is None:
            self._window.popleft()
            del self._own[theirs.leaf]
            self._after = b""
        else:
            self._after = last

    # -- ends

    def _ask(self, message: AnyMessage, now: float) -> Send:
        assert self._asked is None, "one question at a time"
        self._asked = message
        self._answer_until = now + self.config.reply_timeout_s
        self._count_bytes(message)
        return Send(self.peer, message)

    def _count_bytes(self, message: AnyMessage) -> None:
        self.counts = replace(self.counts, compared_bytes=self.counts.compared_bytes + payload_bytes(message))

    def _done(self) -> Done:
        self.ended = True
        return Done(self.counts)

    def _failed(self, reason: str, *, tell: bool = True) -> tuple[Effect, ...]:
        self.ended = True
        cancel = (Send(self.peer, Cancel(self.exchange)),) if tell else ()
        return (*cancel, Failed(reason, self.counts))

    def check(self) -> None:
        """Assert the invariants."""
        assert self._own.keys() <= set(self._window)
        assert not (self._asked is not None and self._repairing is not None), "repairs first, then the next page"
        assert self.ended or (self._answer_until < inf) == (self._asked is not None)
        assert len(self._window) <= self._leaves_at_once
        assert self.counts.branches <= BRANCHES


def _answers(asked: Want, message: Keys) -> bool:
    """Whether the lists are for the first leaves asked for, in that order, their keys ascending and in place."""
    lists = message.lists
    if not lists or tuple(each.leaf for each in lists) != asked.leaves[: len(lists)]:
        return False
    if not all(each.whole for each in lists[:-1]) or not (lists[-1].whole or lists[-1].entries):
        return False
    after = asked.after
    for each in lists:
        keys = [key for key, _ in each.entries]
        if keys and not (keys[0] > after and ascending(keys) and all(leaf_of(key) == each.leaf for key in keys)):
            return False
        after = b""
    return True


def _take(queue: deque[T], count: int) -> list[T]:
    return [queue.popleft() for _ in range(min(count, len(queue)))]
