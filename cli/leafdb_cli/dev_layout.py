"""The files of a local cluster and how they are written: everything about `dev` that needs no process.

    DIR/secret               the cluster secret, for the owner's eyes
    DIR/node-I/leafdb.toml   node I: client port P+10*I, peer port one above, HTTP two above, host label dev-I
    DIR/node-I/data          its data directory; whoever holds the lock on data/LOCK is the living node
    DIR/node-I/log           what it says

The directory is the only state: which nodes there are and on which ports is read back from the configuration files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import socket
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from leafdb.errors import ConfigError

CLUSTER_NAME: Final = "dev"
BASE_PORT: Final = 7411
PORTS_PER_NODE: Final = 10
NODES_DEFAULT: Final = 3
NODES_MAX: Final = 32
DRAIN_TIMEOUT_S: Final = 5
FREE_PORTS: Final = range(20_001, 32_001, 10)
"""Where --base-port 0 looks: below the ports that Linux gives to outgoing connections."""
FREE_TRIES: Final = 200
SECRET_BYTES: Final = 32

CONFIG: Final = """\
# Written by leafdb dev up. Only this node reads it; a change takes effect when the node is started again.
[node]
name = "{name}"
data_dir = "data"
host = "{name}"
drain_timeout = "{drain_timeout_s}s"

[cluster]
name = "{cluster}"
secret_file = "../secret"
seeds = [{seeds}]

[listen]
client = "127.0.0.1:{client}"
peer = "127.0.0.1:{peer}"
http = "127.0.0.1:{http}"
"""


@dataclass(frozen=True, slots=True)
class DevNode:
    """One node of a local cluster."""

    index: int
    directory: Path
    client_port: int

    @property
    def name(self) -> str:
        """Its name, and its host label."""
        return f"dev-{self.index}"

    @property
    def peer_port(self) -> int:
        """Where other nodes find it."""
        return self.client_port + 1

    @property
    def http_port(self) -> int:
        """Its pages."""
        return self.client_port + 2

    @property
    def ports(self) -> tuple[int, int, int]:
        """All three."""
        return self.client_port, self.peer_port, self.http_port

    @property
    def client(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.client_port}"

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.directory / "leafdb.toml"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory / "log"

    @property
    def lock(self) -> Path:
        """What it holds while it lives."""
        return self.directory / "data" / "LOCK"

    def member(self) -> dict[str, str]:
        """As a founding member."""
        return {
            "name": self.name,
            "host": self.name,
            "zone": "default",
            "client": self.client,
            "peer": f"127.0.0.1:{self.peer_port}",
            "http": f"127.0.0.1:{self.http_port}",
        }


def planned_nodes(directory: Path, count: int, base_port: int) -> list[DevNode]:
    """The nodes of a cluster that begins at this port. ConfigError when the ports run out."""
    if not 1 <= count <= NODES_MAX:
        raise ConfigError(f"a local cluster has 1 to {NODES_MAX} nodes, not {count}")
    last = base_port + PORTS_PER_NODE * (count - 1) + 2
    if base_port < 1 or last > 65_535:
        raise ConfigError(f"{count} nodes from port {base_port} on would need ports up to {last}")
    root = Path(os.path.abspath(directory))
    return [DevNode(index, root / f"node-{index}", base_port + PORTS_PER_NODE * index) for index in range(count)]


def existing_nodes(directory: Path) -> list[DevNode]:
    """The nodes whose configuration is in the directory, by number; none when there is no cluster."""
    root = Path(os.path.abspath(directory))
    nodes = []
    for path in root.glob("node-*/leafdb.toml"):
        index = path.parent.name.removeprefix("node-")
        if not index.isdigit():
            continue
        try:
            listen = tomllib.loads(path.read_text(encoding="utf-8"))["listen"]
            port = int(str(listen["client"]).rpartition(":")[2])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        nodes.append(DevNode(int(index), path.parent, port))
    return sorted(nodes, key=lambda node: node.index)


def write_layout(directory: Path, nodes: Iterable[DevNode]) -> None:
    """Write the secret and every configuration; what is there already stays."""
    nodes = list(nodes)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = directory / "secret"
    if not secret.exists():
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
    for node in nodes:
        node.directory.mkdir(mode=0o700, exist_ok=True)
        if not node.config.exists():
            node.config.write_text(config_text(node, nodes), encoding="utf-8")


def config_text(node: DevNode, nodes: Iterable[DevNode]) -> str:
    """The configuration of one node; the others are its seeds."""
    return CONFIG.format(
        name=node.name,
        cluster=CLUSTER_NAME,
        drain_timeout_s=DRAIN_TIMEOUT_S,
        client=node.client_port,
        peer=node.peer_port,
        http=node.http_port,
        seeds=", ".join(f'"127.0.0.1:{other.peer_port}"' for other in nodes if other.index != node.index),
    )


def holder(node: DevNode) -> int | None:
    """The process that holds the node's data directory; None when nobody does. A zombie holds nothing.

    0 for a holder that has not written its number yet.
    """
    try:
        descriptor = os.open(node.lock, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        # Shared, and for an instant only. A node that starts in this very instant would be refused: `up` and `start`
        # therefore do not look here while they wait.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def taken_ports(ports: Iterable[int], bind: Callable[[int], None] | None = None) -> list[int]:
    """Which of the ports somebody else listens on."""
    taken = []
    for port in ports:
        try:
            (bind or bind_port)(port)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            taken.append(port)
    return taken


def bind_port(port: int) -> None:
    """Take the port and let it go. OSError when it is taken."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        probe.listen(1)


def free_base_port(count: int, rng: Random, bind: Callable[[int], None] | None = None) -> int:
    """The first port of a block in which every node finds its three."""
    room = [port for port in FREE_PORTS if port + PORTS_PER_NODE * count < FREE_PORTS.stop]
    for base in rng.sample(room, min(FREE_TRIES, len(room))):
        wanted = [base + PORTS_PER_NODE * index + offset for index in range(count) for offset in range(3)]
        if not taken_ports(wanted, bind):
            return base
    raise ConfigError(f"no free block of ports for {count} nodes between {FREE_PORTS.start} and {FREE_PORTS.stop}")


def node_item(node: DevNode, pid: int | None) -> dict[str, Any]:
    """The JSON item of a node."""
    return {
        "index": node.index,
        "name": node.name,
        "state": "stopped" if pid is None else "running",
        "pid": pid or None,
        "client": node.client,
        "peer": f"127.0.0.1:{node.peer_port}",
        "http": f"127.0.0.1:{node.http_port}",
        "dir": str(node.directory),
    }
