"""The responder's side of an exchange: answers, one question at a time, and never asks.

Built by the driver when a `compare` arrives and the tree of that range is at hand. It keeps the key lists of the leaves
last asked for, at most one window of its own size, whatever the initiator asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from leafdb.merkle.compare import Entry, ascending, between, differing
from leafdb.merkle.effects import Counts, Done, Effect, ExchangeConfig, Failed, NeedLeaves, Send
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
    Want,
)
from leafdb.merkle.size import entry_bytes, payload_bytes
from leafdb.merkle.tree import FAN_OUT, Tree
from leafdb.types import NodeId


class Responder:
    """One exchange that `peer` began. Feed it, the `compare` first, until it says Done or Failed."""

    def __init__(self, config: ExchangeConfig, *, peer: NodeId, exchange: int, tree: Tree, now: float) -> None:
        self.config = config
        self.peer = peer
        self.exchange = exchange
        self.ended: bool = False
        self._tree = tree
        self._window_leaves = config.leaves_at_once(tree.keys)
        self._forget_at = now + config.idle_timeout_s
        self._wanted: Want | None = None
        """A question that waits for our own lists."""
        self._lists: dict[int, Sequence[Entry]] = {}
        self._branches = 0
        self._leaves = 0
        self._compared_bytes = 0

    def on_message(self, sender: NodeId, message: AnyMessage, now: float) -> tuple[Effect, ...]:
        """The initiator's next question."""
        if self.ended or sender != self.peer or message.exchange != self.exchange:
            return ()
        self._forget_at = now + self.config.idle_timeout_s
        self._compared_bytes += payload_bytes(message)
        match message:
            case Compare(root=root) if root == self._tree.root():
                return (self._answer(Equal(self.exchange)), self._done(Counts()))
            case Compare():
                return (self._answer(Branches(self.exchange, self._tree.branches(), self._tree.keys)),)
            case Leaves(branches=branches):
                return (self._answer(Differing(self.exchange, self._differing(branches))),)
            case Want(leaves=leaves) if leaves and self._wanted is None:
                return self._on_want(message)
            case Finish(keys=keys, sent=sent, received=received):
                return (self._done(Counts(keys=keys, sent=received, received=sent)),)
            case Cancel():
                return (self._failed("cancelled"),)
            case _:
                return (self._failed(f"unexpected {message.kind}"),)

    def on_leaf(self, leaf: int, entries: Sequence[Entry], now: float) -> tuple[Effect, ...]:
        """Our own list of a leaf: every key in it with its record's digest, in order of keys."""
        if self.ended or self._wanted is None or leaf not in self._wanted.leaves:
            return ()
        assert ascending([key for key, _ in entries])
        self._lists[leaf] = entries
        self._forget_at = now + self.config.idle_timeout_s
        return self._list()

    def abort(self, reason: str) -> tuple[Effect, ...]:
        """The session is lost, or the node drains: give up."""
        return () if self.ended else (self._failed(reason),)

    def on_time(self, now: float) -> tuple[Effect, ...]:
        """Forget an initiator that has gone quiet."""
        return (self._failed("no question in time"),) if not self.ended and self._forget_at <= now else ()

    def deadline(self) -> float:
        """When `on_time` is to be called."""
        return inf if self.ended else self._forget_at

    def _differing(self, branches: Sequence[tuple[int, bytes]]) -> tuple[int, ...]:
        leaves = [
            place * FAN_OUT + index
            for place, hashes in branches
            for index in differing(self._tree.leaves_of(place), hashes)
        ]
        self._branches, self._leaves = len(branches), len(leaves)
        return tuple(leaves)

    def _on_want(self, wanted: Want) -> tuple[Effect, ...]:
        leaves = wanted.leaves[: self._window_leaves]
        self._wanted = Want(self.exchange, leaves, wanted.after)
        self._lists = {leaf: self._lists[leaf] for leaf in leaves if leaf in self._lists}
        missing = tuple(leaf for leaf in leaves if leaf not in self._lists)
        return (NeedLeaves(missing),) if missing else self._list()

    def _list(self) -> tuple[Effect, ...]:
        """Answer the question, when all the lists for it have come, with as much as one message holds."""
        assert self._wanted is not None
        if any(leaf not in self._lists for leaf in self._wanted.leaves):
            return ()
        lists: list[KeyList] = []
        keys, size = 0, 0
        after = self._wanted.after
        for leaf in self._wanted.leaves:
            chosen: list[Entry] = []
            entries = between(self._lists[leaf], after, None)
            for entry in entries:
                size += entry_bytes(entry)
                if keys == self.config.keys_max or (keys and size > self.config.bytes_max):
                    break
                keys += 1
                chosen.append(entry)
            whole = len(chosen) == len(entries)
            if whole or chosen:
                lists.append(KeyList(leaf, whole, tuple(chosen)))
            if not whole:
                break
            after = b""
        self._wanted = None
        return (self._answer(Keys(self.exchange, tuple(lists))),)

    def _answer(self, message: AnyMessage) -> Send:
        self._compared_bytes += payload_bytes(message)
        return Send(self.peer, message)

    def _counts(self, counts: Counts) -> Counts:
        return Counts(
            branches=self._branches,
            leaves=self._leaves,
            keys=counts.keys,
            sent=counts.sent,
            received=counts.received,
            compared_bytes=self._compared_bytes,
        )

    def _done(self, counts: Counts) -> Done:
        self.ended = True
        return Done(self._counts(counts))

    def _failed(self, reason: str) -> Failed:
        self.ended = True
        return Failed(reason, self._counts(Counts()))

    def check(self) -> None:
        """Assert the invariants."""
        assert len(self._lists) <= self._window_leaves
        assert self._wanted is None or len(self._wanted.leaves) <= self._window_leaves
