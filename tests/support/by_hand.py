"""For tests that take every step of a plan themselves: what nodes would do on their own, held back."""

from __future__ import annotations

import pytest
import trio

from leafdb.node.changing_ranges import ChangingRanges
from leafdb.node.plan_driver import PlanDriver


def hold_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody drives a plan."""

    async def idle(driver: PlanDriver) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(PlanDriver, "run", idle)


def hold_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No plan asks for copies."""
    monkeypatch.setattr(ChangingRanges, "to_copy", lambda ranges: {})
