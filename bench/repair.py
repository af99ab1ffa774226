"""Anti-entropy alone: hints off, one node of three down for many writes, then back; what it takes to make it whole.

    python bench/repair.py [--keys 500000] [--missed 50000] [--out FILE] [--quick]

A cluster of real processes keeps no hints (`repair.hints_bytes_max` 0). All keys are written, one node is killed, some
of the keys are written again, and the node is started. Measured: the time until nobody owes an exchange, the records
and bytes that were moved beside those that differed. Then a dry run compares everything once more: nothing may differ,
and what that costs is what a quiescent cluster pays. Not for CI: it takes many minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from leafdb.client.connect import connect
from leafdb.client.results import Failed, Put
from leafdb.client.sync_client import Client
from leafdb_cli.dev_cluster import DevCluster

ROOT: Final = Path(__file__).resolve().parents[1]
NODES: Final = 3
BATCH: Final = 2_000
VALUE_BYTES: Final = 100
SETTLE_S: Final = 3_600.0
HINTS_OFF: Final = "LEAFDB__REPAIR__HINTS_BYTES_MAX"


def tell(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def batches(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    """So many keys at a time."""
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def write(client: Client, bucket: str, keys: Sequence[int], value: bytes) -> float:
    """Write all of these; the seconds it took."""
    handle = client.lww_bucket(bucket)
    began = time.monotonic()
    for done, batch in enumerate(batches(keys)):
        left = [Put(f"key{number:07}", value) for number in batch]
        while left:
            results = handle.put_many(left, timeout=60.0)
            left = [put for put, result in zip(left, results, strict=True) if isinstance(result, Failed)]
        if done % 50 == 0:
            tell(f"  {done * BATCH} of {len(keys)} written")
    return time.monotonic() - began


def settle(client: Client) -> float:
    """Wait until the cluster is healthy; the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < SETTLE_S:
        status = client.admin("status", timeout=10.0)
        if status["healthy"] and status["nodes_up"] == NODES:
            return time.monotonic() - began
        time.sleep(0.25)
    raise SystemExit(f"not settled in {SETTLE_S:.0f} s: {status['problems']}")


def counters(client: Client) -> dict[str, float]:
    """What all nodes have counted."""
    sums: dict[str, float] = {}
    for counted in client.admin("stats", timeout=10.0)["stats"].values():
        for name, value in counted.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def compare(client: Client) -> dict[str, Any]:
    """A dry run of everything: what differs, and what comparing costs."""
    began = time.monotonic()
    tasks = client.admin("repair.dry", changes=True, timeout=10.0)["tasks"]
    while True:
        lines = [
            line
            for line in client.admin("repair.status", timeout=10.0)["repairs"]
            if tasks.get(line["node"]) == line["task"]
        ]
        if len(lines) == len(tasks) and all(line["state"] not in ("waiting", "running") for line in lines):
            break
        time.sleep(0.25)
    return {
        "seconds": time.monotonic() - began,
        "differing": sum(line["keys_differing"] for line in lines),
        "ranges": sum(line["partitions_done"] for line in lines),
        "bytes": sum(line["bytes"] for line in lines),
    }


def measure(directory: Path, keys: int, missed: int) -> dict[str, Any]:
    """The whole story on a fresh cluster."""
    os.environ[HINTS_OFF] = "0B"
    cluster = DevCluster(directory, tell)
    try:
        nodes = cluster.up(NODES, 0)
        with connect(f"leafdb://{nodes[0].client}", timeout=30.0, routing="listed") as client:
            client.create_bucket("repaired", conflict="lww", durability="periodic")
            tell(f"writing {keys} keys")
            load_s = write(client, "repaired", range(keys), b"a" * VALUE_BYTES)
            settle(client)
            cluster.kill(2)
            tell(f"node 2 is down; writing {missed} keys again")
            write(client, "repaired", range(0, keys, max(1, keys // missed))[:missed], b"b" * VALUE_BYTES)
            before = counters(client)
            tell("node 2 comes back")
            cluster.start(2)
            repair_s = settle(client)
            after = counters(client)
            found = {name: after[name] - before.get(name, 0.0) for name in after}
            repairs = client.admin("repair.status", timeout=10.0)["repairs"]
            tell("comparing everything once more")
            again = compare(client)
    finally:
        cluster.down(purge=True)
        del os.environ[HINTS_OFF]
    return {
        "load_s": load_s,
        "repair_s": repair_s,
        "exchanges": found["exchanges_total"] / 2,
        "received": found["exchange_keys_received_total"],
        "hints": found["hints_stored_total"],
        "bytes": max((line["bytes"] for line in repairs), default=0),
        "again": again,
    }


def page(arguments: argparse.Namespace, figures: dict[str, Any], now: datetime) -> str:
    """The result as a page."""
    again = figures["again"]
    lines = [
        f"# Anti-entropy alone, {now:%Y-%m-%d %H:%M} UTC",
        "",
        f"{NODES} nodes on one machine, n=3, hints off; {arguments.keys} keys of {VALUE_BYTES} bytes, "
        f"{arguments.missed} of them written again while one node was down.",
        "",
        "| | |",
        "|---|---:|",
        f"| records that differed | {arguments.missed} |",
        f"| records moved | {figures['received']:.0f} |",
        f"| bytes of the largest repair of a node, comparison included | {figures['bytes']} |",
        f"| exchanges | {figures['exchanges']:.0f} |",
        f"| hints kept | {figures['hints']:.0f} |",
        f"| seconds from the node's start until nothing was owed | {figures['repair_s']:.1f} |",
        f"| keys that differ afterwards | {again['differing']} |",
        f"| bytes to compare {again['ranges']} equal ranges | {again['bytes']} |",
        f"| seconds for that | {again['seconds']:.1f} |",
        f"| seconds to write all keys | {figures['load_s']:.1f} |",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure anti-entropy alone on a fresh local cluster.")
    parser.add_argument("--keys", type=int, default=500_000)
    parser.add_argument("--missed", type=int, default=50_000)
    parser.add_argument("--quick", action="store_true", help="a hundredth of it: to try the script")
    parser.add_argument("--out", type=Path, help="the file to write (bench/results/DATE-repair.md)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.keys, arguments.missed = arguments.keys // 100, arguments.missed // 100
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="leafdb-bench-") as directory:
        figures = measure(Path(directory) / "cluster", arguments.keys, arguments.missed)
    text = page(arguments, figures, now)
    out = arguments.out or ROOT / "bench" / "results" / f"{now:%Y-%m-%d}-repair.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    return 0 if not figures["again"]["differing"] else 1


if __name__ == "__main__":
    sys.exit(main())
