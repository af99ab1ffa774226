"""`make bench`: the standard set of workloads against a fresh local cluster, written to bench/results/DATE-cluster.md.

    python bench/run.py [--duration 20s] [--keys 100000] [--best-of 3] [--quick] [--out FILE]
    python bench/run.py engine ...    the storage engine beside other stores: see engine_bench.py

One table: puts with both durabilities, gets, a mix, YCSB A to F; of each the best of a few runs, since on a shared
machine noise only ever takes away. Beside it what is needed to read it: processor, kernel, Python, file system, how
fast the disk syncs. `--quick` is for trying the script.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import engine_bench
from machine_notes import machine_notes

from leafdb.client.connect import connect
from leafdb_cli.dev_cluster import DevCluster
from leafdb_cli.options import parse_duration_s
from leafdb_cli.workloads.run import Plan, run

ROOT: Final = Path(__file__).resolve().parents[1]
NODES: Final = 3
SETTLE_S: Final = 2.0

SET: Final[Sequence[tuple[str, Literal["always", "periodic"]]]] = (
    ("put", "periodic"),
    ("put", "always"),
    ("get", "periodic"),
    ("mixed", "periodic"),
    *((f"ycsb-{letter}", "periodic") for letter in "abcdef"),
)

HEADINGS: Final = {
    "workload": "workload",
    "durability": "durability",
    "ops_per_s": "ops/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "p999_ms": "p99.9 ms",
    "errors": "errors",
    "client_cpu_us_per_op": "client us/op",
    "server_cpu_us_per_op": "server us/op",
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = ["| " + " | ".join(HEADINGS.values()) + " |", "|---|---|" + "---:|" * (len(HEADINGS) - 2)]
    lines += ["| " + " | ".join("-" if row[key] is None else str(row[key]) for key in HEADINGS) + " |" for row in rows]
    return "\n".join(lines)


def measure(arguments: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """Run the set; the best run of each."""
    cluster = DevCluster(directory, lambda text: print(text, file=sys.stderr))
    rows = []
    try:
        nodes = cluster.up(NODES, 0)
        url = "leafdb://" + ",".join(node.client for node in nodes)
        for workload, durability in SET:
            runs = []
            for _ in range(arguments.best_of):
                time.sleep(SETTLE_S)
                plan = Plan(
                    workload,
                    duration_s=parse_duration_s(arguments.duration),
                    keys=arguments.keys,
                    durability=durability,
                    sync_directory=str(directory),
                )
                with connect(url, timeout=10.0, routing="listed") as client:
                    runs.append(run(client, plan, lambda phase, done, total: None))
                print(f"{workload} {durability}: {runs[-1]['ops_per_s']} ops/s", file=sys.stderr)
            rows.append(max(runs, key=lambda figures: float(figures["ops_per_s"])))
    finally:
        cluster.down(purge=True)
    return rows


def main() -> int:
    """The command."""
    if sys.argv[1:2] == ["engine"]:
        return engine_bench.main(sys.argv[2:])
    parser = argparse.ArgumentParser(description="Run the standard benchmarks on a fresh local cluster.")
    parser.add_argument("--duration", default="20s", help="how long each run is measured")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--best-of", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one second each, once: to try the script")
    parser.add_argument("--out", type=Path, help="the file to write (bench/results/DATE-cluster.md)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.duration, arguments.keys, arguments.best_of = "1s", 2_000, 1
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="leafdb-bench-") as directory:
        notes = machine_notes(directory)
        rows = measure(arguments, Path(directory) / "cluster")
    page = "\n".join(
        [
            f"# Cluster, {now:%Y-%m-%d %H:%M} UTC",
            "",
            f"{NODES} nodes and the load generator on one machine; 48 connections with one request in flight each, "
            f"100-byte values, {arguments.keys} keys, n=3, r=w=2; {arguments.duration} measured after a warm-up, best "
            f"of {arguments.best_of}. Server CPU is that of all nodes and their workers together.",
            "",
            table(rows),
            "",
            *(f"- {name}: {value}" for name, value in notes.items()),
            "",
        ]
    )
    out = arguments.out or ROOT / "bench" / "results" / f"{now:%Y-%m-%d-%H%M}-cluster.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    print(page)
    print(f"written to {out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
