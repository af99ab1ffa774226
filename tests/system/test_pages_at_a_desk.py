"""Promises: what README.md and docs/ tell people to type does what they say. Every block of shell and of Python is run,
each page in a directory of its own with real nodes, or says above it why not; and blocks of Python are always run.

Pages that tell a story are run as a whole, in order, and every command of theirs ends with 0. Pages that list commands
are typed line by line: what such a command finds depends on the cluster, so it may end by saying what it found. The
pages about several machines have a story of their own: tests/system/test_how_to_pages.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from leafdb_cli import exits
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
    "docs/cli.md", "docs/operations/backup.md", "docs/operations/monitoring.md", "docs/operations/snapshots.md",
    "docs/operations/storage.md", "docs/simulation.md",
)  # fmt: skip
MACHINES: Final = (
    "docs/operations/accounts.md", "docs/operations/cluster.md", "docs/operations/how-to-grow.md",
    "docs/operations/how-to-replace.md", "docs/operations/how-to-restart.md", "docs/operations/tls.md",
    "docs/operations/trouble.md",
)  # fmt: skip
"""Their shell is run by the story of tests/system/test_how_to_pages.py."""
FINDINGS: Final = (0, exits.NOT_FOUND, exits.CONFLICT, exits.UNHEALTHY, exits.STALE)
"""How a command may end that was understood and was answered."""
MADE: Final = re.compile(r"leafdb bucket create (\S+)")
DROPPED: Final = re.compile(r"leafdb bucket drop (\S+)")
FILLED: Final = (
    "leafdb bucket create {0}; leafdb kv put {0} alice tea; leafdb kv put {0} photo --file photo.jpg;"
    "leafdb storage flush --wait"
)
NOTHING_THERE: Final = ("leafdb cluster abort",)
"""There may be nothing to give up: then it ends with 1, and says so."""


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


@pytest.mark.parametrize("page", LISTS)
def test_every_line_of_a_page_that_lists_commands_is_understood(page: str, tmp_path: Path) -> None:
    problems = []
    ended: Counter[int] = Counter()
    with Desk(tmp_path, page) as desk:
        desk.up()
        desk.shell(FILLED.format("carts"))
        for line in typed(page):
            if made := MADE.match(line):  # a list makes the same bucket more than once
                desk.shell(f"leafdb bucket drop {made[1]} --yes --i-understand-data-loss")
            said = desk.shell(line)
            ended[said.code] += 1
            print(said.code, line, flush=True)
            if dropped := DROPPED.match(line):
                desk.shell(FILLED.format(dropped[1]))
            allowed = (*FINDINGS, exits.FAILED) if line.startswith(NOTHING_THERE) else FINDINGS
            if said.code not in allowed or "Traceback" in said.notes:
                problems.append(f"{line}: {said.code}\n{said.text[-2000:]}\n{said.notes[-2000:]}")
    print(f"{page}: exit codes {dict(ended)}")
    assert not problems, "\n".join(problems)
    assert ended[0] > ended.total() * 2 // 3, ended


def typed(page: str) -> list[str]:
    """The lines of a page, one command each."""
    code = "".join(block.code for block in shell_blocks(ROOT / page) if not block.no_run)
    return [line for line in code.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


def test_every_block_is_run_somewhere_or_says_why_not(tell: Callable[[str], None]) -> None:
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
            counts["shell" if not block.no_run else "not run"] += 1
            reasons[block.no_run] += bool(block.no_run)
            if not block.no_run and page not in known:
                lost.append(f"{page}, line {block.lines_before + 1}")
    told = "; ".join(f"{reason} ({count})" for reason, count in sorted(reasons.items()) if reason)
    tell(f"blocks run: {counts['python']} Python, {counts['shell']} shell; not run: {counts['not run']}: {told}")
    assert not lost, f"name where these are run, or say above them why not: {lost}"
    assert not bare, f"these look like shell: say so, and they are run: {bare}"
