"""One sum of everything that grows with load, and one answer to whether there is room for more."""

from __future__ import annotations

import pytest
import trio

from leafdb.node.memory import READ_INTERVAL_S, Line, MemoryLedger
from leafdb.testing.virtual_time import virtual


def test_the_sum_is_that_of_the_lines_and_full_at_the_bound() -> None:
    ledger = MemoryLedger(100)
    held = {"memtables": 60, "outboxes": 39}
    for holder in held:
        ledger.hold(holder, lambda holder=holder: held[holder])  # type: ignore[misc]
    assert not ledger.full, "nothing was read yet"
    assert ledger.read() == (Line("memtables", 60), Line("outboxes", 39))
    assert ledger.held_bytes == 99
    assert not ledger.full
    held["outboxes"] += 1
    ledger.read()
    assert ledger.full


def test_a_holder_has_one_line() -> None:
    ledger = MemoryLedger(1)
    ledger.hold("memtables", lambda: 0)
    with pytest.raises(AssertionError):
        ledger.hold("memtables", lambda: 0)


@virtual
async def test_the_sum_follows_what_is_held() -> None:
    ledger = MemoryLedger(10)
    held = [0]
    ledger.hold("operations", lambda: held[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        seen = []
        for size in (10, 9, 11):
            held[0] = size
            await trio.sleep(READ_INTERVAL_S * 1.5)
            seen.append(ledger.full)
        assert seen == [True, False, True]
        nursery.cancel_scope.cancel()
