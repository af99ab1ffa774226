"""Promises: what README.md and docs/ tell people to type does what they say. Python is always run; shell is run with
real nodes, each page in a directory of its own, or says above it why not.

Pages that tell a story are run as a whole, in order, and every command of theirs ends with 0. The pages about several
machines have a story of their own: tests/system/test_how_to_pages.py. Of pages that list commands each is looked up,
with its options: tests/unit/docs/test_pages_name_commands.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from support.desk import Desk
from support.pages import begins_with_program, blocks, pages, shell_blocks
from support.source_tree import ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

STORIES: Final = (
    "README.md", "docs/tutorial.md", "docs/how-to/migrate.md", "docs/examples/shopping-cart.md",
    "docs/operations/local-cluster.md",
)  # fmt: skip
"""Shell and Python, in the order of the page."""
LISTS: Final = (
    "docs/cli.md", "docs/operations/backup.md", "docs/operations/snapshots.md", "docs/operations/storage.md",
    "docs/simulation.md",
)  # fmt: skip
MACHINES: Final = (
    "docs/operations/cluster.md", "docs/operations/how-to-grow.md", "docs/operations/how-to-replace.md",
    "docs/operations/how-to-restart.md", "docs/operations/trouble.md",
)  # fmt: skip
"""Their shell is run by the story of tests/system/test_how_to_pages.py."""


def is_whole(page: str) -> bool:
    """Whether a page begins with its own cluster."""
    return "leafdb dev up" in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", STORIES)
def test_a_page_that_tells_a_story_can_be_typed_along(page: str, tmp_path: Path) -> None:
    path = ROOT / page
    story = [*shell_blocks(path), *(block for block in blocks(path) if block.language == "python")]
    with Desk(tmp_path, page) as desk:
        try:
            if not is_whole(page):
                desk.up()
            for block in sorted(story, key=lambda block: block.lines_before):
                if block.language == "python":
                    desk.python(block)
                elif not block.no_run:
                    said = desk.shell(block.code)
                    assert said.code == 0, f"line {block.lines_before + 1}\n{block.code}\n{said.text}\n{said.notes}"
        finally:
            print(desk.logs())


def test_every_block_is_run_somewhere_or_says_why_not(capsys: pytest.CaptureFixture[str]) -> None:
    known = {*STORIES, *LISTS, *MACHINES}
    lost, bare = [], []
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for path in pages():
        page = str(path.relative_to(ROOT))
        for block in blocks(path):
            if block.language == "python":
                assert not block.no_run, f"{page}, line {block.lines_before}: Python is always run"
                counts["python"] += 1
            if not block.language and begins_with_program(block.code):
                bare.append(f"{page}, line {block.lines_before}")
        for block in shell_blocks(path):
            counts["not run" if block.no_run else "looked up" if page in LISTS else "shell"] += 1
            reasons[block.no_run] += bool(block.no_run)
            if not block.no_run and page not in known:
                lost.append(f"{page}, line {block.lines_before + 1}")
    with capsys.disabled():
        told = "; ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()) if reason)
        print(f"\nblocks run: {counts['python']} Python, {counts['shell']} shell; looked up: {counts['looked up']}")
        print(f"not run: {counts['not run']}: {told}")
    assert not lost, f"name where these are run, or say above them why not: {lost}"
    assert not bare, f"these look like shell: say so, and they are run: {bare}"
