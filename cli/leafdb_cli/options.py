"""The global options: what may stand anywhere on the line, before the noun or behind the verb.

    leafdb --node 10.0.0.1:7411 kv get carts alice      leafdb kv get carts alice --node 10.0.0.1:7411

`hoist` moves them to the front, where typer's callback in `main` parses them; what follows a bare `--` is never
touched. Where to connect is decided here: --node, else --cluster (a saved connection), else LEAFDB_NODE or
LEAFDB_CLUSTER of the environment, else the saved connection in use, else the default port of this machine; and whether
TLS is spoken: when a CA is given (--tls-ca), or the node is named by a URL that says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
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
    front, rest = parted(arguments)
    return front + rest


def parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The global options of a line with their values, and all the rest; each in its order."""
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
    return front, rest


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


@dataclass(frozen=True, slots=True)
class Where:
    """Where to connect, and what says so. `cluster` is the saved connection's name, if it is one."""

    nodes: tuple[str, ...]
    said_by: str
    cluster: str = ""

    @property
    def url(self) -> str:
        """For the client. What was typed as a URL stays one."""
        return self.nodes[0] if "://" in self.nodes[0] else f"leafdb://{','.join(self.nodes)}"


def where_of(options: Options, environment: Mapping[str, str] = os.environ) -> Where:
    """Where to connect. ConfigError for a saved connection that is not there or makes no sense."""
    if options.node and options.cluster:
        raise ConfigError("--node and --cluster both say where to connect: give one")
    if options.node:
        return _typed(options.node, "--node")
    if not options.cluster and (node := environment.get(NODE_VARIABLE, "")):
        return _typed(node, NODE_VARIABLE)
    from leafdb_cli.saved import read_saved, saved_clusters_path

    saved = read_saved(saved_clusters_path(environment))
    for name, said_by in (
        (options.cluster, "--cluster"),
        (environment.get(CLUSTER_VARIABLE, ""), CLUSTER_VARIABLE),
        (saved.current, "leafdb context use"),
    ):
        if name:
            return Where(saved.nodes(name), said_by, name)
    return Where((DEFAULT_NODE,), "the default")


def url_of(options: Options, environment: Mapping[str, str] = os.environ) -> str:
    """The URL to connect to, with TLS as `scheme_of` says. Raises as `where_of` does."""
    url = where_of(options, environment).url
    return url.replace("leafdb://", scheme_of(options, environment), 1)


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


def _typed(text: str, said_by: str) -> Where:
    return Where((text,) if "://" in text else tuple(text.split(",")), said_by)
