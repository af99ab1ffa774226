"""Promise: covering late copies of replaced operations loses nothing that was acknowledged, and replicas agree.

A model of one key: three replicas with the product's own `put`, `accept` and operation memory. Clients write over what
they read, or blindly, send a write again to another replica without anybody being asked, and records reach the others
late, in any order, or never before the end. Now and then a replica restarts and forgets its operations.
"""

from __future__ import annotations

from random import Random
from typing import Final

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.record import Named, accept, clock_of, decode, dots_of, put
from leafdb.node.op_memory import OpMemory
from leafdb.types import Conflict, NodeId, TreeId

REPLICAS: Final = 3
STEPS: Final = 60
TREE, KEY = TreeId(1_000), b"t" * 8 + b"key"


class Written:
    """An operation, with what its writer had seen and the dots it was ever given."""

    def __init__(self, number: int, context: CausalClock | None) -> None:
        self.op_id = KEY[:8] + number.to_bytes(8, "big")
        self.value = b"%d" % number
        self.context = context
        self.dots: set[Dot] = set()


class Store:
    """One replica."""

    def __init__(self, number: int) -> None:
        self._identity = ActorIdentity(1, NodeId(number), 1)
        self._epochs = EpochLease(1, 1 << 20, 0)
        self.record: bytes | None = None
        self.memory = OpMemory()

    def mint(self, write: Written, stamp: int) -> bytes:
        """As Replica.next_record: the record there is then, with the write in it or known to be replaced."""
        known = self.memory.dot_in(write.op_id, TREE, KEY)
        if known is not None:
            assert self.record is not None
            assert clock_of(self.record).covers(known)
            return self.record
        gone: list[Named] = []
        result = put(
            self.record, write.context, identity=self._identity, epochs=self._epochs, stamp=stamp, expires_ms=0,
            op_id=write.op_id, value=write.value, conflict=Conflict.SIBLINGS, replaced=gone,
        )  # fmt: skip
        self.memory.note(TREE, KEY, gone)
        write.dots.add(result.dot)
        self.record = result.data
        return result.data

    def take(self, record: bytes) -> None:
        """As Replica.accepted."""
        gone: list[Named] = []
        self.record = accept(
            self.record, record, Conflict.SIBLINGS, identity=self._identity, epochs=self._epochs, replaced=gone,
            was_replaced=self.memory.was_replaced,
        )  # fmt: skip
        self.memory.note(TREE, KEY, gone)


class Run:
    """One history."""

    def __init__(self, seed: int, *, restarts: bool) -> None:
        self._rng = Random(seed)
        self._restarts = restarts
        self.stores = [Store(number) for number in range(1, REPLICAS + 1)]
        self.writes: list[Written] = []
        self._contexts: list[CausalClock] = []
        self._late: list[bytes] = []

    def step(self, number: int) -> None:
        """Something happens."""
        rng = self._rng
        store = rng.choice(self.stores)
        choice = rng.random()
        if choice < 0.3:
            context = rng.choice(self._contexts[-3:]) if self._contexts and rng.random() < 0.8 else None
            write = Written(number, context)
            self.writes.append(write)
            self._send(store, write, number)
        elif choice < 0.5 and self.writes:
            self._send(store, rng.choice(self.writes[-4:]), number)
        elif choice < 0.75 and self._late:
            store.take(self._late.pop(rng.randrange(len(self._late))))
        elif choice < 0.95 and store.record is not None:
            self._contexts.append(clock_of(store.record))
        elif self._restarts:
            store.memory = OpMemory()

    def _send(self, store: Store, write: Written, stamp: int) -> None:
        record = store.mint(write, stamp)
        self._late += [record] * self._rng.randint(0, 2)
        if self._rng.random() < 0.5:
            own = CausalClock.from_dots(dots_of(record, write.op_id))
            self._contexts.append((write.context or EMPTY).merge(own))

    def settle(self) -> None:
        """Everybody gets everything, until nothing changes."""
        before: list[bytes | None] = []
        while before != (before := [store.record for store in self.stores]):
            for giver in self.stores:
                for taker in self.stores:
                    if giver.record is not None and taker is not giver:
                        taker.take(giver.record)

    def check(self) -> None:
        """The promise."""
        assert len({store.record for store in self.stores}) == 1, "replicas differ that gave each other everything"
        if self.stores[0].record is None:
            return
        record = decode(self.stores[0].record)
        live = {sibling.op_id for sibling in record.siblings.values()}
        for write in self.writes:
            seen = any(other.context.covers(dot) for other in self.writes if other.context for dot in write.dots)
            assert write.op_id in live or seen, f"{write.value!r} is gone, and nobody wrote over it"
            if seen and not self._restarts:
                assert write.op_id not in live, f"{write.value!r} is back, though it was replaced"


@pytest.mark.parametrize("restarts", [False, True], ids=["nobody-forgets", "some-forget"])
def test_a_replaced_operation_stays_replaced_and_no_other_is_lost(restarts: bool) -> None:
    covered = twins = 0
    for seed in range(400):
        run = Run(seed, restarts=restarts)
        for number in range(1, STEPS + 1):
            run.step(number)
        run.settle()
        run.check()
        covered += sum(store.memory.covered_total for store in run.stores)
        twins += sum(len(write.dots) > 1 for write in run.writes)
    assert covered > 100
    assert twins > 100
