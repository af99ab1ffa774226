"""Promises: Ansible understands every playbook, and ansible-lint has nothing to say against the collection under its
strictest profile. A tool that is not installed is skipped aloud."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.collection import COLLECTION, playbooks
from support.playing import Ansible, need_ansible

INVENTORY = COLLECTION / "inventories" / "example" / "hosts.yml"


def test_the_syntax_of_every_playbook(ansible: Ansible) -> None:
    names = [f"leafdb.leafdb.{path.stem}" for path in playbooks()]
    played = ansible.play("--syntax-check", "--inventory", str(INVENTORY), *names)
    assert played.code == 0, played.text
    assert played.text.count("playbook: ") == len(names)


@pytest.mark.parametrize("name", ["add_node", "replace_node", "remove_node"])
def test_who_does_not_say_which_node_is_told_how(ansible: Ansible, name: str) -> None:
    played = ansible.play("--inventory", str(INVENTORY), f"leafdb.leafdb.{name}")
    assert played.code != 0
    assert "-e leafdb_" in played.text
    assert set(played.hosts) == {"localhost"}, "no other host was touched"


def test_a_dead_node_is_not_removed_without_consent(ansible: Ansible) -> None:
    extra = ["--extra-vars", "leafdb_nodes=c", "--extra-vars", "leafdb_dead=true"]
    played = ansible.play("--inventory", str(INVENTORY), "leafdb.leafdb.remove_node", *extra)
    assert played.code != 0
    assert "leafdb_i_understand_data_loss=true" in played.text
    assert set(played.hosts) == {"localhost"}


def test_ansible_lint_finds_nothing(ansible: Ansible, tmp_path: Path) -> None:
    need_ansible("ansiblelint")
    finished = subprocess.run(
        [sys.executable, "-m", "ansiblelint", "--offline", "--profile", "production", "--strict", "--nocolor"],
        cwd=COLLECTION, env={**ansible.environment, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
