"""Real `leafdbd` processes on this machine, for tests that want sockets, a disk, and deaths by signal.

    DIR/secret          what the nodes prove to each other
    DIR/nI/leafdb.toml  node I, numbered from 1: three ports of 127.0.0.1, data and log beside it
    DIR/nI/log          what it says

Whatever a test does, in the end no process is left: `close` kills what runs, and the kernel kills what runs when the
process of the test dies. Everything that waits has a deadline and shows the logs when it passes.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Final

import leafdb
from leafdb.client.async_client import AsyncClient
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError

HOST: Final = "127.0.0.1"
CLUSTER_NAME: Final = "test"
PORTS: Final = range(20_001, 32_001)
"""Below those that Linux gives to outgoing connections: one that is free stays free."""
PORTS_PER_NODE: Final = 3
WAIT_S: Final = 60.0
POLL_S: Final = 0.02
LOG_LINES: Final = 30

CONFIG: Final = """\
[node]
name = "{name}"
data_dir = "data"
host = "{name}"
drain_timeout = "5s"

[cluster]
name = "{cluster}"
secret_file = "../secret"
seeds = [{seeds}]

[listen]
client = "{client}"
peer = "{peer}"
http = "{http}"
"""

MORTAL: Final = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python with what follows, killed when its parent dies (PR_SET_PDEATHSIG)."""


class Servers:
    """Nodes 1 to n in a directory. Use it as `with`: they run, and know each other, inside."""

    def __init__(self, directory: str | os.PathLike[str], nodes: int = 3) -> None:
        if nodes < 1:
            raise ValueError(f"a cluster has at least one node, not {nodes}")
        self.directory: Path = Path(directory).absolute()
        self.nodes: tuple[int, ...] = tuple(range(1, nodes + 1))
        """The numbers of all nodes, running or not."""
        self._ports: dict[int, list[int]] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Servers:
        try:
            self.up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- clients

    @property
    def url(self) -> str:
        """All nodes."""
        return "leafdb://" + ",".join(self.address(node) for node in self.nodes)

    def address(self, node: int) -> str:
        """Where clients find a node."""
        return f"{HOST}:{self._ports[node][0]}"

    def peer_address(self, node: int) -> str:
        """Where other nodes find a node: what it is staged by."""
        return f"{HOST}:{self._ports[node][1]}"

    def connect(self, *, via: int | None = None, timeout: float = 5.0) -> Client:
        """A client of the cluster; `via`: one that speaks to this node only. The caller closes it."""
        if via is None:
            return leafdb.connect(self.url, timeout=timeout)
        return leafdb.connect(f"leafdb://{self.address(via)}", timeout=timeout, routing="listed")

    def connect_async(self, *, via: int | None = None, timeout: float = 5.0) -> AsyncClient:
        """The same for trio and asyncio, to be used as `async with`."""
        if via is None:
            return leafdb.connect_async(self.url, timeout=timeout)
        return leafdb.connect_async(f"leafdb://{self.address(via)}", timeout=timeout, routing="listed")

    # -- processes

    def up(self) -> None:
        """Write the files, start every node, found the cluster. `with` does it."""
        if importlib.util.find_spec("pydantic") is None:
            raise RuntimeError("real nodes need what leafdbd needs: install leafdb[server]")
        self._lay_out()
        for node in self.nodes:
            self._spawn(node)
        for node in self.nodes:
            self._await(node, "takes connections", lambda client: client.ping() is not None)
        with self.connect(via=self.nodes[0], timeout=30.0) as client:
            members = [self._member(node) for node in self.nodes]
            client.admin("cluster.init", {"name": CLUSTER_NAME, "members": members}, changes=True)
        self.await_ready()

    def start(self, *nodes: int) -> None:
        """Start nodes that do not run; returns when everybody who runs knows everybody who runs."""
        for node in nodes:
            if self.runs(node):
                raise ValueError(f"node {node} runs already")
            self._spawn(node)
        self.await_ready()

    def add_node(self) -> int:
        """Start a blank node beside the others; its number is the next. It waits to be staged by its `peer_address`."""
        node = max(self.nodes) + 1
        self._ports[node] = free_ports(PORTS_PER_NODE)
        self._give_directory(node)
        self.nodes = (*self.nodes, node)
        self._spawn(node)
        self._await(node, "takes connections", lambda client: client.ping() is not None)
        return node

    def kill(self, *nodes: int) -> None:
        """SIGKILL, to all of them at once; they are gone on return."""
        for node in nodes:
            self._processes[node].kill()
        for node in nodes:
            self._processes[node].wait(WAIT_S)

    def stop(self, *nodes: int) -> None:
        """SIGTERM: a clean end. Returns when they have ended."""
        for node in nodes:
            self._processes[node].terminate()
        for node in nodes:
            self._processes[node].wait(WAIT_S)

    def pause(self, *nodes: int) -> None:
        """SIGSTOP: they do nothing until `resume`, and their connections stay open."""
        for node in nodes:
            self._processes[node].send_signal(signal.SIGSTOP)

    def resume(self, *nodes: int) -> None:
        """SIGCONT."""
        for node in nodes:
            self._processes[node].send_signal(signal.SIGCONT)

    def wait(self, node: int) -> int:
        """Wait until a node has ended by itself; its exit code."""
        return self._processes[node].wait(WAIT_S)

    def runs(self, node: int) -> bool:
        """Whether its process lives."""
        process = self._processes.get(node)
        return process is not None and process.poll() is None

    def close(self) -> None:
        """Kill what runs."""
        for process in self._processes.values():
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.kill()
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(WAIT_S)

    # -- waiting, and what they say

    def await_ready(self) -> None:
        """Wait until every member that runs knows every member that runs."""
        running = [node for node in self.nodes if self.runs(node) and self._is_member(node)]
        for node in running:
            self._await(node, f"sees {len(running)} nodes", lambda client: client.status().nodes_up >= len(running))

    def settle(self) -> None:
        """Wait until nobody owes anybody anything, no hints, repairs or problems, as every running member sees it."""
        for node in filter(self.runs, self.nodes):
            if self._is_member(node):
                self._await(node, "has settled", _is_settled)

    def log(self, node: int) -> str:
        """All that a node has said."""
        with suppress(FileNotFoundError):
            return self._log(node).read_text(encoding="utf-8", errors="replace")
        return ""

    def _is_member(self, node: int) -> bool:
        """Whether a node that runs belongs to a cluster: it has a number."""
        self._await(node, "takes connections", lambda client: client.ping() is not None)
        with self.connect(via=node) as client:
            return client.ping().node > 0

    def _await(self, node: int, what: str, look: Callable[[Client], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        reason = "it says otherwise"
        while self.runs(node):
            try:
                with self.connect(via=node) as client:
                    if look(client):
                        return
            except LeafdbError as error:
                reason = str(error)
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {WAIT_S:.0f} s: n{node} {what} ({reason})\n{self._logs()}")
            time.sleep(POLL_S)
        raise RuntimeError(f"n{node} has ended\n{self._logs()}")

    def _logs(self) -> str:
        parts = []
        for node in self.nodes:
            parts += [f"--- n{node}, {'running' if self.runs(node) else 'not running'}"]
            parts += self.log(node).splitlines()[-LOG_LINES:]
        return "\n".join(parts)

    # -- files

    def _lay_out(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        secret = self.directory / "secret"
        with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        ports = free_ports(PORTS_PER_NODE * len(self.nodes))
        for node in self.nodes:
            self._ports[node] = [ports.pop() for _ in range(PORTS_PER_NODE)]
        for node in self.nodes:
            self._give_directory(node)

    def _give_directory(self, node: int) -> None:
        """Somewhere to live, and a configuration."""
        member = self._member(node)
        seeds = ", ".join(f'"{HOST}:{ports[1]}"' for other, ports in self._ports.items() if other != node)
        folder = self.directory / f"n{node}"
        folder.mkdir(mode=0o700)
        config = CONFIG.format(cluster=CLUSTER_NAME, seeds=seeds, **member)
        (folder / "leafdb.toml").write_text(config, encoding="utf-8")

    def _member(self, node: int) -> dict[str, str]:
        client, peer, http = (f"{HOST}:{port}" for port in self._ports[node])
        return {
            "name": f"n{node}", "host": f"n{node}", "zone": "default", "client": client, "peer": peer, "http": http,
        }  # fmt: skip

    def _log(self, node: int) -> Path:
        return self.directory / f"n{node}" / "log"

    def _spawn(self, node: int) -> None:
        folder = self.directory / f"n{node}"
        with self._log(node).open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [sys.executable, "-c", MORTAL, "-m", "leafdb.node.main", "--config", str(folder / "leafdb.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=clean_environment(os.environ),
                start_new_session=True,
            )


def _is_settled(client: Client) -> bool:
    status = client.status()
    return status.healthy and not status.hints_pending and not status.repair_pending and not status.errors


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a node is started with: without anything that would configure it."""
    return {name: value for name, value in environment.items() if not name.startswith(("LEAFDB", "NOTIFY"))}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. All are held until the last is found, so that they are different ones."""
    found: list[int] = []
    with ExitStack() as held:
        for port in Random().sample(PORTS, len(PORTS)):
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                probe.listen(1)
            except OSError:
                probe.close()
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError(f"there are no {count} free ports between {PORTS.start} and {PORTS.stop}")
