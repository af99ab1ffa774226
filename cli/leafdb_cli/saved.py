"""Saved connections: a file with a table for each cluster, and which of them is meant when nobody says otherwise.

    current = "prod"

    [prod]
    nodes = ["10.0.0.1:7411", "10.0.0.2:7411"]

It lies below the user's configuration directory and is nobody else's to read. Secrets are not for it: what a cluster
wants besides addresses is named by the paths of files. A key that this version does not know is kept as it is.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from leafdb.errors import ConfigError

CURRENT: Final = "current"
NONE: Final = "none"
FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """What the file holds."""

    path: Path
    tables: Mapping[str, Table] = field(default_factory=dict)
    current: str = ""

    def nodes(self, name: str) -> tuple[str, ...]:
        """The addresses of a saved connection, in its order. Raises ConfigError."""
        table = self.tables.get(name)
        if table is None:
            known = f"it has {', '.join(self.tables)}" if self.tables else "it has none"
            raise ConfigError(
                f"no saved connection {name!r} in {self.path}; {known}: leafdb context add {name} HOST:PORT"
            )
        nodes = table.get("nodes")
        if not isinstance(nodes, list) or not nodes or not all(isinstance(node, str) for node in nodes):
            raise ConfigError(f'{self.path}: [{name}] wants nodes = ["HOST:PORT", ...]')
        return tuple(nodes)

    def added(self, name: str, nodes: tuple[str, ...]) -> Saved:
        """The same with these addresses under this name; what else its table had stays."""
        table = {**self.tables.get(name, {}), "nodes": list(nodes)}
        return replace(self, tables={**self.tables, name: table})

    def removed(self, name: str) -> Saved:
        """The same without it."""
        tables = {other: table for other, table in self.tables.items() if other != name}
        return replace(self, tables=tables, current="" if self.current == name else self.current)

    def using(self, name: str) -> Saved:
        """The same with this one as the one that is meant; empty: none is."""
        return replace(self, current=name)


def saved_clusters_path(environment: Mapping[str, str]) -> Path:
    """Where the file is."""
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".config")
    return Path(home) / "leafdb" / "clusters.toml"


def read_saved(path: Path) -> Saved:
    """What is there; nothing when there is no file. Raises ConfigError for one that cannot be understood."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Saved(path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; mend it by hand, or move it away") from None
    current = found.pop(CURRENT, "")
    if not isinstance(current, str) or not all(isinstance(table, dict) for table in found.values()):
        raise ConfigError(f'{path}: wants a table for each cluster, and current = "NAME"; mend it by hand')
    return Saved(path, found, current)


def write_saved(saved: Saved) -> None:
    """Replace the file, whole or not at all. Raises OSError, and ConfigError for what it could not write as it was."""
    text = render(saved)
    saved.path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    beside = saved.path.with_name(f".{saved.path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(saved.path)


def render(saved: Saved) -> str:
    """The file's text."""
    parts = [f"{CURRENT} = {_value(saved.current, saved.path)}\n"] if saved.current else []
    for name, table in saved.tables.items():
        lines = [f"{_key(key)} = {_value(value, saved.path)}\n" for key, value in table.items()]
        parts.append("".join([f"[{_key(name)}]\n", *lines]))
    return "\n".join(parts)


def _key(name: str) -> str:
    """A TOML key: bare where it may be, and quoted as a basic string, of which JSON has the escapes."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else json.dumps(name, ensure_ascii=False)


def _value(value: object, path: Path) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return json.dumps(value, ensure_ascii=False)
        case int() | float():
            return repr(value)
        case list():
            return "[" + ", ".join(_value(each, path) for each in value) + "]"
        case _:
            raise ConfigError(f"{path} holds a value that this command cannot write again: edit it by hand")
