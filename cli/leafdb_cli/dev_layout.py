"""The files of a local cluster and how they are written: everything about `dev` that needs no process.

With shards node I is K members dev-I-0, dev-I-1, ... of one leafdbd; the first of them has the ports below with I * K
for I, the others the next ten each, and keeps its data in data/shard-J.

    DIR/secret               the cluster secret, for the owner's eyes
    DIR/tls                  a CA of its own, where TLS is spoken; node I has node.crt and node.key then
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
SHARD_MEMORY_MIB: Final = 192
"""What each shard may take; a node without shards takes the default."""

CONFIG: Final = """\
# Written by leafdb dev up. Only this node reads it; a change takes effect when the node is started again.
[node]
name = "{name}"
data_dir = "data"
host = "{name}"
shards = {shards}
drain_timeout = "{drain_timeout_s}s"
{memory}
[cluster]
name = "{cluster}"
secret_file = "../secret"
seeds = [{seeds}]

[listen]
client = "127.0.0.1:{client}"
peer = "127.0.0.1:{peer}"
http = "127.0.0.1:{http}"
"""
TLS: Final = """
[tls]
ca_file = "../tls/ca.crt"
cert_file = "node.crt"
key_file = "node.key"
"""
HOSTS: Final = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class DevNode:
    """One leafdbd of a local cluster: a node, or several that share its machine (`shards`)."""

    index: int
    directory: Path
    client_port: int
    """Of its first shard."""
    shards: int = 1
    tls: bool = False

    @property
    def ca(self) -> Path | None:
        """The certificate of the CA, where TLS is spoken."""
        return self.directory.parent / "tls" / "ca.crt" if self.tls else None

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
    def ports(self) -> tuple[int, ...]:
        """All three, of each shard."""
        return tuple(port + offset for port in self.client_ports for offset in range(3))

    @property
    def client_ports(self) -> tuple[int, ...]:
        """One for each shard."""
        return tuple(self.client_port + PORTS_PER_NODE * shard for shard in range(self.shards))

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

    @property
    def locks(self) -> tuple[Path, ...]:
        """What each of its processes holds while it lives, the one that has the others first."""
        return (self.lock, *sorted(self.lock.parent.glob("shard-*/LOCK")))

    def member(self, shard: int = 0) -> dict[str, str]:
        """One of `members`; the only one unless there are shards."""
        port = self.client_ports[shard]
        return {
            "name": self.name if self.shards == 1 else f"{self.name}-{shard}",
            "host": self.name,
            "zone": "default",
            "client": f"127.0.0.1:{port}",
            "peer": f"127.0.0.1:{port + 1}",
            "http": f"127.0.0.1:{port + 2}",
        }

    def members(self) -> list[dict[str, str]]:
        """As founding members."""
        return [self.member(shard) for shard in range(self.shards)]


def planned_nodes(directory: Path, count: int, base_port: int, shards: int = 1, *, tls: bool = False) -> list[DevNode]:
    """The nodes of a cluster that begins at this port. ConfigError when the ports run out."""
    if count < 1 or shards < 1 or count * shards > NODES_MAX:
        raise ConfigError(f"a local cluster has 1 to {NODES_MAX} nodes, shards counted, not {count * shards}")
    last = base_port + PORTS_PER_NODE * (count * shards - 1) + 2
    if base_port < 1 or last > 65_535:
        raise ConfigError(f"{count * shards} nodes from port {base_port} on would need ports up to {last}")
    root = Path(os.path.abspath(directory))
    return [
        DevNode(index, root / f"node-{index}", base_port + PORTS_PER_NODE * shards * index, shards, tls)
        for index in range(count)
    ]


def existing_nodes(directory: Path) -> list[DevNode]:
    """The nodes whose configuration is in the directory, by number; none when there is no cluster."""
    root = Path(os.path.abspath(directory))
    nodes = []
    for path in root.glob("node-*/leafdb.toml"):
        index = path.parent.name.removeprefix("node-")
        if not index.isdigit():
            continue
        try:
            written = tomllib.loads(path.read_text(encoding="utf-8"))
            port = int(str(written["listen"]["client"]).rpartition(":")[2])
            shards = int(written.get("node", {}).get("shards", 1))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        nodes.append(DevNode(int(index), path.parent, port, shards, "tls" in written))
    return sorted(nodes, key=lambda node: node.index)


def write_layout(directory: Path, nodes: Iterable[DevNode]) -> None:
    """Write the secret, certificates and every configuration; what is there already stays."""
    nodes = list(nodes)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = directory / "secret"
    if not secret.exists():
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")
    for node in nodes:
        node.directory.mkdir(mode=0o700, exist_ok=True)
        _certify(node)
        if not node.config.exists():
            node.config.write_text(config_text(node, nodes), encoding="utf-8")


def _certify(node: DevNode) -> None:
    """A certificate for a node that has none; the CA first, if this is the first."""
    if node.ca is None or (node.directory / "node.crt").exists():
        return
    from leafdb_cli import authority

    if not node.ca.exists():
        authority.found(node.ca.parent, CLUSTER_NAME)
    subject = authority.Subject(node.name, HOSTS)
    authority.Authority.load(node.ca.parent).equip(subject, node.directory / "node")


def config_text(node: DevNode, nodes: Iterable[DevNode]) -> str:
    """The configuration of one node; the others are its seeds."""
    return (CONFIG + (TLS if node.tls else "")).format(
        name=node.name,
        cluster=CLUSTER_NAME,
        shards=node.shards,
        memory=f'\n[limits]\nmemory_bytes_max = "{SHARD_MEMORY_MIB * node.shards}MiB"\n' if node.shards > 1 else "",
        drain_timeout_s=DRAIN_TIMEOUT_S,
        client=node.client_port,
        peer=node.peer_port,
        http=node.http_port,
        seeds=", ".join(
            f'"{each["peer"]}"' for other in nodes if other.index != node.index for each in other.members()
        ),
    )


def holder(node: DevNode) -> int | None:
    """The process that holds the node's data directory; None when nobody does. A zombie holds nothing.

    0 for a holder that has not written its number yet. Shards hold it together with their parent, whose number it is.
    """
    return lock_holder(node.lock)


def lock_holder(lock: Path) -> int | None:
    """The process that holds a lock, as `holder`."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
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


def node_items(node: DevNode) -> list[dict[str, Any]]:
    """The JSON items of a node: one for each of its members."""
    items = []
    for shard, member in enumerate(node.members()):
        pid = holder(node) if node.shards == 1 else lock_holder(node.lock.parent / f"shard-{shard}" / "LOCK")
        items.append(
            {
                "index": node.index,
                "name": member["name"],
                "state": "stopped" if pid is None else "running",
                "pid": pid or None,
                "client": member["client"],
                "peer": member["peer"],
                "http": member["http"],
                "dir": str(node.directory),
            }
        )
    return items
