"""The Ansible collection read as data: its plays, its tasks, the variables of its roles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from support.source_tree import ROOT

COLLECTION: Final = ROOT / "ansible"
ROLES: Final = ("node", "monitoring")
BLOCKS: Final = ("block", "rescue", "always")
KEYWORDS: Final = frozenset(
    {
        "name", "when", "vars", "loop", "loop_control", "register", "changed_when", "failed_when", "check_mode",
        "no_log", "notify", "delegate_to", "run_once", "become", "environment", "throttle", "until",
        "retries", "delay", *BLOCKS,
    }
)  # fmt: skip


class Task(NamedTuple):
    """A task, or a block of some, and where it stands."""

    path: Path
    body: dict[str, Any]

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.path.relative_to(ROOT)}: {self.body.get('name', self.body)}"

    @property
    def module(self) -> str:
        """What it calls; empty for a block."""
        words = [word for word in self.body if word not in KEYWORDS]
        assert len(words) <= 1, f"{self.where}: {words}"
        return words[0] if words else ""

    @property
    def arguments(self) -> Any:
        """What it calls it with."""
        return self.body.get(self.module)


def load(path: Path) -> Any:
    """A file of YAML."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def yaml_files() -> list[Path]:
    """Every one of the collection."""
    return sorted(path for path in COLLECTION.rglob("*") if path.suffix in (".yml", ".yaml"))


def playbooks() -> list[Path]:
    """All of them."""
    return sorted((COLLECTION / "playbooks").glob("*.yml"))


def plays() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every play with its hosts; not those that only bring in another playbook."""
    for path in playbooks():
        for play in load(path):
            if "hosts" in play:
                yield path, play


def tasks() -> Iterator[Task]:
    """Every task of roles and playbooks, those in blocks as well."""
    for role in ROLES:
        for folder in ("tasks", "handlers"):
            for path in sorted((COLLECTION / "roles" / role / folder).glob("*.yml")):
                yield from _flat(path, load(path))
    for path, play in plays():
        yield from _flat(path, play.get("tasks", []))


def role_variables(role: str, folder: str) -> dict[str, Any]:
    """`defaults` or `vars` of a role."""
    path = COLLECTION / "roles" / role / folder / "main.yml"
    found: dict[str, Any] = load(path) if path.exists() else {}
    return found


def _flat(path: Path, bodies: list[dict[str, Any]]) -> Iterator[Task]:
    for body in bodies:
        yield Task(path, body)
        for block in BLOCKS:
            yield from _flat(path, body.get(block, []))
