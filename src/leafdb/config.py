"""What a node can be told, as values. Everyone may read them; `node/settings.py` alone turns files into them.

Each setting states what it is for and what it costs beside its default. A field's name carries its unit; in a
configuration file the unit stands in the value instead, so `wal_sync_interval_s` is written
`wal_sync_interval = "100ms"`. What must hold between settings is in `node/config_rules.py`.

A setting that nothing reads does not exist: roles and schedules get theirs when they are built.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from leafdb import limits
from leafdb.limits import KIB, MIB


class Kind(Enum):
    """How a setting is written in a file."""

    TEXT = "text"
    PATH = "path"
    ADDRESS = "address"
    ADDRESSES = "list of addresses"
    COUNT = "number"
    SIZE = "size"
    DURATION = "duration"
    FLAG = "true or false"
    CHOICE = "choice"


class Address(NamedTuple):
    """Where something listens. The text form puts an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Nobody on another machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def wildcard(self) -> bool:
        """All interfaces: an address to listen on, none to be reached at."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """`host:port` or `[v6]:port`; ValueError with the reason."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::1]:7411")
    elif not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
        raise ValueError(f"{text!r}: {host!r} is not a host name")
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError(f"{text!r}: {port!r} is not a port (0 to 65535)")
    return Address(host, int(port))


CLIENT_ADDRESS: Final = Address("127.0.0.1", 7411)
PEER_ADDRESS: Final = Address("127.0.0.1", 7412)
HTTP_ADDRESS: Final = Address("127.0.0.1", 7413)


SHARDS_MAX: Final = 32
PORTS_PER_SHARD: Final = 10


def shard_name(name: str, shard: int) -> str:
    """The member that shard number `shard` of the node `name` is. A node of one shard is itself."""
    return f"{name}-{shard}"


def shard_address(address: Address, shard: int) -> Address:
    """Where that shard listens when the node's configuration says `address`. ValueError when ports run out."""
    if not address.port:
        return address
    port = address.port + PORTS_PER_SHARD * shard
    if port > 65_535:
        raise ValueError(f"shard {shard} would listen at port {port}: ports end at 65535")
    return address._replace(port=port)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of one setting besides its value."""

    doc: str
    kind: Kind
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    reloadable: bool = False
    """SIGHUP takes a changed value over; any other change waits for a restart."""


def setting(default: Any, kind: Kind, doc: str, **more: Any) -> Any:
    """A dataclass field that carries its own documentation."""
    return field(default=default, metadata={"setting": Setting(doc, kind, **more)})


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Who this node is and where its data lies."""

    name: str = setting("", Kind.TEXT, "Name of the node, unique in the cluster. Empty: the machine's host name.")
    data_dir: str = setting(
        "leafdb-data", Kind.PATH, "Directory of this node's data, made if missing. A relative path starts at the file."
    )
    host: str = setting(
        "", Kind.TEXT, "Which machine this is: replicas of a key avoid sharing one. Empty: the node's name."
    )
    zone: str = setting("default", Kind.TEXT, "Which rack, room or data centre this is: replicas avoid sharing one.")
    weight: int = setting(
        1,
        Kind.COUNT,
        "Its share of the data relative to the other nodes'. 0: it owns none and only passes requests on. Told when it "
        "joins or is founded; a member's weight changes by replacing it.",
        at_least=0,
        at_most=10_000,
    )
    shards: int = setting(
        1,
        Kind.COUNT,
        "Node processes on this machine, one for each core it shall use. Each is a member of its own: NAME-0, NAME-1, "
        "... Ports count up by 10 from one to the next, and every size below is shared out among them.",
        at_least=1,
        at_most=SHARDS_MAX,
    )
    drain_timeout_s: float = setting(
        30.0,
        Kind.DURATION,
        "How long a node that was asked to stop finishes what is under way and hands hints over.",
        at_least=0.0,
        at_most=3_600.0,
    )


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Which cluster the node belongs to. A cluster is founded once, by `leafdb cluster init`, never by starting."""

    name: str = setting("", Kind.TEXT, "Name of the cluster. When set, the node refuses to join another one.")
    seeds: tuple[Address, ...] = setting(
        (), Kind.ADDRESSES, "Peer addresses to ask for news of the cluster at start; any living members will do."
    )
    secret_file: str = setting(
        "",
        Kind.PATH,
        "File with the cluster secret, the same on every node. Peers prove to each other that they know it.",
    )


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """Where the node listens. Port 0 takes any free one."""

    client: Address = setting(CLIENT_ADDRESS, Kind.ADDRESS, "For clients.")  # noqa: RUF009 - an immutable value
    peer: Address = setting(PEER_ADDRESS, Kind.ADDRESS, "For other nodes.")  # noqa: RUF009 - an immutable value
    http: Address = setting(HTTP_ADDRESS, Kind.ADDRESS, "For health checks and metrics.")  # noqa: RUF009 - an immutable value
    advertise: str = setting(
        "",
        Kind.TEXT,
        "Host, without a port, at which others reach this node. Needed when listening on 0.0.0.0 or [::].",
    )

    def advertised(self, address: Address) -> Address:
        """`address` as others should be told it."""
        return Address(self.advertise, address.port) if self.advertise else address


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """The storage engine."""

    memtable_bytes: int = setting(
        limits.MEMTABLE_BYTES,
        Kind.SIZE,
        "Writes held in memory before they become tables. More means fewer, larger tables and a longer restart.",
        at_least=256 * KIB,
        at_most=1024 * MIB,
    )
    flushed_in_memory: bool = setting(
        True,
        Kind.FLAG,
        "Keep what was flushed last readable in memory, as far as the memtable leaves room in `memtable_bytes`. "
        "Without it reads of what was just written are slower after a flush.",
    )
    block_cache_bytes: int = setting(
        limits.BLOCK_CACHE_BYTES,
        Kind.SIZE,
        "Blocks of tables kept in memory, decompressed. The system's page cache holds them compressed anyway.",
        at_least=0,
        at_most=64 * 1024 * MIB,
    )
    wal_sync_interval_s: float = setting(
        limits.WAL_SYNC_INTERVAL_MS / 1000,
        Kind.DURATION,
        "The most a power cut can take from buckets of durability `periodic`. A killed process loses nothing.",
        at_least=0.001,
        at_most=60.0,
    )
    wal_bytes_max: int = setting(
        limits.WAL_BYTES_MAX,
        Kind.SIZE,
        "Log kept before the oldest writes are flushed for its sake. Bounds the disk it takes and the replay at start.",
        at_least=2 * MIB,
        at_most=64 * 1024 * MIB,
    )
    scrub_interval_s: float = setting(
        limits.SCRUB_INTERVAL_S_DEFAULT,
        Kind.DURATION,
        "How often every table and value file is read again, evenly over that time, to heal damage no request has met.",
        at_least=60.0,
        at_most=365 * 86_400.0,
    )


@dataclass(frozen=True, slots=True)
class ReplicationConfig:
    """Requests that touch several nodes."""

    request_timeout_s: float = setting(
        limits.REQUEST_TIMEOUT_S_DEFAULT,
        Kind.DURATION,
        "Deadline of a request that brings none of its own, such as those of the node itself.",
        at_least=0.01,
        at_most=limits.REQUEST_TIMEOUT_S_MAX,
    )


@dataclass(frozen=True, slots=True)
class RepairConfig:
    """How replicas become equal again. Writes are kept as hints for nodes that cannot be reached; past a bound,
    anti-entropy does the work instead, and it compares all ranges now and then in any case."""

    hints_bytes_max: int = setting(
        limits.HINTS_BYTES_MAX,
        Kind.SIZE,
        "Disk that hints may take. 0: none are kept, no node stands in for another, and anti-entropy does it all.",
        at_least=0,
        at_most=1024 * 1024 * MIB,
    )
    hint_age_max_s: float = setting(
        limits.HINT_AGE_S_MAX,
        Kind.DURATION,
        "How long writes are kept for a node that stays away.",
        at_least=1.0,
        at_most=30 * 86_400.0,
    )
    divergence_age_max_s: float = setting(
        limits.DIVERGENCE_AGE_S_DEFAULT,
        Kind.DURATION,
        "Every range is compared with each of its other replicas within this time, unless one of them is away. Less "
        "costs more comparisons: two small messages for each that finds nothing. `leafdb repair schedule set` changes "
        "it on a running cluster.",
        at_least=limits.DIVERGENCE_AGE_S_MIN,
        at_most=limits.DIVERGENCE_AGE_S_MAX,
    )
    purge_interval_s: float = setting(
        limits.PURGE_INTERVAL_S_DEFAULT,
        Kind.DURATION,
        "How often it is proved that what was deleted, or has expired, may be forgotten: tombstones stay about so "
        "long, and for as long as any member is away. A proof compares the partitions it is about once.",
        at_least=limits.PURGE_INTERVAL_S_MIN,
        at_most=limits.PURGE_INTERVAL_S_MAX,
    )


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """Bounds that depend on the machine. Those that do not are in leafdb/limits.py."""

    memory_bytes_max: int = setting(
        limits.MEMORY_BYTES_MAX_DEFAULT,
        Kind.SIZE,
        "What memtables, caches and queues of the node may take together. Past it requests are refused, not queued.",
        at_least=128 * MIB,
        at_most=1024 * 1024 * MIB,
    )
    client_sessions_max: int = setting(
        limits.CLIENT_SESSIONS_MAX,
        Kind.COUNT,
        "Client connections at a time; one more is refused at once.",
        at_least=1,
        at_most=limits.CLIENT_SESSIONS_MAX,
        reloadable=True,
    )
    greetings_max: int = setting(
        limits.GREETINGS_MAX,
        Kind.COUNT,
        "Connections at a time, of each port, that have not said or not proved yet who they are; one more, and the "
        "oldest of them gives way to it.",
        at_least=16,
        at_most=limits.CLIENT_SESSIONS_MAX,
    )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """Encryption, between nodes and to clients: TLS 1.3, on when there is a certificate (see tls.md). Files are in PEM;
    when they change they are taken over, at SIGHUP or a little later, without a restart."""

    ca_file: str = setting(
        "",
        Kind.PATH,
        "Certificate of the cluster's CA, or of two while one follows the other. A node is believed with a certificate "
        "of this CA only.",
    )
    cert_file: str = setting(
        "", Kind.PATH, "This node's certificate, shown to nodes and clients. `leafdb cert issue` makes it."
    )
    key_file: str = setting("", Kind.PATH, "The key of that certificate, with mode 0600 and without a password.")
    client_ca_file: str = setting("", Kind.PATH, "Clients must show a certificate of this CA. Empty: they show none.")
    optional: bool = setting(
        False,
        Kind.FLAG,
        "Take connections without TLS as well, and make them to nodes that have none yet: only while a running cluster "
        "is moved to TLS.",
    )


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Who may connect, and do what: docs/operations/accounts.md. Users, roles and tokens are cluster state, made with
    `leafdb user`, `role` and `token`; the cluster secret is what the first one is made with."""

    mode: str = setting(
        "auto",
        Kind.CHOICE,
        "Whether clients have to log in. `auto`: where the client listener can be reached from other machines, unless "
        "auth.insecure is set. `off`: never; whoever reaches the port may do everything.",
        choices=("auto", "required", "off"),
    )
    audit: bool = setting(
        False,
        Kind.FLAG,
        "Write logins, refusals and every change of buckets, cluster and accounts to the log, as leafdb.audit.",
    )
    insecure: bool = setting(
        False,
        Kind.FLAG,
        "Listen on other than loopback addresses without `[tls]`, or to clients that prove nothing. "
        "Unless auth.mode is `required`, anyone who reaches the port can read and write everything.",
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the node says on stderr."""

    level: str = setting(
        "info",
        Kind.CHOICE,
        "The least important line that is written.",
        choices=("debug", "info", "warning", "error"),
        reloadable=True,
    )
    slow_request_s: float = setting(
        1.0, Kind.DURATION, "A put or get this slow is logged; 0: none.", at_least=0.0, at_most=3_600.0, reloadable=True
    )
    show_keys: bool = setting(
        False, Kind.FLAG, "Log keys, not a hash of them (`key_hash` in `leafdb kv where -o json`).", reloadable=True
    )
    traces: bool = setting(
        False, Kind.FLAG, "Make OpenTelemetry spans of requests that come with a trace. Wants `leafdb[otel]`."
    )
    format: str = setting(
        "auto", Kind.CHOICE, "One JSON object a line, or a form for people.", choices=("auto", "json", "console")
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a node is told."""

    node: NodeConfig = NodeConfig()
    cluster: ClusterConfig = ClusterConfig()
    listen: ListenConfig = ListenConfig()
    storage: StorageConfig = StorageConfig()
    replication: ReplicationConfig = ReplicationConfig()
    repair: RepairConfig = RepairConfig()
    limits: LimitsConfig = LimitsConfig()
    tls: TlsConfig = TlsConfig()
    auth: AuthConfig = AuthConfig()
    log: LogConfig = LogConfig()
