"""Requests that know more than this node: one fetch for all that wait, each runs once more, and no third time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leafdb.node.catch_up import CatchUp


class Fetches:
    """Fetches begun and not ended."""

    def __init__(self) -> None:
        self.begun: list[Callable[[], None]] = []

    def __call__(self, done: Callable[[], None]) -> None:
        self.begun.append(done)

    def end(self) -> None:
        self.begun.pop(0)()


def test_one_fetch_serves_all_who_wait_in_their_order() -> None:
    fetches = Fetches()
    room = CatchUp(fetches)
    ran: list[int] = []
    for number in range(5):
        assert room.wait(lambda number=number: ran.append(number))  # type: ignore[misc]
    assert len(fetches.begun) == 1
    assert len(room) == 5
    fetches.end()
    assert ran == [0, 1, 2, 3, 4]
    assert len(room) == 0


def test_whoever_is_run_again_may_not_wait_again_but_a_later_one_may() -> None:
    fetches = Fetches()
    room = CatchUp(fetches)
    refused: list[bool] = []
    room.wait(lambda: refused.append(not room.wait(lambda: None)))
    fetches.end()
    assert refused == [True]
    assert room.wait(lambda: None)
    assert len(fetches.begun) == 1


def test_the_room_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leafdb.node.catch_up.EPOCH_WAITERS_MAX", 3)
    room = CatchUp(Fetches())
    assert [room.wait(lambda: None) for _ in range(5)] == [True, True, True, False, False]


def test_one_that_raises_takes_nobody_with_it() -> None:
    fetches = Fetches()
    room = CatchUp(fetches)
    ran: list[str] = []

    def broken() -> None:
        raise ZeroDivisionError

    room.wait(broken)
    room.wait(lambda: ran.append("second"))
    with pytest.raises(ZeroDivisionError):
        fetches.end()
    assert ran == ["second"]
    assert room.wait(lambda: ran.append("third"))
    fetches.end()
    assert ran == ["second", "third"]


def test_a_fetch_that_ends_inside_the_call_is_as_good() -> None:
    room = CatchUp(lambda done: done())
    ran: list[str] = []
    assert room.wait(lambda: ran.append("at once"))
    assert ran == ["at once"]
