"""Writers are slowed by debt before they are stopped by it, and a full disk does not flap."""

from __future__ import annotations

import pytest

from leafdb.errors import DiskFull
from leafdb.storage.pressure import STOP_S, Pressure
from leafdb.storage.settings import EngineConfig

CONFIG = EngineConfig(disk_free_bytes_low=100, disk_free_bytes_high=200)


def admitted_in_a_second(pressure: Pressure, start_s: float) -> int:
    now_s, admitted = start_s, 0
    while now_s < start_s + 1.0:
        wait_s = pressure.admit(now_s)
        if wait_s == 0.0:
            admitted += 1
            now_s += 0.000_01  # a writer that does nothing but write
        else:
            now_s += wait_s
    return admitted


def test_the_pace_falls_as_debt_rises_until_nothing_is_admitted() -> None:
    pressure = Pressure(CONFIG)
    rates = []
    for level0 in (0, 8, 12, 16, 19):
        pressure.update(frozen_memtables=0, level0_tables=level0, backlog_bytes=0)
        rates.append(admitted_in_a_second(pressure, 100.0 * (level0 + 1)))
    assert rates[0] > 90_000
    assert rates == sorted(rates, reverse=True)
    assert 50 < rates[-1] < 1000
    assert rates[1] < rates[0] / 3
    pressure.update(frozen_memtables=0, level0_tables=20, backlog_bytes=0)
    assert pressure.admit(10_000.0) == STOP_S
    pressure.update(frozen_memtables=4, level0_tables=0, backlog_bytes=0)
    assert pressure.admit(10_000.0) == STOP_S
    pressure.update(frozen_memtables=0, level0_tables=0, backlog_bytes=1 << 30)
    assert pressure.admit(10_000.0) == STOP_S
    pressure.update(frozen_memtables=1, level0_tables=7, backlog_bytes=1 << 20)
    assert pressure.admit(10_000.0) == 0.0
    assert pressure.calm


def test_a_burst_after_silence_is_not_punished_for_the_silence() -> None:
    pressure = Pressure(CONFIG)
    pressure.update(frozen_memtables=0, level0_tables=9, backlog_bytes=0)
    burst = 0
    while pressure.admit(500.0) == 0.0:
        burst += 1
    assert 10 < burst < 1000


def test_a_full_disk_refuses_until_there_is_clearly_room() -> None:
    pressure = Pressure(CONFIG)
    pressure.observe_free(100)
    assert pressure.admit(0.0) == 0.0
    pressure.observe_free(99)
    for free_bytes in (99, 150, 200):
        pressure.observe_free(free_bytes)
        with pytest.raises(DiskFull, match=f"{free_bytes} bytes are free"):
            pressure.admit(0.0)
    pressure.observe_free(201)
    assert pressure.admit(0.0) == 0.0
    pressure.observe_free(150)
    assert pressure.admit(0.0) == 0.0


def test_what_flushes_will_still_write_is_no_room() -> None:
    """Writes that are refused only when memory has grown beyond the room that is left leave no room for the flush that
    would free their log: the disk would stay full for ever."""
    pressure = Pressure(CONFIG)
    pressure.observe_free(1_000, 900)
    assert pressure.admit(0.0) == 0.0
    pressure.observe_free(1_000, 901)
    with pytest.raises(DiskFull, match="1000 bytes are free, 901 of them"):
        pressure.admit(0.0)
    pressure.observe_free(1_000, 800)
    with pytest.raises(DiskFull):
        pressure.admit(0.0)
    pressure.observe_free(600, 399)
    assert pressure.admit(0.0) == 0.0
