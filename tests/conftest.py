"""What every test may rely on, whoever started pytest and from where."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROCESSES = "system", "deploy"
"""Folders whose tests start nodes: two clusters at a time would starve each other."""
ALONE = ("sim",)
"""Folders whose tests share nothing, and take long: each goes wherever there is time for it."""
TOLD = "told"
TERMINAL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TERMINAL_WIDTH")


def pytest_configure(config: pytest.Config) -> None:
    """Undo what the surroundings may have set: they are not what is tested.

    A shell's background job ignores SIGINT, and so would every process a test starts and interrupts. LEAFDB_ variables
    are settings of nodes and of the command line; LEAFDB_TEST_ ones are ours. The others change what a terminal shows.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        ours = name.startswith("LEAFDB_") and not name.startswith("LEAFDB_TEST_")
        if ours or name in TERMINAL:
            del os.environ[name]


@pytest.hookimpl(tryfirst=True)  # the names of the groups are looked at by a hook of this name, too
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What stays together when tests run in several processes (`-n`, as in `make test`), and what begins first.

    All that starts nodes is one group, the longest, and begins at once; of the others each file is one, since it may
    have fixtures of its own. Without `-n` the groups mean nothing, and the order is the same."""
    ranks = {}
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in PROCESSES:
            item.add_marker(pytest.mark.xdist_group("processes"))
        elif folder not in ALONE:
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).as_posix()))
        ranks[item] = 0 if folder in PROCESSES else 1 if folder in ALONE else 2
    items.sort(key=ranks.__getitem__)


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says something in the summary, passed or failed, from whatever process: seeds, counts."""
    return partial(record_property, TOLD)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests had to tell."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, text in report.user_properties:
                if name == TOLD and report.when == "call":
                    terminalreporter.write_line(f"{report.nodeid.rpartition('/')[2]}: {text}")
