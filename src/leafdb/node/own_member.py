"""The member that a configuration makes of its node: what it tells whoever asks it to join, and what is checked of it.

One function, so that a node cannot describe itself in two ways. What the founding list or the metadata say of a member
already in a cluster is what counts there; this is what a newcomer proposes.
"""

from __future__ import annotations

from leafdb.config import Address, Config
from leafdb.errors import ConfigError
from leafdb.ring.member import ProposedMember


def own_member(config: Config, *, incarnation: int = 1) -> ProposedMember:
    """The member that the node of this configuration would be: one of its shards, where it has several (`shards`).

    Args:
        incarnation: of its store.

    Raises ConfigError when others could not reach it: a port that is not fixed, or all interfaces without a name.
    """
    listen = config.listen
    client, peer = listen.advertised(listen.client), listen.advertised(listen.peer)
    # A page for this machine only is told as such: `advertise` is about what others use.
    http = listen.http if listen.http.loopback else listen.advertised(listen.http)
    problems = [
        f"listen.{name}: nobody can be told {address}: give it a fixed port, and listen.advertise where it is all "
        "interfaces"
        for name, address in (("client", client), ("peer", peer))
        if not _reachable(address)
    ]
    if problems:
        raise ConfigError("; ".join(problems), problems=problems)
    name = config.node.name
    return ProposedMember(
        name=name,
        host=config.node.host or name,
        zone=config.node.zone,
        weight=config.node.weight,
        client_address=str(client),
        peer_address=str(peer),
        http_address=str(http) if _reachable(http) else "",
        incarnation=incarnation,
    )


def _reachable(address: Address) -> bool:
    return address.port > 0 and not address.wildcard
