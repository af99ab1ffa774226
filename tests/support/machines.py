"""Machines as the pages for operators have them, played on loopback, so that the pages themselves can be run.

The pages speak of machines a, b, c, ... at 10.0.0.1, 10.0.0.2, ... with a node each. Here machine a is a directory and
the address 127.X.Y.1 with the ports of the pages. What is put for something else, and nothing more is:

    10.0.0.              127.X.Y.
    /etc/leafdb/         DIR/MACHINE/etc/       on the machine where the block is run
    /var/lib/leafdb      DIR/MACHINE/data       in the configuration
    leafdb               the same, without starting Python each time (support.quick_cli)
    PLAN_ID              what `leafdb cluster plan` showed last
    systemctl restart    ends the machine's leafdbd by SIGTERM; returns when the next one answers, as Type=notify does
    ssh MACHINE          runs the rest on that machine

Blocks run in bash with `-e`, on a terminal: where a command has a name typed, the name it asks for is typed. What a
block exports, later ones see. Everything that waits has a deadline.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final

import leafdb
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError
from leafdb.testing.servers import MORTAL, clean_environment
from support.processes import LOG_LINES, WAIT_S, eventually
from support.quick_cli import SHIM

BLOCK_S: Final = 120.0
NAMES: Final = "abcdefgh"
PAGES_NET: Final = "10.0.0."

_TYPE: Final = re.compile(r"type (\S+) to go on: $")

SYSTEMCTL: Final = """\
#!/usr/bin/env bash
# Asks the test to do it, and waits.
echo "$1 $2 $MACHINE" > "$STAGE/asked.new"
mv "$STAGE/asked.new" "$STAGE/asked"
while [ -e "$STAGE/asked" ]; do sleep 0.05; done
"""
SSH: Final = """\
#!/usr/bin/env bash
MACHINE=$1
shift
export MACHINE
exec "$@"
"""


class Machines:
    """The machines, and a person who runs blocks. Use it as `with`: no process is left in the end."""

    def __init__(self, directory: Path, config: str) -> None:
        """`config`: what the page shows as leafdb.toml."""
        rng = Random()
        self._net = f"127.{rng.randrange(1, 255)}.{rng.randrange(1, 255)}."
        self._directory = directory
        self._config = config
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment: dict[str, str] = {}
        bin_ = directory / "bin"
        bin_.mkdir(parents=True)
        shim = SHIM.format(python=sys.executable)
        for name, text in (("leafdb", shim), ("systemctl", SYSTEMCTL), ("ssh", SSH)):
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        (bin_ / "python3").symlink_to(sys.executable)
        for name in NAMES:
            self._etc(name).mkdir(parents=True)

    def __enter__(self) -> Machines:
        path = self._directory / "cli"
        log = (self._directory / "cli.log").open("wb")
        with log:
            self._cli = subprocess.Popen(
                [sys.executable, "-c", MORTAL, "-m", "support.quick_cli", str(path)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            )  # fmt: skip
        eventually("the command line is there", path.exists)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._cli, *self._processes.values()):
            with suppress(ProcessLookupError):
                process.kill()
        for process in (self._cli, *self._processes.values()):
            process.wait(WAIT_S)

    # -- machines

    def address(self, name: str, port: int = 7411) -> str:
        """Where a machine's node listens."""
        return f"{self._net}{1 + NAMES.index(name)}:{port}"

    def install(self, name: str) -> None:
        """Give a machine the secret of the first one, and the page's configuration with its own name and addresses."""
        secret = self._etc(name) / "secret"
        if not secret.exists():
            secret.write_bytes((self._etc("a") / "secret").read_bytes())
            secret.chmod(0o600)
        text = self._config.replace('name = "a" ', f'name = "{name}" ', 1).replace(
            "/var/lib/leafdb", str(self._etc(name).parent / "data")
        )
        text = re.sub(rf"{re.escape(PAGES_NET)}1:(\d+)", lambda found: self.address(name, int(found[1])), text)
        (self._etc(name) / "leafdb.toml").write_text(self._here(text, name))

    def start(self, *names: str) -> None:
        """Install machines and start their nodes; they answer on return."""
        for name in names:
            self.install(name)
            assert not self.runs(name)
            with self._log(name).open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-c", MORTAL, "-m", "leafdb.node.main", "--config",
                     str(self._etc(name) / "leafdb.toml")],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._etc(name).parent,
                    env=clean_environment(os.environ), start_new_session=True,
                )  # fmt: skip
        for name in names:
            eventually(f"{name} answers", lambda name=name: self._answers(name))  # type: ignore[misc]  # bound now

    def runs(self, name: str) -> bool:
        """Whether its node lives."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def kill(self, *names: str) -> None:
        """The machine breaks."""
        for name in names:
            self._processes[name].kill()
            self._processes[name].wait(WAIT_S)

    def ended(self, name: str) -> int:
        """The exit code of a node that ends by itself."""
        return self._processes[name].wait(WAIT_S)

    def empty(self, name: str) -> None:
        """Empty its data directory, by another one in its place."""
        assert not self.runs(name)
        data = self._etc(name).parent / "data"
        data.rename(data.with_name(f"data-{time.monotonic_ns()}"))

    def connect(self, *names: str) -> Client:
        """A client of these."""
        return leafdb.connect("leafdb://" + ",".join(self.address(name) for name in names))

    def logs(self) -> str:
        """The end of every log, for the report of a failure."""
        parts = []
        for name in self._processes:
            lines = self._log(name).read_text(encoding="utf-8", errors="replace").splitlines()
            parts += [f"--- {name}, {'running' if self.runs(name) else 'not running'}", *lines[-LOG_LINES:]]
        return "\n".join(parts)

    # -- the person

    def run(self, block: str, *, on: str = "a", timeout_s: float = BLOCK_S) -> str:
        """Run a block; what it printed. AssertionError with everything it said unless it ends with 0."""
        said = self._directory / f"said-{time.monotonic_ns()}"
        exported = said.with_suffix(".environment")
        script = f"set -e\n{self._here(block, on)}\nenv -0 > {exported}\n"
        master, slave = pty.openpty()
        try:
            with said.open("wb") as out:
                process = subprocess.Popen(
                    ["bash", "-c", script], stdin=slave, stdout=out, stderr=slave, cwd=self._directory,
                    env=self._variables(on), start_new_session=True,
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
        text = said.read_text(encoding="utf-8")
        assert process.returncode == 0, f"{process.returncode}\n{block}\n{text}\n{notes}\n{self.logs()}"
        variables = dict(each.split("=", 1) for each in exported.read_text().split("\0") if each)
        self._environment = {name: variables[name] for name in ("LEAFDB_NODE",) if name in variables}
        return text

    def _attend(self, process: subprocess.Popen[bytes], master: int, timeout_s: float) -> str:
        """Sit at the terminal until the block ends: type what is asked for, restart what is to be. What was noted."""
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
                os.write(master, asked[1].encode() + b"\n")
            self._serve()
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s\n{notes.decode()}\n{self.logs()}"

    def _serve(self) -> None:
        """Do what `systemctl` was asked for."""
        asked = self._directory / "asked"
        if not asked.exists():
            return
        action, unit, name = asked.read_text().split()
        assert (action, unit) == ("restart", "leafdb")
        self._processes[name].terminate()
        assert self.ended(name) == 0, self.logs()
        self.start(name)
        asked.unlink()

    def _variables(self, on: str) -> dict[str, str]:
        path = f"{self._directory / 'bin'}:{os.environ['PATH']}"
        own = {"PATH": path, "STAGE": str(self._directory), "MACHINE": on, "COLUMNS": "80"}
        return {**clean_environment(os.environ), **self._environment, **own}

    def _here(self, text: str, name: str) -> str:
        return text.replace(PAGES_NET, self._net).replace("/etc/leafdb/", f"{self._etc(name)}/")

    def _etc(self, name: str) -> Path:
        return self._directory / name / "etc"

    def _log(self, name: str) -> Path:
        return self._directory / name / "log"

    def _answers(self, name: str) -> bool:
        assert self.runs(name), f"{name} has ended\n{self.logs()}"
        try:
            with leafdb.connect(f"leafdb://{self.address(name)}", routing="listed", timeout=5.0) as asking:
                asking.ping()
        except LeafdbError:
            return False
        return True
