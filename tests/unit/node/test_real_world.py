"""The real world is refused with a reason where it cannot carry a node; a bug in a callback ends the node, not trio."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from leafdb.errors import ConfigError
from leafdb.node.real_world import Bugs, real_world


def test_a_file_in_the_place_of_the_data_directory_is_a_clear_refusal(tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.write_text("not a directory")

    async def start() -> None:
        async with real_world(str(place)):
            raise AssertionError("a world on a plain file")

    with pytest.raises(ConfigError, match=r"node\.data_dir: .*cannot be used"):
        trio.run(start)


def test_an_exception_in_a_threads_callback_is_raised_by_a_task() -> None:
    def bug() -> None:
        raise LookupError("a bug")

    async def story() -> None:
        bugs = Bugs()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bugs.raise_first)
            trio.lowlevel.current_trio_token().run_sync_soon(bugs.guard, bug)
            await trio.sleep(5)

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(story)
    assert caught.group_contains(LookupError, match="a bug")
