"""What ten thousand half-open and slow connections cost those who behave: latencies with and without them, by turns.

    python bench/half_open.py [--connections 10000] [--greetings-max 10000] [--rounds 5] [--seconds 6] [--out FILE]

One real node. A crowd, in a process of its own, keeps so many connections to it open, in the shares of KINDS; what the
node closes is opened again at once, as far as `RECONNECTS_PER_S` allows. A healthy client, in another process, reads
and writes at a steady pace over one connection, and every so often makes a new one for a single read. Rounds go: the
healthy client alone, then the crowd comes, the healthy client again, the crowd goes. Told are the median over the
rounds of the p50 and p99 of both, and their ratios within a round. `--greetings-max` is `limits.greetings_max` of the
node: with 10,000 all of the crowd stays until its handshake times out; with less the oldest of those who have not
greeted give way all the time.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import random
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from machine_notes import machine_notes

import leafdb
from leafdb.codec import cbor
from leafdb.wire.frame import encode_frame
from leafdb.wire.hello import encode_client_hello
from leafdb.wire.registry import MessageType
from leafdb_cli.dev_cluster import DevCluster
from leafdb_cli.dev_layout import holder

KINDS: Final = {
    "says nothing": 0.3,
    "says its hello a byte at a time": 0.2,
    "says nothing, to the peer port": 0.1,
    "says hello as a peer and proves nothing": 0.1,
    "greets, then sends a frame a byte at a time": 0.2,
    "greets, then asks and takes no answer": 0.1,
}
RECONNECTS_PER_S: Final = 1_500
RAMP_S: Final = 60.0
TICKS_PER_S: Final = 100
PACE_S: Final = 0.001
NEWCOMER_EACH: Final = 50
HELLO: Final = encode_frame(MessageType.HELLO, 0, encode_client_hello("half_open"))
SLOW_FRAME: Final = encode_frame(MessageType.GET, 1, bytes(2_000))
PEER_HELLO: Final = encode_frame(
    MessageType.HELLO,
    0,
    cbor.dumps(
        {
            "kind": "peer", "min": 1, "max": 1, "cluster_id": b"", "node": 0, "incarnation": 0, "boot": 1,
            "nonce": bytes(16), "boot_nonce": bytes(16), "epoch": 0, "lane": 1,
        }
    ),
)  # fmt: skip
ASKING: Final = b"".join(encode_frame(MessageType.PING, number, b"") for number in range(1, 500))


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def raise_limits() -> int:
    """As many descriptors as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def stand_apart() -> None:
    """Leave the other cores to the node. In life it has a machine of its own: a healthy client that is put now beside
    the node and now beside the crowd waits for a core, and tells that of the node."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


# -- the crowd


class Guest:
    """One connection of the crowd. `plan` is what it says and how: pairs of (bytes, at once or a byte at a time)."""

    def __init__(self, kind: str, client_port: int, peer_port: int, source: str) -> None:
        self.kind = kind
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.bind((source, 0))
        self.slow = b""
        self.opening = b""
        port = client_port
        match kind:
            case "says nothing":
                pass
            case "says its hello a byte at a time":
                self.slow = HELLO
            case "says nothing, to the peer port":
                port = peer_port
            case "says hello as a peer and proves nothing":
                port, self.opening = peer_port, PEER_HELLO
            case "greets, then sends a frame a byte at a time":
                self.opening, self.slow = HELLO, SLOW_FRAME
            case "greets, then asks and takes no answer":
                self.opening = HELLO + ASKING
        code = self.socket.connect_ex(("127.0.0.1", port))
        if code not in (0, errno.EINPROGRESS):
            self.socket.close()
            raise OSError(code, os.strerror(code))

    def say(self) -> None:
        """What it says at once, when it is connected."""
        if self.opening:
            self.socket.send(self.opening)

    def drip(self) -> None:
        """One byte more."""
        if self.slow:
            self.socket.send(self.slow[:1])
            self.slow = self.slow[1:]


def crowd(count: int, client_port: int, peer_port: int) -> None:
    """The process of the crowd: "on" and "off" come in; how many are connected goes out, at "on" when all are."""
    raise_limits()
    stand_apart()
    os.nice(15)
    for _ in sys.stdin:
        _invade(count, client_port, peer_port)


def _invade(count: int, client_port: int, peer_port: int) -> None:
    rng = random.Random(5)
    poll = select.epoll()
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    guests: dict[int, Guest] = {}
    missing = deque(rng.choices(list(KINDS), list(KINDS.values()), k=count))
    opened = 0
    told = False
    slow: list[set[int]] = [set() for _ in range(TICKS_PER_S)]
    ticks = 0
    began = time.monotonic()
    allowance = 0.0
    last = began
    while True:
        now = time.monotonic()
        allowance = min(allowance + (now - last) * RECONNECTS_PER_S, 100.0)
        last = now
        while missing and allowance >= 1.0:
            allowance -= 1.0
            kind = missing.popleft()
            opened += 1
            try:
                guest = Guest(kind, client_port, peer_port, f"127.0.1.{1 + opened % 50}")
            except OSError:
                missing.append(kind)
                continue
            guests[guest.socket.fileno()] = guest
            slow[guest.socket.fileno() % TICKS_PER_S].add(guest.socket.fileno())
            poll.register(guest.socket.fileno(), select.EPOLLOUT | select.EPOLLRDHUP)
        for descriptor, events in poll.poll(0.01, 1_000):
            if descriptor == sys.stdin.fileno():
                sys.stdin.readline()
                for guest in guests.values():
                    guest.socket.close()
                print(len(guests), opened, flush=True)
                return
            guest = guests[descriptor]
            try:
                if events & ~select.EPOLLOUT:
                    raise OSError("it was closed")
                guest.say()
                poll.modify(descriptor, select.EPOLLRDHUP)
            except OSError:
                missing.append(guest.kind)
                del guests[descriptor]
                slow[descriptor % TICKS_PER_S].discard(descriptor)
                guest.socket.close()
        while ticks < (now - began) * TICKS_PER_S:  # each has its byte once a second, not all at once
            ticks += 1
            for descriptor in slow[ticks % TICKS_PER_S]:
                with suppress(OSError):  # its end is reported by the poll
                    guests[descriptor].drip()
        if not told and (len(guests) >= count * 0.97 or now - began > RAMP_S):
            told = True
            print(len(guests), opened, flush=True)


# -- those who behave


def healthy(client_port: int) -> None:
    """The healthy client's process: seconds come in; p50, p99 of requests and of newcomers, and counts, go out."""
    stand_apart()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
    except OSError as error:
        tell(f"the healthy client shares its core with the crowd on equal terms: {error.strerror}")
    url = f"leafdb://127.0.0.1:{client_port}"
    db = leafdb.connect(url, routing="listed")
    bucket = db.lww_bucket("healthy")
    for line in sys.stdin:
        until = time.monotonic() + float(line)
        requests: list[float] = []
        newcomers: list[float] = []
        number = failures = 0
        while (now := time.monotonic()) < until:
            number += 1
            began = time.perf_counter()
            if number % NEWCOMER_EACH == 0:
                with leafdb.connect(url, routing="listed") as new:
                    try:
                        new.lww_bucket("healthy").get("key")
                    except leafdb.LeafdbError:
                        failures += 1
                newcomers.append(time.perf_counter() - began)
            else:
                if number % 2:
                    bucket.put(f"key{number % 100}", b"v" * 100)
                else:
                    bucket.get(f"key{number % 100}")
                requests.append(time.perf_counter() - began)
            time.sleep(max(0.0, PACE_S - (time.monotonic() - now)))
        times = (f"{each * 1e3:.4f}" for each in (*_of(requests), *_of(newcomers)))
        print(*times, failures, len(requests), flush=True)


def _of(times: list[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


# -- the runs


class Phase(NamedTuple):
    """Milliseconds, the number of requests, and what the node held."""

    p50: float
    p99: float
    newcomer_p50: float
    newcomer_p99: float
    failures: float
    """Newcomers that were not served within their timeout."""
    requests: int
    rss_mib: float
    cpu_share: float


class Child:
    """A process that is told lines and answers lines."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, __file__, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return [float(word) for word in self._process.stdout.readline().split()]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()


def rss_mib(pid: int) -> float:
    """Memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """CPU time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(directory: Path, connections: int, greetings_max: int, rounds: int, seconds: float) -> list[str]:
    """All rounds on a fresh node; the lines of its table."""
    raise_limits()
    os.environ["LEAFDB__LIMITS__GREETINGS_MAX"] = str(greetings_max)
    os.environ["LEAFDB__LIMITS__CLIENT_SESSIONS_MAX"] = "10000"
    cluster = DevCluster(directory, tell)
    phases: dict[str, list[Phase]] = {"alone": [], "crowd": []}
    children: list[Child] = []
    try:
        (node,) = cluster.up(1, 0)
        pid = holder(node)
        assert pid is not None
        with leafdb.connect(f"leafdb://{node.client}", timeout=30.0, routing="listed") as db:
            db.create_bucket("healthy", n=1, conflict="lww", durability="periodic")
        client = Child("--healthy", "--ports", node.client_port, node.peer_port)
        guests = Child("--crowd", "--connections", connections, "--ports", node.client_port, node.peer_port)
        children += [client, guests]
        client.ask("2")

        def phase(name: str) -> Phase:
            cpu, began = cpu_s(pid), time.monotonic()
            p50, p99, new50, new99, failures, count = client.ask(str(seconds))
            share = (cpu_s(pid) - cpu) / (time.monotonic() - began)
            found = Phase(p50, p99, new50, new99, failures, int(count), rss_mib(pid), share)
            phases[name].append(found)
            tell(f"  {name}: {found}")
            return found

        for number in range(rounds):
            tell(f"round {number + 1}")
            phase("alone")
            there, opened = guests.ask("on")
            tell(f"  {there:.0f} connected after {opened:.0f} attempts")
            phase("crowd")
            there, opened = guests.ask("off")
            tell(f"  {there:.0f} connected after {opened:.0f} attempts")
            time.sleep(2.0)
        status = leafdb.connect(f"leafdb://{node.client}").status()
        tell(f"healthy: {status.healthy}")
    finally:
        for child in children:
            child.end()
        cluster.down(purge=True)
    return table(phases)


def table(phases: dict[str, list[Phase]]) -> list[str]:
    """Medians over the rounds, and of the ratios within them."""
    lines = ["| | alone | with the crowd | ratio | lowest, highest |", "|---|---:|---:|---:|---:|"]
    names = {
        "p50": "requests, p50 ms", "p99": "requests, p99 ms", "newcomer_p50": "newcomers, p50 ms",
        "newcomer_p99": "newcomers, p99 ms", "failures": "newcomers not served", "rss_mib": "memory of the node, MiB",
        "cpu_share": "CPU of the node, share of one core",
    }  # fmt: skip
    for field, name in names.items():
        alone = [float(getattr(each, field)) for each in phases["alone"]]
        crowded = [float(getattr(each, field)) for each in phases["crowd"]]
        ratios = [more / less if less else math.nan for less, more in zip(alone, crowded, strict=True)]
        lines.append(
            f"| {name} | {statistics.median(alone):.2f} | {statistics.median(crowded):.2f} "
            f"| {statistics.median(ratios):.2f} | {min(ratios):.2f}, {max(ratios):.2f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--greetings-max", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--crowd", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--healthy", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--ports", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.crowd:
        crowd(args.connections, *args.ports)
    elif args.healthy:
        healthy(args.ports[0])
    else:
        with tempfile.TemporaryDirectory(prefix="leafdb-half-open-") as directory:
            notes = machine_notes(directory)
            lines = measure(Path(directory) / "dev", args.connections, args.greetings_max, args.rounds, args.seconds)
        head = [f"`python bench/half_open.py --connections {args.connections} --greetings-max {args.greetings_max}"]
        head[0] += f" --rounds {args.rounds} --seconds {args.seconds:g}`, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        page = [*head, "", *(f"- {name}: {text}" for name, text in notes.items()), "", *lines, ""]
        print("\n".join(page))
        if args.out is not None:
            args.out.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
