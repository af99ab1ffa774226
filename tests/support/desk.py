"""A desk as the pages for programmers have it: a directory, a shell, a Python prompt, and `leafdb dev`.

What is put for something else, and nothing more is:

    :7411, :7421, :7431     the ports of a free block, in shell and Python
    10.0.0.1, 10.0.0.2:7411   the first node and the second
    leafdb dev up           with --base-port of that block
    leafdb                  the same, without starting Python each time (support.quick_cli)
    python, python3         the Python of the tests
    docs/                   the repository's
    /backups, /etc/prometheus, /etc/grafana   directories beside
    ~                       the desk's directory: commands keep what they save there
    DATA_DIR, /var/lib/leafdb, and names of files below   files that the first node has
    10.0.0.4:7412           the peer address of a node that waits to be staged
    CTX                     the context that `leafdb kv siblings carts alice` shows
    names of members        those of `leafdb dev`
    figures (FEWER)         smaller ones: seconds instead of minutes, two seeds instead of a thousand
    what never ends         looks once (`--watch` of lists, `--follow`)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import chdir, suppress
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Final

import leafdb
from leafdb.testing.servers import MORTAL
from leafdb_cli.dev_layout import existing_nodes, free_base_port, holder
from support.pages import Block
from support.processes import LOG_LINES, WAIT_S, clean_environment, eventually
from support.source_tree import ROOT
from support.terminal import PASSWORD, Said, Terminal

BLOCK_S: Final = 240.0
NODES: Final = 3
BLANK: Final = "10.0.0.4:7412"
DEV_DIR: Final = ".leafdb-dev"
CONTEXT: Final = (
    "leafdb kv siblings carts alice -o jsonl | python3 -c 'import json, sys; print(json.load(sys.stdin)[\"context\"])'"
)

FEWER: Final = (
    (r"--duration \d+s", "--duration 0.5s"),
    (r"(leafdb bench run \S+)(?!.*--duration)", r"\1 --duration 0.5s"),
    (r"(leafdb bench run \S+)(?!.*--keys)", r"\1 --keys 500 --connections 4"),
    (r"--keys \d+", "--keys 500"),
    (r"--connections \d+", "--connections 4"),
    (r"--minutes \d+", "--minutes 0.02"),
    (r"leafdb sim museum(?! --list)", "leafdb sim museum coordinator-amnesia"),
    (r"--seeds \d+", "--seeds 2"),
    (r"(leafdb sim run)(?!.*--ops)", r"\1 --ops 25"),
    (r"--ops \d+", "--ops 25"),
    (r"--crashes [1-9]\d*", "--crashes 1"),
    (r"--node-hours [1-9]\d*", "--node-hours 1"),
    (r"--seconds \d+", "--seconds 1"),
)
ENDLESS: Final = (
    (r"(leafdb dev logs .*?) --follow", r"\1"),
    (r"(leafdb (?:storage stats|stats queues|node list|repair status)\b.*?) --watch", r"\1"),
)
MEMBERS: Final = ((r"--only [abc]\b", "--only dev-0"), (r"(--leave|stage leave) a\b", r"\1 dev-2"))
PYTHON: Final = """\
#!/usr/bin/env bash
exec {python} "$@"
"""


class Desk:
    """Somebody who types what a page says. Use it as `with`: no process is left in the end."""

    def __init__(self, directory: Path, page: str) -> None:
        self._directory = directory
        self._page = page
        self._port = free_base_port(NODES + 1, Random())
        self._terminal = Terminal(directory)
        for name in ("python", "python3"):
            self._terminal.program(name, PYTHON.format(python=sys.executable))
        self._names = ModuleType("page")  # a real one: dataclasses look their module up
        self._blank: subprocess.Popen[bytes] | None = None
        (directory / "docs").symlink_to(ROOT / "docs")
        (directory / "backups").mkdir()
        (directory / ".config" / "fish" / "completions").mkdir(parents=True)
        (directory / "photo.jpg").write_bytes(b"\xff\xd8 a picture" * 1_000)
        (directory / "value.bin").write_bytes(b"\xff\xd8")
        (directory / "commands.txt").write_text("status\n")
        (directory / "carts.password").write_text(PASSWORD)
        (directory / "carts.password").chmod(0o600)

    def __enter__(self) -> Desk:
        self._terminal.__enter__()
        sys.modules["page"] = self._names
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.__exit__()
        del sys.modules["page"]
        if self._blank is not None:
            self._blank.kill()
            self._blank.wait(WAIT_S)
        for node in existing_nodes(self._dev):
            if process := holder(node):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    @property
    def _dev(self) -> Path:
        return self._directory / DEV_DIR

    # -- typing

    def python(self, block: Block) -> None:
        """Run a block of Python, after those before it."""
        source = "\n" * block.lines_before + self._local(block.code)  # so that a traceback names the page's own line
        with chdir(self._directory):
            exec(compile(source, self._page, "exec"), vars(self._names))

    def shell(self, code: str) -> Said:
        """Run a block of shell; what came of it."""
        if BLANK in code and self._blank is None:
            self._start_blank()
        environment = {
            **clean_environment(), "LEAFDB_NODE": f"127.0.0.1:{self._port}", "PYTHONPATH": ":".join(sys.path),
            "HOME": str(self._directory), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "",
        }  # fmt: skip
        return self._terminal.run(self._local(code), environment, timeout_s=BLOCK_S)

    def up(self) -> None:
        """A cluster runs, as for pages that take one for granted."""
        said = self.shell(f"leafdb dev up -n 3\nsed 's|\\.\\./|{DEV_DIR}/|' {DEV_DIR}/node-0/leafdb.toml > leafdb.toml")
        assert said.code == 0, said

    def logs(self) -> str:
        """The end of every node's log, for the report of a failure."""
        parts = []
        with suppress(OSError):
            for node in existing_nodes(self._dev):
                parts += [f"--- {node.name}", *node.log.read_text(errors="replace").splitlines()[-LOG_LINES:]]
        return "\n".join(parts)

    # -- what is put for what

    def _local(self, code: str) -> str:
        for number, host in enumerate(("10.0.0.1", "10.0.0.2")):
            code = code.replace(f"{host}:7411", f"127.0.0.1:{7411 + 10 * number}")
        for number in range(NODES):
            code = code.replace(f":{7411 + 10 * number}", f":{self._port + 10 * number}")
        code = code.replace("leafdb dev up", f"leafdb dev up --base-port {self._port}")
        for root in ("/backups", "/etc/prometheus", "/etc/grafana"):
            code = code.replace(root, f"{self._directory}{root}")
        code = code.replace("--after CTX", f'--after "$({CONTEXT})"')
        code = code.replace(BLANK, f"127.0.0.1:{self._port + 10 * NODES + 1}")
        for old, new in (*FEWER, *ENDLESS, *MEMBERS):
            code = re.sub(old, new, code)
        return re.sub(r"(?:DATA_DIR|/var/lib/leafdb)/([a-z]*)/?[\w-]*(\.[a-z]+)?", self._file, code)

    def _file(self, named: re.Match[str]) -> str:
        """A file of the first node of the kind that the page names."""
        data = self._dev / "node-0" / "data"
        pattern = f"{named[1]}/*{named[2]}" if named[1] else "MANIFEST-*"
        found = sorted(data.glob(pattern))
        return str(found[-1]) if found else named[0]

    def _start_blank(self) -> None:
        """A node that belongs to no cluster, beside those of `leafdb dev`."""
        home = self._dev / "node-3"
        home.mkdir()
        text = (self._dev / "node-2" / "leafdb.toml").read_text().replace("dev-2", "dev-3")
        for port in range(3):
            text = text.replace(f'1:{self._port + 20 + port}"\n', f'1:{self._port + 30 + port}"\n')
        (home / "leafdb.toml").write_text(text)
        with (home / "log").open("wb") as log:
            self._blank = subprocess.Popen(
                [sys.executable, "-c", MORTAL, "-m", "leafdb.node.main", "--config", str(home / "leafdb.toml")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, env=clean_environment(),
            )  # fmt: skip
        eventually("the blank node answers", lambda: answers(f"127.0.0.1:{self._port + 10 * NODES}"))


def answers(address: str) -> bool:
    """Whether a node is there, of a cluster or not."""
    try:
        with leafdb.connect(f"leafdb://{address}", routing="listed", timeout=5.0) as asking:
            asking.ping()
    except leafdb.LeafdbError:
        return False
    return True
