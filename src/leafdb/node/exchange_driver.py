"""Drives one exchange, either side of it: does what its machine (merkle/) asks for, and waits for the peer.

The machine is pure; here are its scans, its messages, its records and its clock. One task drives one exchange from its
first effect to Done or Failed; what the peer says meanwhile waits in an `Inbox`. A peer has one question or answer
under way at a time, so an inbox that overflows is a peer that does not keep the rules.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Final, Protocol, assert_never

import trio

from leafdb.errors import StorageError
from leafdb.merkle.compare import Entry
from leafdb.merkle.effects import Done, Effect, Failed, Fetch, NeedLeaves, Offer, Send
from leafdb.merkle.exchange import Initiator
from leafdb.merkle.messages import AnyMessage, Branches
from leafdb.merkle.responder import Responder
from leafdb.node.accords import Accord
from leafdb.node.pace import Pace
from leafdb.node.record_mover import ExchangeFault, Fetched
from leafdb.types import NodeId, PartitionId

INBOX_MESSAGES_MAX: Final = 4


class Moves(Protocol):
    """Moves records, or only looks at them. Both raise ExchangeFault."""

    async def fetch(self, accord: Accord, keys: Iterable[bytes]) -> Fetched:
        """Get the peer's records of these storage keys."""

    async def offer(self, accord: Accord, keys: Iterable[bytes]) -> tuple[int, int]:
        """Give ours; how many, and their bytes."""


class Inbox:
    """What the peer has said in one exchange and nobody has read yet. A spoilt accord is a peer that says no more."""

    def __init__(self, accord: Accord) -> None:
        self.accord = accord
        accord.lost = self.lose
        self.peer: NodeId = accord.peer
        self.partition: PartitionId = accord.partition
        self.peer_complete = False
        """Whether the peer has said that its store has forgotten nothing of the range."""
        self._messages: deque[AnyMessage] = deque()
        self._lost = ""
        self._news = trio.Event()

    def put(self, message: AnyMessage) -> None:
        """A message came."""
        if len(self._messages) >= INBOX_MESSAGES_MAX:
            self.lose("the peer says more than it was asked")
            return
        self._messages.append(message)
        self._news.set()

    def lose(self, reason: str) -> None:
        """Nothing more will come."""
        self._lost = self._lost or reason
        self._news.set()

    @property
    def lost(self) -> str:
        """Why nothing more will come; empty while something may."""
        return self._lost

    async def next(self, timeout_s: float) -> AnyMessage | None:
        """The next message; None when the time is over or nothing more will come."""
        with trio.move_on_after(max(0.0, timeout_s)):
            while not self._messages and not self._lost:
                self._news = trio.Event()
                await self._news.wait()
        return self._messages.popleft() if self._messages and not self._lost else None


class ExchangeDriver:
    """One exchange under way. `lists` finds keys and digests of leaves. `post` puts a message on the peer's bulk lane;
    False when it cannot. `moved` is told the bytes of records, and returns when more may be moved."""

    def __init__(
        self,
        machine: Initiator | Responder,
        *,
        inbox: Inbox,
        lists: Callable[[Collection[int]], Awaitable[Mapping[int, list[Entry]]]],
        mover: Moves,
        pace: Pace,
        post: Callable[[NodeId, AnyMessage], bool],
        moved: Callable[[int], Awaitable[None]],
        now: Callable[[], float],
    ) -> None:
        self._machine = machine
        self._inbox = inbox
        self._lists = lists
        self._mover = mover
        self._pace = pace
        self._post = post
        self._moved = moved
        self._now = now
        self._todo: deque[Effect] = deque()

    async def run(self, effects: Iterable[Effect]) -> Done | Failed:
        """From the machine's first effects to its last."""
        machine, inbox = self._machine, self._inbox
        self._take(effects)
        while True:
            while self._todo:
                effect = self._todo.popleft()
                if isinstance(effect, Done | Failed):
                    return effect
                await self._perform(effect)
            message = await inbox.next(machine.deadline() - self._now())
            began = self._pace.begin()
            if message is not None:
                if isinstance(message, Branches) and isinstance(machine, Initiator):
                    machine.mends(here=inbox.accord.is_restored, there=inbox.accord.restores)
                self._take(machine.on_message(inbox.peer, message, self._now()))
                await self._pace.spent(began)
            elif inbox.lost:
                self._take(machine.abort(inbox.lost))
            else:
                self._take(machine.on_time(self._now()))

    def _take(self, effects: Iterable[Effect]) -> None:
        """Messages leave at once, so that the peer works while we do; the rest is done in order."""
        for effect in effects:
            if not isinstance(effect, Send):
                self._todo.append(effect)
            elif not self._post(effect.to, effect.message):
                self._todo.extend(each for each in self._machine.abort("no session") if not isinstance(each, Send))

    async def _perform(self, effect: NeedLeaves | Fetch | Offer | Send) -> None:
        machine = self._machine
        try:
            match effect:
                case NeedLeaves(leaves=leaves):
                    await self._list(leaves)
                case Fetch(keys=keys):
                    assert isinstance(machine, Initiator)
                    got = await self._mover.fetch(self._inbox.accord, keys)
                    await self._moved(got.size)
                    self._take(machine.on_fetched(got.records, got.size, self._now(), settled=got.settled))
                case Offer(keys=keys):
                    assert isinstance(machine, Initiator)
                    sent, size = await self._mover.offer(self._inbox.accord, keys)
                    await self._moved(size)
                    self._take(machine.on_offered(sent, size, self._now()))
                case Send():
                    raise AssertionError("messages leave at once")
                case _:
                    assert_never(effect)
        except (ExchangeFault, StorageError) as error:
            self._take(machine.abort(str(error)))

    async def _list(self, leaves: tuple[int, ...]) -> None:
        lists = await self._lists(leaves)
        began = self._pace.begin()
        # From the last: the machine looks for the first leaf that is missing each time, and then finds it at once.
        for leaf in reversed(leaves):
            self._take(self._machine.on_leaf(leaf, lists[leaf], self._now()))
            if self._pace.over(began):
                await self._pace.spent(began)
                began = self._pace.begin()
        await self._pace.spent(began)
