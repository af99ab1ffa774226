"""What every test may rely on, whoever started pytest and from where."""

from __future__ import annotations

import os
import signal

import pytest

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
