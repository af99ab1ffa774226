"""Power may go at any call around a table that is dropped whole: what is gone had been forgotten by right, nothing that
was covered comes back, and the hash trees stay those of the store."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.model.purge import NEVER, record_death
from leafdb.node.engine_settings import EXPIRY
from leafdb.node.register import META_TREE
from leafdb.storage.compaction_picker import PickerLimits
from leafdb.types import Durability
from leafdb.vfs.memory import MemoryFileSystem
from support.store import SMALL
from support.sweeping import HORIZON_KEY, MS, SweptStore, record
from support.tree_stores import BUCKET, PARTITIONS

BY_TIME = replace(
    SMALL, memtable_bytes=1 << 20, expiry=EXPIRY, value_inline_bytes_max=200,
    compaction=PickerLimits(level0_tables=2, windows=2, window_tables=4),
)  # fmt: skip


def opened(fs: MemoryFileSystem | None = None) -> SweptStore:
    life = SweptStore(fs, BY_TIME)
    life.engine.keep_by_time([BUCKET])
    life.settle()
    return life


def flushed(life: SweptStore) -> None:
    life.engine.flush_soon()
    life.settle()
    life.store.elapse(1.0)
    life.settle()


def forgets_below(life: SweptStore, now: int) -> None:
    """A horizon is proved, as it is in a cluster: the mark first; then what lies below is swept."""
    life.horizons.vouch(range(PARTITIONS), now * MS)
    life.learn(now * MS)
    life.sweep()
    flushed(life)


def keys_of(wave: int) -> list[bytes]:
    return [bytes((number * 11,)) + b"wave%d/%d" % (wave, number) for number in range(24)]


def wave(life: SweptStore, rng: Random, number: int, now: int, *, lasting: bool) -> dict[bytes, int]:
    """A table of records that die 100 ms later; some cover what was there before."""
    dies: dict[bytes, int] = {}
    for key in keys_of(number) + keys_of(number - 1)[::6]:
        value = rng.randbytes(rng.choice((10, 50, 400)))
        expires_ms = 0 if lasting and rng.random() < 0.1 else now + 100
        life.write(key, record(now * MS, expires_ms=expires_ms, value=value), Durability.PERIODIC)
        dies[key] = expires_ms
    flushed(life)
    return dies


@pytest.mark.parametrize("lasting", [False, True])
def test_power_may_go_at_every_call_around_a_table_dropped_whole(lasting: bool) -> None:
    rng = Random(7 + lasting)
    life = opened()
    dies: dict[bytes, int] = {}
    for number in range(3):
        dies |= wave(life, rng, number, 1000 + 50 * number, lasting=lasting and number == 1)
    taken: list[tuple[str, MemoryFileSystem]] = []

    def cut(kind: str, path: str) -> None:
        taken.append((f"cut {len(taken)}, after {kind} {path}", life.fs.power_cut(rng)))

    life.fs.on_call = cut
    forgets_below(life, 1110)
    forgets_below(life, 1160)
    life.fs.on_call = None
    assert life.engine.stats().dropped_tables > (0 if lasting else 1)
    assert life.wrong() == []
    states = set()
    for what, fs in taken:
        again = opened(fs)
        found = dict(again.store_items())
        horizon = int.from_bytes(again.store.get(HORIZON_KEY, META_TREE) or b"", "big")
        assert again.wrong() == [], what
        assert again.unnoted() == [], what
        gone = dies.keys() - found.keys()
        assert not [key for key in gone if dies[key] == 0 or dies[key] * MS >= horizon], what
        assert not [key for key, data in found.items() if record_death(data) != (dies[key] * MS or NEVER)], what
        states.add((len(gone), len(again.engine.tables())))
        again.sweep()
        flushed(again)
        assert again.wrong() == [], what
        assert not [key for key, data in again.store_items() if record_death(data) < horizon], what
        assert dies.keys() - dict(again.store_items()).keys() >= gone, what
        again.engine.check()
    assert len(states) > 3


def test_what_is_dropped_before_a_clean_end_is_not_missed_after_it() -> None:
    rng = Random(3)
    life = opened()
    wave(life, rng, 0, 1000, lasting=False)
    kept = wave(life, rng, 1, 2000, lasting=False)
    forgets_below(life, 1500)
    assert life.engine.stats().dropped_tables == 1
    life.engine.close()
    again = opened(life.fs)
    assert again.wrong() == []
    assert {key for key, _ in again.store_items()} == set(kept)


def test_a_store_that_does_not_vouch_drops_no_table_whole() -> None:
    life = opened()
    wave(life, Random(4), 0, 1000, lasting=False)
    life.learn(1500 * MS)
    life.sweep()
    flushed(life)
    assert (list(life.store_items()), life.engine.stats().dropped_tables) == ([], 0)
    forgets_below(life, 1600)
    assert life.engine.stats().dropped_tables > 0
