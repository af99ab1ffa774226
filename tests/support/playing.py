"""Ansible as a user has it: the collection built and installed, playbooks called by their names.

Everything of Ansible's own (settings, caches, connections) lies in one directory of the test's. A play is a process of
its own with a deadline; what it says comes back whole, with the figures of its last lines as data.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from support.collection import COLLECTION

PLAY_S: Final = 280.0
RECAP: Final = re.compile(
    r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)\s+skipped=(\d+)\s+rescued=(\d+)",
    re.MULTILINE,
)


class Figures(NamedTuple):
    """What became of a host in a play."""

    ok: int
    changed: int
    unreachable: int
    failed: int
    skipped: int
    rescued: int


class Played(NamedTuple):
    """A play that has ended."""

    code: int
    text: str

    @property
    def hosts(self) -> Mapping[str, Figures]:
        """The recap."""
        return {found[0]: Figures(*map(int, found[1:])) for found in RECAP.findall(self.text)}

    @property
    def changed(self) -> int:
        """On all hosts together."""
        return sum(figures.changed for figures in self.hosts.values())


def need_ansible(module: str = "ansible") -> None:
    """Skip the test, with the reason, where it is not installed: `ansible`, or `ansiblelint` of extra `deploy`."""
    if importlib.util.find_spec(module) is None:
        extra = "dev" if module == "ansible" else "deploy"
        pytest.skip(f"{module} is not installed: pip install 'leafdb[{extra}]' brings it")


class Ansible:
    """An installation of the collection in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE", "LEAFDB"))},
            "ANSIBLE_HOME": str(directory / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(directory / "collections"),
            "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": "auto_silent",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
            "ANSIBLE_HOST_KEY_CHECKING": "0",
            "ANSIBLE_PIPELINING": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
        }

    def install(self) -> Ansible:
        """Build the collection and install what was built."""
        self._run("ansible-galaxy", "collection", "build", "--output-path", str(self._directory), str(COLLECTION))
        (built,) = self._directory.glob("leafdb-leafdb-*.tar.gz")
        where = str(self._directory / "collections")
        self._run("ansible-galaxy", "collection", "install", "--offline", "--collections-path", where, str(built))
        return self

    def play(self, *arguments: str, timeout_s: float = PLAY_S) -> Played:
        """`ansible-playbook ARGUMENTS`, to its end."""
        finished = self._process("ansible-playbook", *arguments, timeout_s=timeout_s)
        return Played(finished.returncode, finished.stdout)

    def _run(self, *command: str) -> None:
        finished = self._process(*command, timeout_s=PLAY_S)
        assert finished.returncode == 0, finished.stdout

    def _process(self, *command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self._directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
