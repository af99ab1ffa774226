"""Whatever clocks say: a stamp is above those of all that its writer saw, and of all that is covered with it.

Nodes with clocks of their own mint, pass records on, and show them to clients, who write over what they were shown, at
any node. Purging rests on the second half (model/purge.py), lww on the first.
"""

from __future__ import annotations

from random import Random

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import Past
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.record import clock_of, decode, merge, newest_stamp, put
from leafdb.types import Conflict, NodeId

NODES = 4
SKEWS_MS = (0, 0, -3_000, 4_000, -86_400_000, 40 * 366 * 86_400_000)


class World:
    """One key on a few nodes."""

    def __init__(self, rng: Random, conflict: Conflict) -> None:
        self.rng = rng
        self.conflict = conflict
        self.records: list[bytes | None] = [None] * NODES
        self.skew_ms = [rng.choice(SKEWS_MS) for _ in range(NODES)]
        self.identities = [ActorIdentity(1, NodeId(number + 1), 1) for number in range(NODES)]
        self.epochs = [EpochLease(1, 1 << 20) for _ in range(NODES)]
        self.pasts: list[Past] = []
        self.stamps: dict[Dot, int] = {}
        self.now_ms = 1_700_000_000_000

    def write(self, past: Past | None = None) -> Dot:
        rng = self.rng
        at = rng.randrange(NODES)
        if past is None:
            past = rng.choice(self.pasts) if self.pasts and rng.random() < 0.8 else Past(EMPTY, 0)
        self.now_ms += rng.choice((0, 1, 50))
        result = put(
            self.records[at], past.clock or None, identity=self.identities[at], epochs=self.epochs[at],
            stamp=self.now_ms + self.skew_ms[at] << LOGICAL_BITS, floor=past.stamp, expires_ms=0,
            op_id=len(self.stamps).to_bytes(16, "big"), value=None if rng.random() < 0.3 else b"v",
            conflict=self.conflict,
        )  # fmt: skip
        stamp = decode(result.data).siblings[result.dot].stamp
        self.stamps[result.dot] = stamp
        assert stamp > past.stamp
        assert stamp > self.newest_of(past.clock)
        assert stamp > (-1 if self.records[at] is None else self.newest_of(clock_of(self.records[at] or b"")))
        self.records[at] = result.data
        self.pasts.append(Past(past.clock.add(result.dot), stamp))
        return result.dot

    def pass_on(self) -> None:
        source, target = self.rng.sample(range(NODES), 2)
        record, local = self.records[source], self.records[target]
        if record is not None:
            self.records[target] = record if local is None else merge(local, record, self.conflict)

    def read(self) -> None:
        record = self.rng.choice(self.records)
        if record is not None:
            self.pasts.append(Past(clock_of(record), newest_stamp(record)))

    def newest_of(self, clock: CausalClock) -> int:
        return max((stamp for dot, stamp in self.stamps.items() if clock.covers(dot)), default=-1)

    def check(self) -> None:
        for record in self.records:
            assert record is None or newest_stamp(record) == self.newest_of(clock_of(record))
        for past in self.pasts:
            assert past.stamp == self.newest_of(past.clock)


@pytest.mark.parametrize("conflict", Conflict)
def test_a_stamp_exceeds_all_that_was_seen_and_all_that_is_covered_with_it(conflict: Conflict) -> None:
    for seed in range(150):
        world = World(Random(seed), conflict)
        for _ in range(60):
            world.rng.choice((world.write, world.write, world.pass_on, world.read))()
        world.check()


def test_in_an_lww_bucket_who_overwrites_what_he_read_wins_wherever_the_two_meet() -> None:
    for seed in range(150):
        world = World(Random(seed), Conflict.LWW)
        for _ in range(30):
            world.rng.choice((world.write, world.pass_on, world.read))()
        world.write()
        past = world.rng.choice(world.pasts)
        mine = world.write(past)
        for record in world.records:
            for other in world.records:
                if record is not None and other is not None and mine in decode(record).siblings:
                    (winner,) = decode(merge(record, other, Conflict.LWW)).siblings
                    assert winner == mine or not past.clock.covers(winner)
