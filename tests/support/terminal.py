"""A person at a terminal, who runs blocks of shell and types what is asked for.

Blocks run in bash with `-e`, on a terminal of their own: where a command has a name typed, the name it asks for is
typed, and where it asks for a password, always the same one. Standard output is a file, so that data is what a program
would get. Everything has a deadline.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from leafdb.testing.servers import MORTAL
from support.processes import WAIT_S, eventually
from support.quick_cli import SHIM

PASSWORD: Final = "correct horse battery staple"
_TYPE: Final = re.compile(r"type (\S+) to go on: $|(?:new password|password of \S+|once more): $")


class Said(NamedTuple):
    """What came of a block."""

    code: int
    text: str
    notes: str
    environment: dict[str, str]


class Terminal:
    """Runs blocks in a directory, with `leafdb` on the path of `bin`: the same, without starting Python each time.

    Use it as `with`: no process is left in the end.
    """

    def __init__(self, directory: Path, *, serve: Callable[[], None] = lambda: None) -> None:
        """`serve` is called again and again while a block runs."""
        self._directory = directory
        self._serve = serve
        self.bin = directory / "bin"
        self.bin.mkdir(parents=True)
        self.program("leafdb", SHIM.format(python=sys.executable))

    def program(self, name: str, text: str) -> None:
        """Put a script on the path."""
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def __enter__(self) -> Terminal:
        path = self._directory / "cli"
        with (self._directory / "cli.log").open("wb") as log:
            self._cli = subprocess.Popen(
                [sys.executable, "-c", MORTAL, "-m", "support.quick_cli", str(path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
                start_new_session=True,  # a password is not asked for at the terminal of whoever runs the tests
            )  # fmt: skip
        eventually("the command line is there", path.exists)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._cli.kill()
        self._cli.wait(WAIT_S)

    def run(self, block: str, environment: Mapping[str, str], *, timeout_s: float) -> Said:
        """Run a block to its end. AssertionError if it does not come."""
        said = self._directory / f"said-{time.monotonic_ns()}"
        exported = said.with_suffix(".environment")
        script = f"set -e\n{block}\nenv -0 > {exported}\n"
        path = {"PATH": f"{self.bin}:{os.environ['PATH']}", "STAGE": str(self._directory), "COLUMNS": "80"}
        master, slave = pty.openpty()
        try:
            with said.open("wb") as out:
                process = subprocess.Popen(
                    ["bash", "-c", script], stdin=slave, stdout=out, stderr=slave, cwd=self._directory,
                    env={**environment, **path}, start_new_session=True,
                )  # fmt: skip
            try:
                notes = self._attend(process, master, timeout_s)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
                process.wait(WAIT_S)
        finally:
            os.close(master)
            os.close(slave)
        variables = exported.read_text().split("\0") if exported.exists() else []
        pairs = dict(each.split("=", 1) for each in variables if each)
        return Said(process.returncode, said.read_text(encoding="utf-8", errors="replace"), notes, pairs)

    def _attend(self, process: subprocess.Popen[bytes], master: int, timeout_s: float) -> str:
        """Sit there until the block ends, and type what is asked for. What was noted."""
        notes = b""
        typed = 0
        deadline = time.monotonic() + timeout_s
        while True:
            ended = process.poll() is not None
            if select.select([master], [], [], 0.0 if ended else 0.05)[0]:
                notes += os.read(master, 65_536)
            elif ended:
                return notes.decode("utf-8", "replace")
            asked = _TYPE.search(notes[typed:].decode("utf-8", "replace"))
            if asked is not None:
                typed = len(notes)
                os.write(master, (asked[1] or PASSWORD).encode() + b"\n")
            self._serve()
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s\n{notes.decode('utf-8', 'replace')}"
