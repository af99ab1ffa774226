"""What must hold between settings, and what is worth a warning though it works.

`node/settings.py` asks for files; the embedded node and the tests, which make a `Config` by hand, may ask too. Each
line starts with the path of the setting it concerns and says what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from leafdb.config import Address, Config, parse_address, shard_name
from leafdb.limits import MIB
from leafdb.node import shards

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
NAME_RULE: Final = "1 to 63 of a-z, 0-9, dot, dash and underscore, with a letter or digit first and last"


def problems(config: Config) -> list[str]:
    """What cannot work in a configuration whose single values are sound."""
    return [
        *_name_problems(config),
        *_listen_problems(config),
        *_tls_problems(config),
        *_auth_problems(config),
        *_memory_problems(config),
        *shards.problems(config),
    ]


def warnings(config: Config) -> list[str]:
    """What works and should still be known. Shown in the log, in status and in the health page."""
    found = []
    if config.auth.insecure and _open_doors(config):
        where = " and ".join(f"listen.{name} ({address})" for name, address, _ in _open_doors(config))
        without = "accounts" if _sealed(config) else "TLS or accounts"
        found.append(f"auth.insecure: {where} can be reached from other machines without {without}")
    if config.tls.optional:
        found.append("tls.optional: connections without TLS are taken; take this out once every node has TLS")
    return found


def accounts_asked(config: Config) -> bool:
    """Whether clients have to say who they are."""
    match config.auth.mode:
        case "required":
            return True
        case "off":
            return False
    return not config.listen.client.loopback and not config.auth.insecure


def _name_problems(config: Config) -> Iterator[str]:
    named = (
        ("node.name", config.node.name),
        ("node.host", config.node.host),
        ("node.zone", config.node.zone),
        ("cluster.name", config.cluster.name),
    )
    for path, name in named:
        if path == "node.host" and name == config.node.name:
            continue  # the host's default: one problem is enough
        if name and not NAME.fullmatch(name):
            yield f"{path}: {name!r} is not a name: {NAME_RULE}"
    if config.node.shards > 1 and NAME.fullmatch(config.node.name):
        last = shard_name(config.node.name, config.node.shards - 1)
        if not NAME.fullmatch(last):
            yield f"node.name: {last!r}, its last shard, is not a name: {NAME_RULE}"
    if not config.node.zone:
        yield "node.zone: must not be empty; leave it out for the default"
    if not config.node.data_dir:
        yield "node.data_dir: must not be empty"


def _sealed(config: Config) -> bool:
    return bool(config.tls.cert_file) and not config.tls.optional


def _open_doors(config: Config) -> list[tuple[str, Address, str]]:
    """Listeners that other machines can reach and where nobody has to prove anything: name, address, what is missing.
    A peer proves itself by certificate and secret; a client by a certificate, where one is asked for, or its login."""
    client, peer, sealed = config.listen.client, config.listen.peer, _sealed(config)
    found = []
    if not client.loopback and not (sealed and (config.tls.client_ca_file or accounts_asked(config))):
        how = 'clients prove nothing: set auth.mode = "required", or tls.client_ca_file'
        missing = how if sealed else "there is no TLS: fill in [tls]"
        found.append(("client", client, missing))
    if not peer.loopback and not sealed:
        found.append(("peer", peer, "there is no TLS: fill in [tls]"))
    return found


def _tls_problems(config: Config) -> Iterator[str]:
    tls = config.tls
    wanted = {"ca_file": tls.ca_file, "cert_file": tls.cert_file, "key_file": tls.key_file}
    if any(wanted.values()):
        for key, path in wanted.items():
            if not path:
                yield f"tls.{key}: is missing: TLS needs ca_file, cert_file and key_file (leafdb cert issue makes them)"
    else:
        for key, given in (("client_ca_file", tls.client_ca_file), ("optional", tls.optional)):
            if given:
                yield f"tls.{key}: means nothing without ca_file, cert_file and key_file"


def _listen_problems(config: Config) -> Iterator[str]:
    listen = config.listen
    if not config.auth.insecure:
        for name, address, missing in _open_doors(config):
            yield (
                f"listen.{name}: {address} can be reached from other machines, and {missing}, or listen on 127.0.0.1, "
                "or set auth.insecure = true if the network itself is trusted"
            )
    seen: dict[Address, str] = {}
    for name, address in (("client", listen.client), ("peer", listen.peer), ("http", listen.http)):
        if address.port and address in seen:
            yield f"listen.{name}: {address} is listen.{seen[address]} already"
        seen.setdefault(address, name)
    if listen.advertise:
        try:
            advertised = parse_address(f"{_bracketed(listen.advertise)}:0")
        except ValueError:
            yield f"listen.advertise: {listen.advertise!r} is not a host (no port here)"
        else:
            if advertised.wildcard:
                yield f"listen.advertise: nobody can reach a node at {listen.advertise}"
    else:
        for name, address in (("client", listen.client), ("peer", listen.peer)):
            if address.wildcard:
                yield f"listen.{name}: others cannot use {address}: set listen.advertise to the host they can use"


def _auth_problems(config: Config) -> Iterator[str]:
    if config.auth.mode == "off" and not config.listen.client.loopback and not config.auth.insecure:
        yield (
            f"auth.mode: off, and listen.client ({config.listen.client}) can be reached from other machines: leave it "
            "at auto, or set auth.insecure = true if everybody on that network may do everything"
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _memory_problems(config: Config) -> Iterator[str]:
    storage, allowed = config.storage, config.limits.memory_bytes_max
    # A frozen memtable stands beside the active one while it is being flushed.
    wanted = 2 * storage.memtable_bytes + storage.block_cache_bytes
    if wanted > allowed // 2:
        yield (
            f"limits.memory_bytes_max: two memtables and the block cache take {wanted // MIB} MiB, more than half of "
            f"the {allowed // MIB} MiB allowed; nothing would be left for requests"
        )
    if storage.wal_bytes_max < 2 * storage.memtable_bytes:
        yield "storage.wal_bytes_max: must hold at least two memtables (storage.memtable_bytes)"
