"""The global options: what may stand anywhere on the line, before the noun or behind the verb.

    leafdb --node 10.0.0.1:7411 kv get carts alice      leafdb kv get carts alice --node 10.0.0.1:7411

`hoist` moves them to the front, where typer's callback in `main` parses them; what follows a bare `--` is never
touched. Where to connect is decided here: --node, else --cluster (a saved connection), each with its environment
variable, else the default port of this machine; and whether TLS is spoken: when a CA is given (--tls-ca), or the node
is named by a URL that says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from leafdb.errors import ConfigError

if TYPE_CHECKING:
    from leafdb.client.tls import TLS

DEFAULT_NODE: Final = "127.0.0.1:7411"
NODE_VARIABLE: Final = "LEAFDB_NODE"
CLUSTER_VARIABLE: Final = "LEAFDB_CLUSTER"
CA_VARIABLE: Final = "LEAFDB_CA_FILE"
CERT_VARIABLE: Final = "LEAFDB_CERT_FILE"
KEY_VARIABLE: Final = "LEAFDB_KEY_FILE"

VALUED: Final = ("--node", "--cluster", "--tls-ca", "--tls-cert", "--tls-key", "--output", "-o", "--timeout")
FLAGS: Final = ("--yes", "--dry-run", "--watch", "--wait", "--no-color")

_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|)")
_UNITS_S: Final[Mapping[str, float]] = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Format(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Options:
    """The global options of one run."""

    node: str = ""
    cluster: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    output: Format = Format.TABLE
    timeout_s: float | None = None
    yes: bool = False
    dry_run: bool = False
    watch: bool = False
    wait: bool = False
    no_color: bool = False


def hoist(arguments: Sequence[str]) -> list[str]:
    """The same line with the global options in front."""
    front: list[str] = []
    rest: list[str] = []
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        position += 1
        name, has_value, _ = argument.partition("=")
        if argument == "--":
            rest += arguments[position - 1 :]
            break
        if argument in FLAGS or (has_value and name in VALUED):
            front.append(argument)
        elif argument in VALUED:
            front += arguments[position - 1 : position + 1]
            position += 1
        elif argument.startswith("-o") and argument[2:] in tuple(Format):
            front.append(argument)
        else:
            rest.append(argument)
    return front + rest


def parse_duration_s(text: str) -> float:
    """`20s`, `250ms`, `1.5m` or plain seconds. ValueError otherwise."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration such as 20s, 250ms or 2m")
    return float(match[1]) * _UNITS_S[match[2]]


def parse_size(text: str) -> int:
    """`100`, `4KiB`, `1MiB`. ValueError otherwise."""
    match = re.fullmatch(r"([0-9]+)\s*(|B|KiB|MiB)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 100, 4KiB or 1MiB")
    return int(match[1]) << {"": 0, "B": 0, "KiB": 10, "MiB": 20}[match[2]]


def saved_clusters_path(environment: Mapping[str, str]) -> Path:
    """The file of saved connections."""
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".config")
    return Path(home) / "leafdb" / "clusters.toml"


def url_of(options: Options, environment: Mapping[str, str] = os.environ) -> str:
    """The URL to connect to. ConfigError for a saved connection that is not there or makes no sense."""
    node, cluster = options.node, options.cluster
    if not node and not cluster:
        node = environment.get(NODE_VARIABLE, "")
        cluster = "" if node else environment.get(CLUSTER_VARIABLE, "")
    if node and cluster:
        raise ConfigError("--node and --cluster both say where to connect: give one")
    if cluster:
        return scheme_of(options, environment) + ",".join(_saved_nodes(cluster, saved_clusters_path(environment)))
    node = node or DEFAULT_NODE
    return node if "://" in node else scheme_of(options, environment) + node


def scheme_of(options: Options, environment: Mapping[str, str] = os.environ) -> str:
    """How the URL of an address begins: with TLS when a CA is given, or when the nodes that are named are named so."""
    secure = options.tls_ca or environment.get(CA_VARIABLE) or options.node.startswith("leafdbs://")
    secure = secure or (not options.node and environment.get(NODE_VARIABLE, "").startswith("leafdbs://"))
    return "leafdbs://" if secure else "leafdb://"


def tls_of(options: Options, url: str, environment: Mapping[str, str] = os.environ) -> TLS | None:
    """What to know for a URL that wants TLS: the files of the options, or of the environment."""
    if not url.startswith("leafdbs://"):
        return None
    from leafdb.client.tls import TLS

    return TLS(
        ca_file=options.tls_ca or environment.get(CA_VARIABLE) or None,
        cert_file=options.tls_cert or environment.get(CERT_VARIABLE) or None,
        key_file=options.tls_key or environment.get(KEY_VARIABLE) or None,
    )


def _saved_nodes(cluster: str, path: Path) -> list[str]:
    import tomllib

    try:
        saved = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f'no saved connection {cluster!r}: write [{cluster}] nodes = ["HOST:PORT"] in {path}'
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    entry = saved.get(cluster)
    if entry is None:
        raise ConfigError(f"no saved connection {cluster!r} in {path}; it has {', '.join(saved) or 'none'}")
    nodes = entry.get("nodes") if isinstance(entry, dict) else None
    if not isinstance(nodes, list) or not nodes or not all(isinstance(node, str) for node in nodes):
        raise ConfigError(f'{path}: [{cluster}] wants nodes = ["HOST:PORT", ...]')
    return [str(node) for node in nodes]
