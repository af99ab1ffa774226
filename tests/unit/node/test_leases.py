"""Numbers that are never given out twice: a block is durable before its first number is used, whatever crashes do."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.errors import StorageError
from leafdb.limits import EPOCH_LEASE, HLC_DRIFT_MS_MAX
from leafdb.model.hlc import LOGICAL_BITS, LeaseExhausted, stamp_ms
from leafdb.node.leases import EPOCH_KEY, STAMP_KEY, Leases
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.store import Store

META = TreeId(1)
NOW_MS = 1_700_000_000_000


class Wall:
    """Unix milliseconds, set by the test."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def opened(store: Store, wall: Wall) -> Leases:
    """The leases of a store, nothing granted yet."""
    store.engine.create_tree(META)
    return Leases(
        store.engine,
        META,
        wall,
        epochs=store.get(EPOCH_KEY, META),
        stamps=store.get(STAMP_KEY, META),
        clean=store.engine.recovery.clean,
    )


def test_nothing_is_given_out_before_the_block_is_durable() -> None:
    store, wall = Store(), Wall()
    leases = opened(store, wall)
    granted: list[StorageError | None] = []
    leases.renew(granted.append)
    for take in (leases.epochs.next, leases.stamp):
        with pytest.raises(LeaseExhausted):
            take()
    assert granted == []
    store.commit()
    assert granted == [None]
    assert leases.epochs.next() >= 1
    assert stamp_ms(leases.stamp()) >= NOW_MS


def test_no_number_is_ever_given_twice_over_power_cuts_at_any_moment() -> None:
    rng = Random(5)
    fs, wall = MemoryFileSystem(), Wall()
    epochs: set[int] = set()
    newest_stamp = 0
    for _ in range(25):
        store = Store(fs)
        leases = opened(store, wall)
        assert all(epoch < leases.epochs.floor for epoch in epochs), "an old epoch could be counted on"
        for _ in range(rng.randrange(60)):
            leases.renew()
            if rng.random() < 0.5:
                store.commit()
            wall.now_ms += rng.choice((0, 1, 700, 4_000, -3_000))
            try:
                epoch, stamp = leases.epochs.next(), leases.stamp()
            except LeaseExhausted:
                continue
            assert epoch not in epochs
            assert stamp > newest_stamp
            epochs.add(epoch)
            newest_stamp = stamp
        leases.epochs.check()
        leases.clock.check()
        fs = fs.power_cut(rng)
    assert len(epochs) > 100


def test_a_clean_stop_keeps_old_epochs_in_use_and_wastes_no_more_than_a_block() -> None:
    store, wall = Store(), Wall()
    leases = opened(store, wall)
    leases.renew()
    store.commit()
    first = leases.epochs.next()
    store.close()
    again = opened(Store(store.fs), wall)
    assert again.epochs.floor <= first
    assert again.epochs.next_epoch <= first + EPOCH_LEASE


def test_what_is_forgotten_on_purpose_is_counted_on_no_more_after_a_clean_stop_too() -> None:
    store, wall = Store(), Wall()
    leases = opened(store, wall)
    leases.renew()
    store.commit()
    used = [leases.epochs.next() for _ in range(3)]
    leases.forget()
    assert leases.epochs.floor > max(used)
    after = leases.epochs.next()
    assert after >= leases.epochs.floor
    store.commit()
    store.close()
    again = opened(Store(store.fs), wall)
    again.renew()
    assert max(used) < again.epochs.floor <= after
    assert again.epochs.next_epoch > after


def test_the_stamps_lease_follows_the_wall_also_while_nothing_is_minted() -> None:
    store, wall = Store(), Wall()
    leases = opened(store, wall)
    for _ in range(100):
        leases.renew()
        store.commit()
        wall.now_ms += 1_000
    assert stamp_ms(leases.stamp()) >= wall.now_ms - 1_000


def test_a_log_that_fails_is_told_and_grants_nothing() -> None:
    store = Store()
    leases = opened(store, Wall())
    store.commit()
    store.fs.faults.append(Fault("sync"))
    granted: list[StorageError | None] = []
    leases.renew(granted.append)
    store.commit()
    assert isinstance(granted[0], StorageError)
    with pytest.raises(LeaseExhausted):
        leases.epochs.next()


def test_one_request_is_under_way_however_often_one_asks() -> None:
    store = Store()
    leases = opened(store, Wall())
    store.commit()
    before = store.engine.safe_sequence(Durability.ALWAYS)
    for _ in range(10):
        leases.renew()
    store.commit()
    assert store.engine.safe_sequence(Durability.ALWAYS) == before + 1


def test_nothing_below_what_all_agreed_upon_is_minted_however_far_ahead_it_is() -> None:
    store, wall = Store(), Wall()
    leases = opened(store, wall)
    leases.renew()
    store.commit()
    far = (NOW_MS + 3 * HLC_DRIFT_MS_MAX) << LOGICAL_BITS
    assert leases.ahead_ms(far) == 3 * HLC_DRIFT_MS_MAX
    assert leases.ahead_ms((NOW_MS + HLC_DRIFT_MS_MAX) << LOGICAL_BITS) == 0
    leases.lift(far)
    assert leases.ahead_ms(far) == 0, "it is there already"
    store.commit()
    assert leases.stamp() > far, "a block that reaches so far was asked for at once"
    leases.lift(NOW_MS << LOGICAL_BITS)
    assert leases.stamp() > far, "it never falls"


def test_what_is_secured_binds_all_later_lives_also_after_a_power_cut() -> None:
    store, wall = Store(), Wall()
    leases = opened(store, wall)
    leases.renew()
    store.commit()
    near = leases.clock.ceiling
    told: list[StorageError | None] = []
    leases.secure(near, told.append)
    assert told == [None], "it is so already"
    far = near + (7_000 << LOGICAL_BITS)
    leases.secure(far, told.append)
    leases.secure(far - 1, told.append)
    assert told == [None]
    store.commit()
    assert told == [None, None, None]
    again = opened(Store(store.fs.power_cut(Random(1), keep=0.0)), wall)
    again.renew()
    assert again.clock.last >= far


def test_what_cannot_be_secured_is_told() -> None:
    store = Store()
    leases = opened(store, Wall())
    store.commit()
    store.fs.faults.append(Fault("sync"))
    told: list[StorageError | None] = []
    leases.secure(NOW_MS << LOGICAL_BITS, told.append)
    store.commit()
    assert isinstance(told[0], StorageError)
