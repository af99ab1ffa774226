"""Power may go at any call while records die and are forgotten: what died is found again, nothing is gone whose horizon
is not in the log, and hash trees stay those of the store."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.model.purge import record_death
from leafdb.node.register import META_TREE
from leafdb.node.tree_saver import synced
from leafdb.types import Durability
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL
from support.sweeping import HORIZON_KEY, MS, SweptStore, record

TINY = replace(SMALL, memtable_bytes=6_000, frozen_memtables_max=2)


def some_writes(life: SweptStore, rng: Random, count: int, clock: list[int]) -> None:
    for _ in range(count):
        clock[0] += rng.randrange(1, 3)
        now = clock[0]
        key = bytes((rng.randrange(256),)) + b"%06d" % rng.randrange(40)
        kind = rng.random()
        if kind < 0.4:
            made = record(now * MS, value=None)
        elif kind < 0.7:
            made = record(now * MS, expires_ms=now + rng.randrange(40))
        else:
            made = record(now * MS, value=rng.randbytes(rng.randrange(80)))
        life.write(key, made, rng.choice((Durability.ALWAYS, Durability.PERIODIC)))
        if rng.random() < 0.3:
            life.store.commit()


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_gone_before_its_horizon_is_in_the_log_and_what_died_is_found_again(seed: int) -> None:
    rng = Random(seed)
    life = SweptStore(config=TINY)
    life.run(lambda: synced(life.trees))
    clock, base = [100], dict[bytes, int]()
    for number in range(60):
        key, dies = bytes((number * 4,)) + b"base%06d" % number, rng.randrange(100, 450)
        life.write(key, record(100 * MS, expires_ms=dies))
        base[key] = dies * MS
    life.settle()
    taken: list[tuple[str, MemoryFileSystem]] = []

    def cut(kind: str, path: str) -> None:
        if rng.random() < 0.04:
            taken.append((f"cut {len(taken)}, after {kind} {path}", life.fs.power_cut(rng)))

    life.fs.on_call = cut
    for _ in range(5):
        some_writes(life, rng, 40, clock)
        life.store.commit()
        life.learn((clock[0] - 20) * MS)
        some_writes(life, rng, 10, clock)
        life.sweep()
        life.settle()
    assert life.metrics.records_forgotten_total > 60
    life.fs.on_call = None
    assert len(taken) > 20
    seen: set[int] = set()
    for what, fs in taken:
        again = SweptStore(fs, TINY)
        assert again.wrong() == [], what
        assert again.unnoted() == [], what
        horizon = int.from_bytes(again.store.get(HORIZON_KEY, META_TREE) or b"", "big")
        gone = base.keys() - dict(again.store_items()).keys()
        assert not [key for key in gone if base[key] >= horizon], what
        seen.add(len(gone))
        again.sweep()
        assert again.unknown() == [], what
        assert again.wrong() == [], what
        assert not [key for key, data in again.store_items() if record_death(data) < horizon], what
    assert len(seen) > 4
