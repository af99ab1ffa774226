"""Invariants I11 and I12 in a model: holders, targets, sessions that flap, refusals, lost answers, expiry, overflow.

Every admitted hint reaches its target, or (coordinator hints alone) its range is marked; bytes never pass the bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from random import Random

import pytest

from leafdb.hints.config import HintsConfig
from leafdb.hints.credits import CreditGrantor
from leafdb.hints.effects import Apply, Drained, Effect, GrantorEffect, MarkRange, ReadPage, Remove, Send
from leafdb.hints.hint import Hint, Kind, decode, decode_key, encode_key, target_range, version_of, with_record
from leafdb.hints.ledger import Ledger
from leafdb.hints.messages import AnyMessage, HintBatch, HintsWaiting, from_wire
from leafdb.hints.schedule import Schedule
from leafdb.types import BucketId, NodeId

PARTITIONS = 8
CONFIG = HintsConfig(
    age_s_max=60.0, batch_bytes_max=300, page_records_max=7, credits_max=16, reply_timeout_s=5.0, grant_idle_s=5.0
)
Range = tuple[NodeId, BucketId, int]


def merge(one: bytes | None, other: bytes) -> bytes:
    """A record stands for a set of small numbers."""
    return bytes(sorted({*(one or b""), *other}))


class Holder:
    """A node that keeps hints: its tree, ledger and schedule."""

    def __init__(self, node: NodeId, rng: Random) -> None:
        self.node = node
        self.tree: dict[bytes, bytes] = {}
        self.ledger = Ledger(partitions=PARTITIONS, bytes_max=2_500)
        self.schedule = Schedule(CONFIG, self.ledger, rng=rng)
        self.marked: set[Range] = set()

    def read(self, page: ReadPage) -> tuple[list[tuple[bytes, bytes]], bool]:
        start, stop = target_range(page.target)
        keys = sorted(key for key in self.tree if (page.after or start) <= key < stop and key != page.after)
        items: list[tuple[bytes, bytes]] = []
        for key in keys[: page.records_max]:
            if items and sum(len(k) + len(v) for k, v in items) > page.bytes_max:
                break
            items.append((key, self.tree[key]))
        return items, len(items) == len(keys)


class World:
    """Steps holders and targets; whatever would take time waits in `pending` and happens in random order, except that
    messages on one stream keep theirs."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.now = 100.0
        self.holders = {node: Holder(node, Random(seed + node)) for node in map(NodeId, (1, 2, 3))}
        self.targets = {node: CreditGrantor(CONFIG) for node in map(NodeId, (8, 9))}
        self.stores: dict[NodeId, dict[tuple[BucketId, bytes], bytes]] = {node: {} for node in self.targets}
        self.streams: dict[tuple[NodeId, NodeId], deque[tuple[bool, AnyMessage]]] = {}
        self.pending: list[Callable[[], None]] = []
        self.refusing = 0.2
        self.batches = 0

    @property
    def now_ms(self) -> int:
        return int(self.now * 1000)

    def write(self, holder: Holder, target: NodeId, kind: Kind, place: int, value: int) -> bool:
        storage_key = (place * 0x1F3D5B79_A1B2C3D4 % (1 << 64)).to_bytes(8, "big") + b"k%d" % place
        key = encode_key(target, BucketId(300 + place % 2), storage_key)
        old = holder.tree.get(key)
        record = merge(decode(old).record if old else None, bytes([value]))
        new = with_record(old, kind, self.now_ms, record)
        mark = holder.ledger.admit(key, old, new)
        if mark is not None:
            holder.marked.add((mark.target, mark.bucket, mark.partition))
            return False
        holder.tree[key] = new
        self.perform(holder, holder.schedule.on_added(target, self.now))
        return True

    def perform(self, holder: Holder, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case ReadPage():
                    self.pending.append(partial(self.answer_page, holder, effect))
                case Send(to=to, message=message):
                    assert from_wire(message.to_wire()) == message
                    self.streams[holder.node, to].append((True, message))
                case Remove(key=key, version=version):
                    self.pending.append(partial(self.remove, holder, key, version))
                case MarkRange(target=target, bucket=bucket, partition=partition):
                    holder.marked.add((target, bucket, partition))
                case Drained(target=target):
                    assert not any(decode_key(key).target == target for key in holder.tree)
        holder.schedule.check(holder.tree.items())
        assert holder.ledger.bytes <= holder.ledger.bytes_max
        assert holder.schedule.deadline() > self.now, "nothing is left undone that is due"

    def answer_page(self, holder: Holder, page: ReadPage) -> None:
        items, end = holder.read(page)
        self.perform(holder, holder.schedule.on_page(page.ticket, items, end=end, now=self.now))

    def remove(self, holder: Holder, key: bytes, version: int) -> None:
        value = holder.tree.get(key)
        if value is not None and version_of(value) == version:
            del holder.tree[key]
        else:
            value = None
        self.perform(holder, holder.schedule.on_removed(key, value, self.now))

    def perform_target(self, target: NodeId, effects: Iterable[GrantorEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    if (to, target) in self.streams:
                        self.streams[to, target].append((False, message))
                case Apply(sender=sender, batch=batch):
                    self.pending.append(partial(self.apply, target, sender, batch))
        self.targets[target].check()

    def apply(self, target: NodeId, sender: NodeId, batch: HintBatch) -> None:
        self.batches += 1
        refused = []
        for place, item in enumerate(batch.hints):
            if self.rng.random() < self.refusing:
                refused.append(place)
            else:
                at = (item.bucket, item.storage_key)
                self.stores[target][at] = merge(self.stores[target].get(at), item.record)
        if self.rng.random() < self.refusing / 4:
            return  # the answer is never given: the holder must not wait for ever
        grantor = self.targets[target]
        self.perform_target(target, grantor.on_applied(sender, batch.batch, tuple(refused), self.now))

    def connect(self, holder: Holder, target: NodeId) -> None:
        if (holder.node, target) not in self.streams:
            self.streams[holder.node, target] = deque()
            self.perform(holder, holder.schedule.on_session_established(target, self.now))

    def cut(self, holder: Holder, target: NodeId) -> None:
        if self.streams.pop((holder.node, target), None) is not None:
            self.perform(holder, holder.schedule.on_session_lost(target, self.now))
            self.perform_target(target, self.targets[target].on_session_lost(holder.node, self.now))

    def step(self) -> bool:
        """One thing that can happen without time passing; False if there is none."""
        busy = [pair for pair, stream in self.streams.items() if stream]
        if not busy and not self.pending:
            return False
        if self.pending and (not busy or self.rng.random() < 0.5):
            self.pending.pop(self.rng.randrange(len(self.pending)))()
            return True
        node, target = self.rng.choice(busy)
        to_target, message = self.streams[node, target].popleft()
        if to_target:
            self.perform_target(target, self.targets[target].on_message(node, message, self.now))
        else:
            self.perform(self.holders[node], self.holders[node].schedule.on_message(target, message, self.now))
        return True

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for target, grantor in self.targets.items():
            if grantor.deadline() <= self.now:
                self.perform_target(target, grantor.on_time(self.now))
        for holder in self.holders.values():
            if holder.schedule.deadline() <= self.now:
                self.perform(holder, holder.schedule.on_time(self.now))
            self.perform(holder, holder.schedule.expire(self.now_ms))

    def settle(self) -> None:
        self.refusing = 0.0
        for holder in self.holders.values():
            for target in self.targets:
                self.connect(holder, target)
        for _ in range(400):
            while self.step():
                pass
            self.advance(1.0)


@pytest.mark.parametrize("seed", range(12))
def test_every_admitted_hint_arrives_or_its_range_is_marked(seed: int) -> None:
    world = World(seed)
    owed: list[tuple[Holder, NodeId, Kind, bytes, int]] = []
    for _ in range(600):
        holder = world.rng.choice(list(world.holders.values()))
        target = world.rng.choice(list(world.targets))
        what = world.rng.random()
        if what < 0.25:
            kind, place, value = world.rng.choice(list(Kind)), world.rng.randrange(40), world.rng.randrange(256)
            if world.write(holder, target, kind, place, value):
                owed.append((holder, target, kind, b"k%d" % place, value))
        elif what < 0.33:
            world.connect(holder, target)
        elif what < 0.37:
            world.cut(holder, target)
        elif what < 0.45:
            world.advance(world.rng.choice([0.05, 0.5, 3.0, 15.0]))
        else:
            world.step()
    world.settle()
    assert world.batches > 5
    assert all(not holder.tree for holder in world.holders.values())
    for holder, target, kind, name, value in owed:
        arrived = any(at[1][8:] == name and value in record for at, record in world.stores[target].items())
        assert arrived or kind is Kind.COORDINATOR, "a fallback copy was given up"
        assert arrived or any(mark[0] == target for mark in holder.marked), "a hint vanished"
    for grantor in world.targets.values():
        assert grantor.granted <= CONFIG.credits_max


@pytest.mark.parametrize("seed", range(4))
def test_ledger_says_what_a_scan_says_whatever_happened(seed: int) -> None:
    rng = Random(seed)
    ledger = Ledger(partitions=PARTITIONS, bytes_max=4_000)
    tree: dict[bytes, bytes] = {}
    for step in range(400):
        key = encode_key(NodeId(rng.randrange(1, 4)), BucketId(256), rng.randrange(30).to_bytes(8, "big") + b"x")
        old = tree.get(key)
        if old is not None and rng.random() < 0.4:
            ledger.removed(key, tree.pop(key))
        else:
            new = with_record(old, rng.choice(list(Kind)), step, bytes(rng.randrange(1, 200)))
            if ledger.admit(key, old, new) is None:
                tree[key] = new
        ledger.check(tree.items())
        assert ledger.bytes <= 4_000
    loaded = Ledger(partitions=PARTITIONS)
    for key, value in tree.items():
        loaded.load(key, value)
    assert [(each.target, each.records, each.bytes) for each in loaded.summaries()] == [
        (each.target, each.records, each.bytes) for each in ledger.summaries()
    ]


def test_a_holder_that_asks_and_dies_does_not_keep_the_credits() -> None:
    grantor = CreditGrantor(CONFIG)
    grantor.on_message(NodeId(1), HintsWaiting(1_000, 1), 0.0)
    assert grantor.granted == CONFIG.credits_max
    assert grantor.on_message(NodeId(2), HintsWaiting(5, 1), 0.0) == ()
    [effect] = grantor.on_session_lost(NodeId(1), 1.0)
    assert isinstance(effect, Send)
    assert effect.to == NodeId(2)


def test_hint_is_one_per_key_with_the_kind_that_counted_and_the_first_time() -> None:
    first = with_record(None, Kind.COORDINATOR, 10, b"a")
    second = with_record(first, Kind.FALLBACK, 20, b"ab")
    third = with_record(second, Kind.COORDINATOR, 30, b"ab")
    assert decode(second) == Hint(Kind.FALLBACK, 10, b"ab")
    assert third is second
