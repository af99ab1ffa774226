"""Machines as the pages for operators have them, played on loopback, so that the pages themselves can be run.

The pages speak of machines a, b, c, ... at 10.0.0.1, 10.0.0.2, ... with a node each. Here machine a is a directory and
the address 127.X.Y.1 with the ports of the pages. What is put for something else, and nothing more is:

    10.0.0.              127.X.Y.
    /etc/leafdb/         DIR/MACHINE/etc/       on the machine where the block is run
    /var/lib/leafdb      DIR/MACHINE/data       in the configuration
    leafdb               the same, without starting Python each time (support.quick_cli)
    PLAN_ID              what `leafdb cluster plan` showed last
    ./out/MACHINE.crt    made as the page makes those of the first three, for machines that come later
    auth.mode            required: what auto comes to on addresses that other machines reach, as 10.0.0.1
    systemctl restart    ends the machine's leafdbd by SIGTERM; returns when the next one answers, as Type=notify does
    ssh MACHINE          runs the rest on that machine

Blocks run as a person would run them (support.terminal). What a block exports, later ones see. Everything that waits
has a deadline.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final, Literal

import leafdb
from leafdb.client.auth import cluster_login
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError
from leafdb.testing.servers import MORTAL, clean_environment
from support.processes import LOG_LINES, WAIT_S, eventually
from support.terminal import Terminal

BLOCK_S: Final = 120.0
NAMES: Final = "abcdefgh"
PAGES_NET: Final = "10.0.0."
ASKS_WHO_COMES: Final = '\n[auth]\nmode = "required"\n'

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
        self._terminal = Terminal(directory, serve=self._serve)
        self._terminal.program("systemctl", SYSTEMCTL)
        self._terminal.program("ssh", SSH)
        (self._terminal.bin / "python3").symlink_to(sys.executable)
        for name in NAMES:
            self._etc(name).mkdir(parents=True)

    def __enter__(self) -> Machines:
        self._terminal.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.__exit__()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.kill()
        for process in self._processes.values():
            process.wait(WAIT_S)

    # -- machines

    def address(self, name: str, port: int = 7411) -> str:
        """Where a machine's node listens."""
        return f"{self._net}{1 + NAMES.index(name)}:{port}"

    def install(self, name: str) -> None:
        """Give a machine the secret of the first one, its certificate, and the page's configuration with its own name
        and addresses."""
        etc, made = self._etc(name), self._directory / "out"
        carried = (
            (self._etc("a") / "secret", "secret"), (self._directory / "leafdb-ca" / "ca.crt", "ca.crt"),
            (made / f"{name}.crt", f"{name}.crt"), (made / f"{name}.key", f"{name}.key"),
        )  # fmt: skip
        for file, there in carried:
            if file != etc / there:
                shutil.copy(file, etc / there)  # its mode too: others may not read secrets
        text = self._config.replace('name = "a" ', f'name = "{name}" ', 1).replace("/a.", f"/{name}.")
        text = text.replace("/var/lib/leafdb", str(etc.parent / "data")) + ASKS_WHO_COMES
        text = re.sub(rf"{re.escape(PAGES_NET)}1:(\d+)", lambda found: self.address(name, int(found[1])), text)
        (self._etc(name) / "leafdb.toml").write_text(self._here(text, name))

    def start(self, *names: str) -> None:
        """Install machines and start their nodes; they answer on return."""
        for name in names:
            if not (self._directory / "out" / f"{name}.crt").exists():
                number = 1 + NAMES.index(name)
                self.run(f"leafdb cert issue {name} --host {PAGES_NET}{number} --out ./out")
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
        """A client of these, who may do everything."""
        return self._client(*(self.address(name) for name in names))

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
        own = {"MACHINE": on, **self._environment}
        said = self._terminal.run(self._here(block, on), {**clean_environment(os.environ), **own}, timeout_s=timeout_s)
        assert said.code == 0, f"{said.code}\n{block}\n{said.text}\n{said.notes}\n{self.logs()}"
        self._environment = {name: text for name, text in said.environment.items() if name.startswith("LEAFDB_")}
        return said.text

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

    def _here(self, text: str, name: str) -> str:
        return text.replace(PAGES_NET, self._net).replace("/etc/leafdb/", f"{self._etc(name)}/")

    def _etc(self, name: str) -> Path:
        return self._directory / name / "etc"

    def _log(self, name: str) -> Path:
        return self._directory / name / "log"

    def _answers(self, name: str) -> bool:
        assert self.runs(name), f"{name} has ended\n{self.logs()}"
        try:
            with self._client(self.address(name), routing="listed") as asking:
                asking.ping()
        except LeafdbError:
            return False
        return True

    def _client(self, *addresses: str, routing: Literal["ring", "listed"] = "ring") -> Client:
        tls = leafdb.TLS(ca_file=self._directory / "leafdb-ca" / "ca.crt")
        auth = cluster_login((self._etc("a") / "secret").read_bytes().strip())
        return leafdb.connect(f"leafdbs://{','.join(addresses)}", tls=tls, auth=auth, routing=routing)
