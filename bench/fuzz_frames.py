"""Spoilt conversations by the million: into the sans-I/O connections, and through sockets into a real node.

    python bench/fuzz_frames.py [--frames 1000000] [--socket-frames 20000] [--seed N] [--out FILE]

What is spoilt and how, and what is promised at every step, is in tests/support/frame_fuzz.py; the same seed gives the
same conversations. Without I/O the four sides (a node for clients, a client, a peer that accepts, a peer that dials)
have a quarter each; Python's allocations are traced all the time. Through sockets half go to the client port and half
to the peer port of one node, which nobody of them can prove the secret to. Meanwhile a client reads and writes. In the
end the node is the same process, has counted no error of its own handlers, and its cluster, members and buckets are
what they were; memory and descriptors are told.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]  # what is spoilt is the tests' own

from half_open import rss_mib  # noqa: E402
from machine_notes import machine_notes  # noqa: E402

from support.frame_fuzz import Side, cut, honest, run, spoil  # noqa: E402
from support.processes import Cluster  # noqa: E402
from support.raw_wire import Witness, metric  # noqa: E402

REPORT_EACH: Final = 10_000
QUIET_S: Final = 0.02


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def without_io(frames_max: int, seed: int) -> list[str]:
    """Frames into the four sides; the lines of a table."""
    lines = ["| into | frames | conversations | CPU s | most held, KiB | left, KiB |", "|---|---:|---:|---:|---:|---:|"]
    tracemalloc.start()
    for side in Side:
        rng = Random(f"{seed} {side.name}")
        for _ in range(100):
            run(side, rng)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        began = time.process_time()
        frames = conversations = 0
        while frames < frames_max // len(Side):
            frames += run(side, rng)
            conversations += 1
            if conversations % REPORT_EACH == 0:
                tell(f"  {side.value}: {frames} frames")
        after, peak = tracemalloc.get_traced_memory()
        lines.append(
            f"| {side.value} | {frames:,} | {conversations:,} | {time.process_time() - began:.0f} "
            f"| {(peak - before) / 1024:.0f} | {(after - before) / 1024:.0f} |"
        )
        tell(lines[-1])
    tracemalloc.stop()
    return lines


def through_sockets(directory: Path, frames_max: int, seed: int) -> list[str]:
    """Frames into both ports of a node of three; the lines of a list."""
    rng = Random(f"{seed} sockets")
    frames: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    with Cluster(directory) as cluster:
        cluster.up()
        node = cluster.nodes[0]
        with Witness(cluster) as witness:
            pid, before = cluster.pid(0), _state(cluster)
            memory, descriptors = rss_mib(pid), _descriptors(pid)
            most = memory
            while frames.total() < frames_max:
                side, port = rng.choice(((Side.CLIENT, node.client_port), (Side.DIALER, node.peer_port)))
                said = honest(side, rng)
                frames[side.value] += len(said)
                ends[_converse(port, spoil(said, rng), rng)] += 1
                if ends.total() % 500 == 0:
                    most = max(most, rss_mib(pid))
                    tell(f"  {frames.total()} frames, {most:.0f} MiB")
            rounds = witness.rounds
            time.sleep(2.0)
            assert witness.rounds > rounds, "nobody is served any more"
        assert cluster.pid(0) == pid, "the node has been another process since"
        assert _state(cluster) == before, f"{_state(cluster)} instead of {before}"
        for index in range(3):
            assert metric(cluster.nodes[index].http_port, "leafdb_callbacks_failed_total") == 0
        failed = metric(node.http_port, "leafdb_handshakes_failed_total")
        broken = metric(node.http_port, "leafdb_protocol_errors_total")
        return [
            *(f"- {count:,} frames of {name}" for name, count in frames.items()),
            f"- {ends.total():,} connections: " + ", ".join(f"{count:,} {end}" for end, count in ends.most_common()),
            f"- the node counted {failed:,.0f} handshakes that failed, {broken:,.0f} sessions that broke the protocol, "
            "no error of a handler of its own",
            f"- a client that read and wrote meanwhile was served {rounds:,} rounds, all of them rightly",
            f"- memory of the node: {memory:.0f} MiB before, {most:.0f} MiB at most; descriptors {descriptors} before, "
            f"{_descriptors(pid)} after",
            f"- cluster, members, buckets before and after: {before}",
        ]


def _converse(port: int, data: bytes, rng: Random) -> str:
    """Say it all, read what comes, hang up; how the node took it."""
    heard = b""
    with socket.create_connection(("127.0.0.1", port), 10.0) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in cut(data, rng):
                connection.sendall(piece)
            connection.settimeout(QUIET_S)
            while more := connection.recv(65_536):
                heard += more
        except TimeoutError:
            return "left open by the node, with an answer" if heard else "left open by the node, unanswered"
        except ConnectionError:
            return "reset"
    return "ended with words" if heard else "ended without a word"


def _state(cluster: Cluster) -> dict[str, Any]:
    """What nobody may change who has not said who he is."""
    with cluster.connect_to(0) as client:
        status = client.status()
        buckets = sorted(client.buckets())
        members = sorted(line["name"] for line in client.admin("node.list")["nodes"])
    return {"epoch": status.epoch, "nodes": status.nodes_total, "members": members, "buckets": buckets}


def _descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--socket-frames", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=20_261_122)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    page = [
        f"`python bench/fuzz_frames.py --frames {args.frames} --socket-frames {args.socket_frames} --seed {args.seed}`"
        f", {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        *(f"- {name}: {text}" for name, text in machine_notes(".").items()),
        "",
        "## Without I/O",
        "",
    ]
    if args.frames:
        page += [*without_io(args.frames, args.seed), ""]
    if args.socket_frames:
        with tempfile.TemporaryDirectory(prefix="leafdb-fuzz-") as directory:
            page += ["## Through sockets", "", *through_sockets(Path(directory), args.socket_frames, args.seed), ""]
    print("\n".join(page))
    if args.out is not None:
        args.out.write_text("\n".join(page), encoding="utf-8")


if __name__ == "__main__":
    main()
