"""A cluster of real leafdbd processes on loopback, for the tests of tests/system.

The files are those of `leafdb dev` (leafdb_cli.dev_layout), so its commands work on the directory; the processes are
started here, because the tests want their exit codes and their own ideas of when a node runs. Whatever a test does, in
the end no process is left: `close` kills what `stop` did not end, and says what the nodes' logs said when asked.

Nothing here asserts how long something takes; everything that waits has a deadline and says what it waited for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TypeVar

import leafdb
from leafdb.client.options import Quorum
from leafdb.client.sync_client import Client
from leafdb.errors import LeafdbError
from leafdb_cli.dev_layout import CLUSTER_NAME, free_base_port, planned_nodes, write_layout

WAIT_S: Final = 60.0
POLL_S: Final = 0.05
SLOW_S: Final = 5.0
LOG_LINES: Final = 30

MORTAL: Final = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Runs Python with what follows, killed when its parent dies (PR_SET_PDEATHSIG): no node outlives a killed pytest."""

T = TypeVar("T")


def eventually(what: str, look: Callable[[], T | None], timeout_s: float = WAIT_S) -> T:
    """The first answer of `look` that is true; AssertionError that says what never came."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(POLL_S)


def clean_environment() -> dict[str, str]:
    """Ours without what would configure a node."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LEAFDB", "NOTIFY"))}


def run_leafdbd(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """leafdbd, to its end: for starts that are refused."""
    return subprocess.run(
        [sys.executable, "-m", "leafdb.node.main", *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env={**clean_environment(), **environment},
        check=False,
    )


class Cluster:
    """Nodes 0 to n-1 in one directory, each of several shards if wanted. Use it as `with`; nothing runs before `up`.

    The first `founders` found it, all unless said; the others are there to be started blank (`spawn_blank`). `indexes`
    are the nodes that are members, or are about to be: a test that changes the ring keeps it up to date.
    """

    def __init__(
        self, directory: Path, count: int = 3, *, shards: int = 1, founders: int | None = None, tls: bool = False
    ) -> None:
        self.directory = directory
        self.nodes = planned_nodes(directory, count, free_base_port(count * shards, Random()), shards, tls=tls)
        self.scheme = "leafdbs://" if tls else "leafdb://"
        self.tls = leafdb.TLS(ca_file=self.nodes[0].ca) if tls else None
        self.indexes = list(range(count if founders is None else founders))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._stalled: set[int] = set()
        write_layout(directory, self.nodes)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- addresses and clients

    @property
    def url(self) -> str:
        """All nodes."""
        return self.scheme + ",".join(member["client"] for member in self.members())

    def members(self) -> list[dict[str, str]]:
        """Every member: each shard of each node."""
        return [member for index in self.indexes for member in self.nodes[index].members()]

    def connect(self, **options: Any) -> Client:
        """A client of the whole cluster."""
        return leafdb.connect(self.url, tls=self.tls, **options)

    def connect_to(self, index: int, **options: Any) -> Client:
        """A client that speaks to one node only."""
        return leafdb.connect(self.scheme + self.nodes[index].client, tls=self.tls, routing="listed", **options)

    # -- processes

    def up(self) -> Cluster:
        """Start every node, found the cluster, wait until all know of each other."""
        for index in self.indexes:
            self.spawn(index)
        for index in self.indexes:
            self._await(index, "takes connections", self._answers)
        with self.connect_to(0, timeout=30.0) as client:
            client.admin("cluster.init", {"name": CLUSTER_NAME, "members": self.members()}, changes=True)
        self.await_ready()
        return self

    def spawn(self, index: int, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process and return at once."""
        node = self.nodes[index]
        assert not self.runs(index), f"{node.name} runs already"
        with node.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", MORTAL, "-m", "leafdb.node.main", "--config", str(node.config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=node.directory,
                env={**clean_environment(), **environment},
                start_new_session=True,
            )
        with self._lock:
            self._processes[index] = process
        return process

    def spawn_blank(self, index: int) -> str:
        """Start a node that belongs to no cluster yet; the address by which it is staged, once it answers there."""
        self.spawn(index)
        self._await(index, "takes connections", self._answers)
        return self.nodes[index].members()[0]["peer"]

    def start(self, *indexes: int) -> None:
        """Start nodes and wait until they are ready and everybody alive knows of them."""
        for index in indexes:
            self.spawn(index)
        self.await_ready()

    def runs(self, index: int) -> bool:
        """Whether its process lives."""
        process = self._processes.get(index)
        return process is not None and process.poll() is None

    def pid(self, index: int) -> int:
        """Its process."""
        return self._processes[index].pid

    def signal(self, index: int, number: signal.Signals) -> None:
        """Send one."""
        self._processes[index].send_signal(number)

    def kill(self, *indexes: int) -> None:
        """SIGKILL to all of them within microseconds; they are gone on return."""
        for index in indexes:
            self.signal(index, signal.SIGKILL)
        for index in indexes:
            self.wait(index)

    def stop(self, index: int, timeout_s: float = WAIT_S) -> int:
        """SIGTERM; its exit code."""
        self.signal(index, signal.SIGTERM)
        return self.wait(index, timeout_s)

    def wait(self, index: int, timeout_s: float = WAIT_S) -> int:
        """Its exit code, once it has ended by itself."""
        process = self._processes[index]
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.nodes[index].name} did not end within {timeout_s:.0f} s") from None

    def stall(self, index: int) -> None:
        """SIGSTOP."""
        self._stalled.add(index)
        self.signal(index, signal.SIGSTOP)

    def resume(self, index: int) -> None:
        """SIGCONT."""
        self.signal(index, signal.SIGCONT)
        self._stalled.discard(index)

    def close(self) -> None:
        """Kill whatever still runs."""
        with self._lock:
            processes = list(self._processes.values())
        for process in processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.kill()
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(WAIT_S)

    def heal(self) -> None:
        """For the next test: everybody runs, and nobody owes anything."""
        for index in tuple(self._stalled):
            self.resume(index)
        stopped = [index for index in self.indexes if not self.runs(index)]
        self.start(*stopped)
        self.await_settled()

    # -- what nodes say

    def ask(self, index: int, verb: str, args: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        """A node's answer to an admin verb; None when it has none."""
        return self._ask_at(self.nodes[index].client, verb, args)

    def _ask_at(self, client: str, verb: str, args: Mapping[str, Any] | None = None) -> Mapping[str, Any] | None:
        try:
            with leafdb.connect(self.scheme + client, tls=self.tls, routing="listed", timeout=5.0) as asking:
                return asking.admin(verb, args or {})
        except LeafdbError:
            return None

    def await_ready(self) -> None:
        """Every living node sees every living node."""
        living = [self.nodes[index] for index in self.indexes if self.runs(index)]
        count = sum(node.shards for node in living)
        for node in living:
            self._await(node.index, f"sees {count} nodes", lambda index: self._sees(index, count))

    def await_settled(self, timeout_s: float = WAIT_S) -> None:
        """No hints, no repairs owed, no problems: seen from every node."""
        started = time.monotonic()
        said = False
        for node in [self.nodes[index] for index in self.indexes]:
            while (unsettled := self._unsettled(node.index)) is not None:
                waited_s = time.monotonic() - started
                assert waited_s < timeout_s, f"{node.name} never settled: {unsettled}"
                if waited_s > SLOW_S and not said:
                    said = True
                    print(f"not settled after {SLOW_S:.0f} s: {unsettled}")
                time.sleep(POLL_S)

    def _unsettled(self, index: int) -> object:
        """What a node says is still to be done; None for nothing."""
        hints, status = self.ask(index, "hints.list"), self.ask(index, "status")
        if hints is None or status is None:
            return "no answer"
        done = not hints["hints"] and not hints["errors"] and status["healthy"]
        return None if done and status["nodes_up"] == len(self.members()) else (status, hints)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `leafdb` command that asks the first member."""
        node = self.nodes[self.indexes[0]]
        secure = ["--tls-ca", str(node.ca)] if node.ca else []
        return subprocess.run(
            [sys.executable, "-m", "leafdb_cli.main", "--node", node.client, *secure, *arguments],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            env=clean_environment(),
            check=False,
        )

    def log_of(self, index: int) -> str:
        """All it said."""
        with suppress(FileNotFoundError):
            return self.nodes[index].log.read_text(encoding="utf-8", errors="replace")
        return ""

    def logs(self, lines: int = LOG_LINES) -> str:
        """The end of every node's log, for the report of a failure."""
        parts = []
        for node in self.nodes:
            state = "running" if self.runs(node.index) else "not running"
            parts += [f"--- {node.name}, {state}", *self.log_of(node.index).splitlines()[-lines:]]
        return "\n".join(parts)

    def _answers(self, index: int) -> bool:
        return all(self._ask_at(member["client"], "ping") is not None for member in self.nodes[index].members())

    def _sees(self, index: int, count: int) -> bool:
        replies = [self._ask_at(member["client"], "status") for member in self.nodes[index].members()]
        return all(status is not None and int(status["nodes_up"]) >= count for status in replies)

    def _await(self, index: int, what: str, look: Callable[[int], bool]) -> None:
        def look_alive() -> bool:
            assert self.runs(index), f"{self.nodes[index].name} has ended\n{self.logs()}"
            return look(index)

        eventually(f"{self.nodes[index].name} {what}", look_alive)


Outcomes = Literal["acknowledged", "unknown", "refused"]


class Load:
    """Threads that put keys of their own once each, and know afterwards what became of every one.

    `allow(n)` lets the first n keys be written and no more: so a test can have load going on through each of its steps
    without writing more than it will have to read back.
    """

    def __init__(
        self,
        cluster: Cluster,
        buckets: Iterable[str],
        *,
        keys: int,
        prefix: str = "key-",
        threads: int = 8,
        timeout_s: float = 5.0,
        w: Quorum = 2,
    ) -> None:
        self.acknowledged: dict[tuple[str, str], bytes] = {}
        self.unknown: dict[tuple[str, str], LeafdbError] = {}
        self.refused: dict[tuple[str, str], LeafdbError] = {}
        self.wrong: list[BaseException] = []
        self.keys = keys
        self.threads = threads
        self._w = w
        self._buckets = list(buckets)
        self._prefix = prefix
        self._client = cluster.connect(timeout=timeout_s)
        self._allowed = 0
        self._next = 0
        self._stopping = False
        self._turn = threading.Condition()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def allow(self, count: int) -> None:
        """Let the first `count` keys be written."""
        with self._turn:
            self._allowed = min(count, self.keys)
            self._turn.notify_all()

    def stop(self) -> None:
        """Begin no more, and wait for what is under way."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a writer hangs"

    def await_begun(self, count: int) -> None:
        """Until so many writes have been begun."""
        eventually(f"{count} writes begun", lambda: self._next >= count or self.wrong, 2 * WAIT_S)

    def await_done(self, count: int) -> None:
        """Until so many writes have ended, one way or another."""
        eventually(f"{count} writes done", lambda: self.done >= count or self.wrong, 2 * WAIT_S)

    @property
    def done(self) -> int:
        """Writes that have ended."""
        return len(self.acknowledged) + len(self.unknown) + len(self.refused)

    def check(self) -> None:
        """Every failure was typed, and said truly what it could know."""
        assert not self.wrong, f"untyped: {self.wrong[0]!r}"
        assert all(error.outcome == "unknown" for error in self.unknown.values())
        assert all(error.outcome == "not_applied" for error in self.refused.values())

    def _work(self) -> None:
        try:
            while (number := self._take()) is not None:
                self._put(number)
        except BaseException as error:
            self.wrong.append(error)

    def _take(self) -> int | None:
        with self._turn:
            while self._next >= self._allowed and not self._stopping:
                self._turn.wait()
            if self._stopping:
                return None
            self._next += 1
            return self._next - 1

    def _put(self, number: int) -> None:
        bucket = self._buckets[number % len(self._buckets)]
        key, value = f"{self._prefix}{number:06}", b"value of %d, " % number * 4
        try:
            self._client.bucket(bucket).put(key, value, after=leafdb.BLIND, w=self._w)
        except LeafdbError as error:
            # A DeadlineExceeded of a write says that nothing was sent.
            kind = self.unknown if error.outcome == "unknown" else self.refused
            kind[bucket, key] = error
        else:
            self.acknowledged[bucket, key] = value
