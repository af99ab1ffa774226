"""A local cluster of real processes: start them, found the cluster, stop them, kill one.

Every node is a session of its own with nothing inherited: it outlives the command that started it, and no signal to a
terminal reaches it. Whether a node lives is asked of the lock on its data directory (`dev_layout.holder`), never of a
file with a process number in it; a number is only believed while the lock is held and the process is a leafdbd.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from leafdb.errors import ConfigError, LeafdbError
from leafdb_cli import exits
from leafdb_cli.dev_layout import (
    BASE_PORT,
    CLUSTER_NAME,
    DRAIN_TIMEOUT_S,
    NODES_DEFAULT,
    DevNode,
    existing_nodes,
    free_base_port,
    holder,
    lock_holder,
    node_items,
    planned_nodes,
    taken_ports,
    write_layout,
)
from leafdb_cli.exits import Quit

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

READY_S: Final = 60.0
POLL_S: Final = 0.05
DOWN_S: Final = DRAIN_TIMEOUT_S + 10.0
KILLED_S: Final = 10.0
INIT_S: Final = 30.0
SETTLED_S: Final = 15.0
LOG_LINES: Final = 15
LOG: Final = "mend what it complains of, and type the same again; leafdb dev logs I has all of its log"
OWN_SECTIONS: Final = ("LEAFDB__NODE__", "LEAFDB__LISTEN__", "LEAFDB__CLUSTER__")
"""Settings that must come from a node's own file; others may be tried out through the environment."""


def node_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a node, of that of this process: the same code, though the node works in its own directory,
    and no settings that are each node's own."""
    environment = {name: value for name, value in given.items() if not name.startswith(OWN_SECTIONS)}
    if path := environment.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    return environment


class DevCluster:
    """The cluster in one directory. `note` is told what happens."""

    def __init__(self, directory: Path, note: Callable[[str], None]) -> None:
        self.directory = Path(os.path.abspath(directory))
        self._note = note
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def nodes(self) -> list[DevNode]:
        """The nodes; Quit when there is no cluster here."""
        nodes = existing_nodes(self.directory)
        if not nodes:
            raise Quit(exits.NOT_FOUND, f"no cluster in {self.directory}", "leafdb dev up makes one")
        return nodes

    def node(self, index: int) -> DevNode:
        """One node; Quit when there is none of that number."""
        nodes = self.nodes()
        for node in nodes:
            if node.index == index:
                return node
        raise Quit(exits.NOT_FOUND, f"no node {index}", f"{self.directory} has nodes 0 to {nodes[-1].index}")

    def items(self) -> list[dict[str, Any]]:
        """Every node and whether it lives."""
        return [item for node in self.nodes() for item in node_items(node)]

    # -- up

    def up(
        self,
        count: int | None = None,
        base_port: int | None = None,
        shards: int | None = None,
        *,
        tls: bool | None = None,
    ) -> list[DevNode]:
        """Start what does not run; found the cluster the first time; return when all are ready. Whatever keeps it from
        being ready stops again what this call started."""
        nodes = self._plan(count, base_port, shards, tls=tls)
        stopped = [node for node in nodes if holder(node) is None]
        self._refuse_taken_ports(stopped)
        write_layout(self.directory, nodes)
        started: list[DevNode] = []
        try:
            for node in stopped:
                self._spawn(node)
                started.append(node)
            deadline = time.monotonic() + READY_S
            for node in nodes:
                self._await(node, deadline, _answers, "take connections")
            if not _founded(nodes):
                self._note(f"founding cluster {CLUSTER_NAME}")
                _found(nodes)
            self._await_ready(nodes, deadline)
        except BaseException:
            self._stop(started)
            raise
        return nodes

    def _plan(self, count: int | None, base_port: int | None, shards: int | None, *, tls: bool | None) -> list[DevNode]:
        nodes = existing_nodes(self.directory)
        if not nodes:
            count = NODES_DEFAULT if count is None else count
            shards = 1 if shards is None else shards
            base = BASE_PORT if base_port is None else base_port
            if base == 0:
                base = free_base_port(count * shards, Random())
            return planned_nodes(self.directory, count, base, shards, tls=bool(tls))
        if tls is not None and any(node.tls != tls for node in nodes):
            speaks = "does not speak" if tls else "speaks"
            raise Quit(exits.USAGE, f"{self.directory} {speaks} TLS", "leafdb dev down --purge first")
        if shards is not None and any(node.shards != shards for node in nodes):
            raise Quit(
                exits.USAGE,
                f"{self.directory} has not {shards} shards for each node",
                "leafdb dev down --purge first, or another --dir",
            )
        if count is not None and count != len(nodes):
            raise Quit(
                exits.USAGE,
                f"{self.directory} has {len(nodes)} nodes, not {count}",
                "leafdb dev down --purge first, or another --dir",
            )
        if base_port and base_port != nodes[0].client_port - 10 * nodes[0].index * nodes[0].shards:
            raise Quit(
                exits.USAGE,
                f"{self.directory} begins at port {nodes[0].client_port}",
                "leafdb dev down --purge first, or another --dir",
            )
        return nodes

    def _refuse_taken_ports(self, nodes: Sequence[DevNode]) -> None:
        taken = taken_ports(port for node in nodes for port in node.ports)
        if taken:
            ports = ", ".join(map(str, taken))
            raise Quit(
                exits.FAILED,
                f"port {ports} is taken" if len(taken) == 1 else f"ports {ports} are taken",
                "stop what listens there, or use --base-port 0",
            )

    def start(self, index: int) -> DevNode:
        """Start one node and return when it is ready."""
        node = self.node(index)
        if holder(node) is not None:
            self._note(f"{node.name} runs already")
            return node
        self._refuse_taken_ports([node])
        self._spawn(node)
        try:
            self._await_ready([node], time.monotonic() + READY_S)
        except BaseException:
            self._stop([node])
            raise
        return node

    def _spawn(self, node: DevNode) -> None:
        environment = node_environment(os.environ)
        with node.log.open("ab") as log:
            self._children[node.index] = subprocess.Popen(
                [sys.executable, "-m", "leafdb.node.main", "--config", str(node.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=node.directory,
                env=environment,
                close_fds=True,
                start_new_session=True,
            )

    def _await_ready(self, nodes: Sequence[DevNode], deadline: float) -> None:
        for node in nodes:
            self._await(node, deadline, _ready, "become ready")
        # Ready is a node's own word. Wait until they know of each other as well, so that the first write finds its
        # replicas; but not for ever, for one of those that live may hang.
        living = [node for node in self.nodes() if node in nodes or holder(node) is not None]
        until = min(deadline, time.monotonic() + SETTLED_S)
        count = sum(node.shards for node in living)
        while not all(_sees(node, count) for node in living) and time.monotonic() < until:
            time.sleep(POLL_S)

    def _await(self, node: DevNode, deadline: float, done: Callable[[DevNode], bool], what: str) -> None:
        child = self._children.get(node.index)
        while not done(node):
            if child is not None and child.poll() is not None:
                raise Quit(exits.FAILED, f"{node.name} ended with code {child.returncode}\n{self.tail(node)}", LOG)
            if time.monotonic() >= deadline:
                raise Quit(exits.FAILED, f"{node.name} did not {what} in {READY_S:.0f} s\n{self.tail(node)}", LOG)
            time.sleep(POLL_S)

    # -- down

    def down(self, *, purge: bool = False) -> int:
        """Stop every node; the number of those that ran."""
        nodes = existing_nodes(self.directory)
        running = [node for node in nodes if holder(node) is not None]
        self._stop(running)
        if purge:
            for node in nodes:
                shutil.rmtree(node.directory, ignore_errors=True)
            shutil.rmtree(self.directory / "tls", ignore_errors=True)
            with suppress(FileNotFoundError):
                (self.directory / "secret").unlink()
            with suppress(OSError):
                # What is not ours keeps the directory.
                self.directory.rmdir()
        return len(running)

    def _stop(self, nodes: Sequence[DevNode]) -> None:
        pids = {node.index: holder(node) for node in nodes}
        for node in nodes:
            self._signal(node, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_S
        for node in nodes:
            while self._lives(node) and time.monotonic() < deadline:
                time.sleep(POLL_S)
            if self._lives(node):
                self._note(f"{node.name} did not stop in time: killing it")
                self.kill_node(node)
            self._reap(node)
            pid = pids[node.index]
            while pid and _is_leafdbd(pid, node) and time.monotonic() < deadline:
                time.sleep(POLL_S / 5)  # it has let go of its data, and has an interpreter to take down

    def kill(self, index: int) -> bool:
        """SIGKILL; False when it did not run."""
        node = self.node(index)
        if holder(node) is None:
            return False
        self.kill_node(node)
        return True

    def kill_node(self, node: DevNode) -> None:
        """SIGKILL, and wait until it holds nothing any more. Shards get their own, after the parent that would start
        them again."""
        self._signal(node, signal.SIGKILL)
        for lock in node.locks[1:]:
            self._signal_holder(node, lock, signal.SIGKILL)
        deadline = time.monotonic() + KILLED_S
        while self._lives(node):
            if time.monotonic() >= deadline:
                raise Quit(exits.FAILED, f"{node.name} still holds {node.lock}", "kill its process by hand")
            time.sleep(POLL_S / 5)
        self._reap(node)

    def _lives(self, node: DevNode) -> bool:
        child = self._children.get(node.index)
        if child is not None and child.poll() is None:
            return True
        return holder(node) is not None

    def _signal(self, node: DevNode, number: signal.Signals) -> None:
        child = self._children.get(node.index)
        if child is not None and child.poll() is None:
            child.send_signal(number)
        else:
            self._signal_holder(node, node.lock, number)

    def _signal_holder(self, node: DevNode, lock: Path, number: signal.Signals) -> None:
        pid = lock_holder(lock)
        if pid and _is_leafdbd(pid, node):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _reap(self, node: DevNode) -> None:
        child = self._children.pop(node.index, None)
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(KILLED_S)

    def tail(self, node: DevNode, lines: int = LOG_LINES) -> str:
        """The last lines of a node's log."""
        try:
            text = node.log.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])


def _is_leafdbd(pid: int, node: DevNode) -> bool:
    """Whether this process is the node: a number may have been given to another since."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(node.config) in command or b"leafdb" in command


def _answers(node: DevNode) -> bool:
    """It takes requests, whether or not it is in a cluster."""
    return None not in _ask(node, "ping", 1.0)


def _founded(nodes: Sequence[DevNode]) -> bool:
    return all((reply or {}).get("epoch", 0) for node in nodes for reply in _ask(node, "ping", 5.0))


def connected(node: DevNode, address: str, timeout_s: float) -> Client:
    """A client of this node alone, or of one of its shards."""
    from leafdb.client.connect import connect
    from leafdb.client.tls import TLS

    if node.ca is None:
        return connect(f"leafdb://{address}", timeout=timeout_s, routing="listed")
    return connect(f"leafdbs://{address}", tls=TLS(ca_file=node.ca), timeout=timeout_s, routing="listed")


def _found(nodes: Sequence[DevNode]) -> None:
    args = {"name": CLUSTER_NAME, "members": [member for node in nodes for member in node.members()]}
    with connected(nodes[0], nodes[0].client, INIT_S) as client:
        client.admin("cluster.init", args, changes=True)


def _sees(node: DevNode, count: int) -> bool:
    return all(reply is not None and int(reply["nodes_up"]) >= count for reply in _ask(node, "status", 2.0))


def _ask(node: DevNode, verb: str, timeout_s: float) -> list[dict[str, Any] | None]:
    """What each shard answers; None when it has no answer."""
    replies: list[dict[str, Any] | None] = []
    for member in node.members():
        try:
            with connected(node, member["client"], timeout_s) as client:
                replies.append(dict(client.admin(verb)))
        except (LeafdbError, ConfigError):
            replies.append(None)
    return replies


def _ready(node: DevNode) -> bool:
    """The pages of all its shards say so."""
    return all(_page_says_ready(port + 2) for port in node.client_ports)


def _page_says_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
