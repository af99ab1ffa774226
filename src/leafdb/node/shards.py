"""Shards: from what one configuration says of a machine to what each of its node processes is told. Pure.

With `node.shards = k` above 1 the configuration describes a machine, and k nodes run there. Shard i of node `a`

- is the member `a-i`, with the host label, zone and weight of the configuration (the host is `a` unless said), so that
  placement sees one machine;
- keeps its data in DATA_DIR/shard-i;
- listens at the three ports of the configuration plus 10 * i (`config.shard_address`), like the nodes of `leafdb dev`;
- has one k-th of every size: of memory and of disk. A setting that is no size is the same for all.

What it gets is a configuration of one node like any other; nothing below knows that it is a shard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from leafdb.config import Address, Config, Kind, shard_address, shard_name
from leafdb.limits import MIB
from leafdb.node.described import described


def shard_dir(data_dir: str, shard: int) -> str:
    """Where a shard's data lies."""
    return f"{data_dir}/shard-{shard}"


def shard_of(config: Config, shard: int) -> Config:
    """The configuration of one shard; that of a node without shards is its own. ValueError when its ports run out."""
    count = config.node.shards
    if not 0 <= shard < count:
        raise ValueError(f"there is no shard {shard} of {count}")
    if count == 1:
        return config
    node, listen = config.node, config.listen
    sections: dict[str, dict[str, Any]] = {
        "node": {
            "name": shard_name(node.name, shard),
            "host": node.host or node.name,
            "data_dir": shard_dir(node.data_dir, shard),
            "shards": 1,
        },
        "listen": {
            "client": shard_address(listen.client, shard),
            "peer": shard_address(listen.peer, shard),
            "http": shard_address(listen.http, shard),
        },
    }
    for entry in described():
        if entry.setting.kind is Kind.SIZE:
            whole = getattr(getattr(config, entry.section), entry.attribute)
            sections.setdefault(entry.section, {})[entry.attribute] = whole // count
    return replace(config, **{name: replace(getattr(config, name), **changed) for name, changed in sections.items()})


def problems(config: Config) -> Iterator[str]:
    """Why a machine cannot run its shards, by setting; nothing for a single node."""
    count = config.node.shards
    if count == 1:
        return
    for entry in described():
        least = int(entry.setting.at_least or 0)
        if entry.setting.kind is not Kind.SIZE:
            continue
        whole = getattr(getattr(config, entry.section), entry.attribute)
        if whole // count < least:
            yield (
                f"{entry.path}: {_size(whole)} for {count} shards are {_size(whole // count)} for each, and a node "
                f"needs {_size(least)}: allow {_size(least * count)}, or have fewer shards"
            )
    yield from _port_problems(config)


def _port_problems(config: Config) -> Iterator[str]:
    listen = config.listen
    used: dict[int, list[tuple[Address, str, int]]] = {}
    told: set[str] = set()
    for shard in range(config.node.shards):
        for name, address in (("client", listen.client), ("peer", listen.peer), ("http", listen.http)):
            if name in told:
                continue
            try:
                wanted = shard_address(address, shard)
            except ValueError as error:
                told.add(name)
                yield f"listen.{name}: {error}"
                continue
            for other, its_name, its_shard in used.get(wanted.port, ()):
                if wanted.port and its_shard != shard and _collide(wanted, other):
                    told.add(name)
                    yield (
                        f"listen.{name}: {wanted} of shard {shard} is listen.{its_name} of shard {its_shard} already: "
                        "the ports of a shard are 10 above those of the one before"
                    )
                    break
            used.setdefault(wanted.port, []).append((wanted, name, shard))


def _collide(one: Address, other: Address) -> bool:
    """Whether two addresses with the same port cannot both be listened at."""
    return one.host == other.host or one.wildcard or other.wildcard


def overview(config: Config) -> list[str]:
    """A line for each shard, for people; nothing for a single node."""
    lines = []
    for shard in range(config.node.shards if config.node.shards > 1 else 0):
        each = shard_of(config, shard)
        listen = each.listen
        lines.append(
            f"shard {shard}: {each.node.name} on host {each.node.host}, client {listen.client}, peer {listen.peer}, "
            f"http {listen.http}, memory {_size(each.limits.memory_bytes_max)}, data in {each.node.data_dir}"
        )
    return lines


def _size(count: int) -> str:
    return f"{count / MIB:.4g} MiB"
