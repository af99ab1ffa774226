"""Promises: the role installs and configures into a directory of this machine, without root and without systemd; what
it installed runs; a second run changes nothing, and a rehearsal of it promises nothing else; another wheel is another
release beside the first.

The wheels come from this checkout and from where pip finds packages. It takes a minute, so it runs where the extra
`deploy` is installed, and not with every `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.playing import Ansible, Played, need_ansible
from support.source_tree import ROOT

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(1_200)]


class Stage:
    """A directory that is played into."""

    def __init__(self, ansible: Ansible, directory: Path, wheels: Path) -> None:
        self.prefix = directory / "host"
        self._ansible = ansible
        self._play = directory / "play.yml"
        self._play.write_text(
            yaml.safe_dump([{"hosts": "leafdb", "gather_facts": False, "roles": [{"role": "leafdb.leafdb.node"}]}])
        )
        self._variables: dict[str, Any] = {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "node_address": "127.0.0.1",
            "node_cluster_name": "prod", "node_secret": "a-secret-of-at-least-thirty-two-characters",
            "node_prefix": str(self.prefix), "node_manage_system": False, "node_python": sys.executable,
            "node_build_directory": str(directory / "built"), "node_wheel_directory": str(wheels),
            "node_wheel": str(*wheels.glob("leafdb-*.whl")),
        }  # fmt: skip
        self._inventory = directory / "hosts.yml"

    def play(self, *arguments: str, **variables: object) -> Played:
        """The role, once more."""
        hosts = {"a": {**self._variables, **variables}}
        self._inventory.write_text(yaml.safe_dump({"leafdb": {"hosts": hosts}}))
        played = self._ansible.play("--inventory", str(self._inventory), str(self._play), *arguments)
        assert played.code == 0, played.text
        return played

    def releases(self) -> list[Path]:
        """What is installed."""
        return sorted((self.prefix / "opt" / "leafdb").iterdir())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with leafdb and everything it depends on."""
    need_ansible("ansiblelint")
    directory = tmp_path_factory.mktemp("wheels")
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(directory), f"{ROOT}[server,cli]"],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    if made.returncode != 0 and "Could not find a version" in made.stderr:
        pytest.skip(f"no package index can be reached from here: {made.stderr[-200:]}")
    assert made.returncode == 0, made.stderr
    return directory


def test_a_release_is_installed_configured_and_left_alone(ansible: Ansible, tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "host").mkdir()
    stage = Stage(ansible, tmp_path, wheels)
    rehearsed = stage.play("--check")
    assert rehearsed.changed > 0
    assert not list(stage.prefix.iterdir()), "a rehearsal does nothing"

    first = stage.play()
    assert first.changed > 0
    (release,) = stage.releases()
    config = stage.prefix / "etc" / "leafdb" / "leafdb.toml"
    assert run(release / "bin" / "leafdbd", "--config", str(config), "--check").endswith("the configuration is fine\n")
    assert (stage.prefix / "etc" / "leafdb" / "secret").stat().st_mode & 0o777 == 0o400
    assert "a-secret-of-at-least" not in first.text, "secrets are not shown"

    assert stage.play().changed == 0
    assert stage.play("--check", "--diff").changed == 0

    changed = stage.play(node_settings={"log": {"level": "debug"}})
    assert changed.changed == 1, changed.text
    assert 'level = "debug"' in config.read_text()
    refused = stage.play
    with pytest.raises(AssertionError, match=r"log\.level"):
        refused(node_settings={"log": {"level": "loud"}})
    assert 'level = "debug"' in config.read_text(), "a configuration that leafdbd refuses never takes the place of one"


def test_an_interrupted_installation_is_made_again(ansible: Ansible, tmp_path: Path, wheels: Path) -> None:
    stage = Stage(ansible, tmp_path, wheels)
    stage.play()
    (release,) = stage.releases()
    (release / ".complete").unlink()
    (release / "bin" / "leafdbd").unlink()
    assert stage.play().changed > 0
    assert run(release / "bin" / "leafdbd", "--version").startswith("leafdbd ")


def run(program: Path, *arguments: str, **environment: str) -> str:
    """What a program says on stdout."""
    own: Mapping[str, str] = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    finished = subprocess.run(
        [str(program), *arguments], env={**own, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
