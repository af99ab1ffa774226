"""A node's TLS: its networks, its files as they change, and what is to be said about them.

The files are looked at every LOOK_S and at SIGHUP. When they have changed and are sound (`transport.tls_contexts`), the
next connection is made with them; sessions that are open go on with what they have. Files that are not sound, as a new
certificate whose key is still being copied, change nothing: the node says so, goes on with those it has and looks
again. So a certificate may be exchanged by whoever writes files, with or without a signal.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import trio

from leafdb.config import Config
from leafdb.errors import ConfigError
from leafdb.node.bell import Bell
from leafdb.node.logs import Log
from leafdb.node.secret import refuse_open_to_others, stamps_of
from leafdb.transport.stream import Network
from leafdb.transport.tls import TlsNetwork
from leafdb.transport.tls_contexts import Contexts, TlsFiles, load

LOOK_S: Final = 10.0
LEFT_S_MIN: Final = 30 * 86_400.0
"""A certificate that lasts no longer than this is a problem to be told."""

if TYPE_CHECKING:
    from leafdb.node.world import World

log: Log = Log("tls")


class NodeTls:
    """See the top of this file. Without a `[tls]` section the networks are the world's own. Raises ConfigError."""

    def __init__(self, config: Config, world: World) -> None:
        self._files = files_of(config)
        self._host = host_of(config)
        self._now_ms = world.now_ms
        self.optional: bool = config.tls.optional
        self.peers: Network = world.network
        self.clients: Network = world.network
        self.problem: str = ""
        """Why the files that are there now are not in use."""
        self.contexts: Contexts | None = None
        self._stamps: tuple[object, ...] = ()
        if self._files is not None:
            self._stamps = stamps_of(self._files.paths())
            self.contexts = read(self._files, self._host)
            turn = trio.Lock()
            self.peers = TlsNetwork(
                world.network, _PeerDoors(self), peers=True, optional=self.optional, turn=turn, on_refused=_refused
            )
            self.clients = TlsNetwork(
                world.network, _ClientDoors(self), peers=False, optional=self.optional, turn=turn, on_refused=_refused
            )

    async def watch(self, bell: Bell) -> None:
        """Take over what changes, until cancelled."""
        while self.contexts is not None:
            with trio.move_on_after(LOOK_S):
                await bell.wait()
            self.look()

    def look(self) -> None:
        """Take over the files if they have changed."""
        assert self._files is not None
        stamps = stamps_of(self._files.paths())
        if stamps == self._stamps and not self.problem:
            return
        try:
            self.contexts = read(self._files, self._host)
        except ConfigError as error:
            if str(error) != self.problem:
                log.error("certificates not taken over", problem=str(error))
            self.problem = str(error)
        else:
            self.problem = ""
            log.info("certificates taken over", left_days=int(self.left_s() // 86_400))
        self._stamps = stamps

    def left_s(self) -> float:
        """For how long this node's certificate, and a CA that verifies it, last."""
        assert self.contexts is not None
        return min(self.contexts.not_after, self.contexts.ca_not_after) - self._now_ms() / 1000

    def expiry(self) -> dict[str, float]:
        """When certificates run out, in unix seconds; for the metric."""
        return {} if self.contexts is None else {"node": self.contexts.not_after, "ca": self.contexts.ca_not_after}

    def problems(self) -> list[str]:
        """What somebody should do something about."""
        if self.contexts is None:
            return []
        found = [f"its new TLS files are not in use: {self.problem}"] if self.problem else []
        if self.left_s() <= 0:
            found.append("its certificate has run out: nobody can connect; issue it anew (leafdb cert rotate)")
        return found

    def notices(self) -> list[str]:
        """What somebody should see to in time. The cluster is as healthy meanwhile as without: who brings new
        certificates to one node after the other, or takes `optional` out, waits for its health in between."""
        if self.contexts is None:
            return []
        found = []
        left_s = self.left_s()
        if 0 < left_s < LEFT_S_MIN:
            found.append(f"its certificate runs out in {left_s / 86_400:.0f} days: issue it anew (leafdb cert rotate)")
        if self.optional:
            found.append("it takes connections without TLS: tls.optional is set")
        return found


def files_of(config: Config) -> TlsFiles | None:
    """The files a configuration names; None when it has no TLS."""
    tls = config.tls
    return TlsFiles(tls.ca_file, tls.cert_file, tls.key_file, tls.client_ca_file) if tls.cert_file else None


def host_of(config: Config) -> str:
    """Where other nodes and clients reach this node: what its certificate must be for."""
    return config.listen.advertised(config.listen.peer).host


def read(files: TlsFiles, host: str) -> Contexts:
    """Contexts from files of which the key is nobody else's to read. ConfigError."""
    refuse_open_to_others(files.key, "tls.key_file")
    return load(files, host)


def try_files(config: Config) -> None:
    """Whether a node could run with the files the configuration names. ConfigError when it could not."""
    files = files_of(config)
    if files is not None:
        read(files, host_of(config))


def _refused(remote: str, why: str) -> None:
    log.warning("a TLS handshake came to nothing", remote=remote, why=why)


class _PeerDoors:
    def __init__(self, tls: NodeTls) -> None:
        self._tls = tls

    @property
    def accepting(self) -> ssl.SSLContext:
        """For nodes that come."""
        assert self._tls.contexts is not None
        return self._tls.contexts.from_peers

    @property
    def dialling(self) -> ssl.SSLContext:
        """For nodes we go to."""
        assert self._tls.contexts is not None
        return self._tls.contexts.to_peers


class _ClientDoors(_PeerDoors):
    @property
    def accepting(self) -> ssl.SSLContext:
        """For clients."""
        assert self._tls.contexts is not None
        return self._tls.contexts.from_clients
