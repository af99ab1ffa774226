"""Promise: no epoch is given twice, whatever a crash forgets; after an unclean stop old ones are under the floor."""

from __future__ import annotations

import pytest

from leafdb.limits import EPOCH_LEASE
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import LeaseExhausted


def leased(*, ceiling: int = 0, floor: int = 0, clean: bool = True) -> EpochLease:
    lease = EpochLease.recovered(ceiling=ceiling, floor=floor, clean=clean)
    wanted = lease.lease_wanted()
    assert wanted is not None
    lease.grant(wanted)
    lease.check()
    return lease


def test_nothing_is_given_before_the_first_grant_nor_beyond_the_block() -> None:
    lease = EpochLease.recovered(ceiling=0, floor=0, clean=True)
    with pytest.raises(LeaseExhausted):
        lease.next()
    lease.grant(4)
    assert [lease.next() for _ in range(3)] == [1, 2, 3]
    with pytest.raises(LeaseExhausted):
        lease.next()


def test_restarts_never_repeat_an_epoch() -> None:
    given: list[int] = []
    ceiling, floor = 0, 0
    for clean in (True, False, True, False, False):
        lease = leased(ceiling=ceiling, floor=floor, clean=clean)
        given += [lease.next() for _ in range(10)]
        ceiling, floor = lease.ceiling, lease.floor
    assert len(set(given)) == len(given)
    assert given == sorted(given)


def test_an_unclean_start_puts_all_old_epochs_under_the_floor() -> None:
    before = leased()
    old = [before.next() for _ in range(5)]
    after = leased(ceiling=before.ceiling, floor=before.floor, clean=False)
    assert all(epoch < after.floor for epoch in old)
    assert after.next() >= after.floor


def test_a_clean_start_keeps_the_floor() -> None:
    before = leased(ceiling=500, floor=77, clean=True)
    assert before.floor == 77
    assert leased(ceiling=before.ceiling, floor=before.floor, clean=True).floor == 77


def test_renewal_is_wanted_before_the_end_and_granted_only_upwards() -> None:
    lease = leased()
    assert lease.lease_wanted() is None
    taken = 0
    while lease.lease_wanted() is None:
        lease.next()
        taken += 1
    assert 0.7 * EPOCH_LEASE < taken < 0.9 * EPOCH_LEASE
    assert lease.lease_wanted() == lease.ceiling + EPOCH_LEASE
    ceiling = lease.ceiling
    lease.grant(ceiling - 1)
    assert lease.ceiling == ceiling
