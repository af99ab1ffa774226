"""`bench/run.py engine`: leafdb's engine beside other embedded stores, one machine, one run.

    python bench/run.py engine [--stores leafdb,plyvel,...] [--rounds 3] [--values 200000x100,20000x4096]
                               [--compiled DIR] [--quick] [--record | --out FILE]

Each store runs all workloads in a process of its own (`engine_workloads`); the stores take turns, a round after the
other, so that what the machine does besides meets all of them. Of each figure the median is shown, and lowest and
highest. Operations a second are of time that passed; CPU is that of all threads and processes of the store.

With --compiled leafdb takes part twice, pure and compiled: DIR is where the latter was put by

    LEAFDB_COMPILE=1 pip install --no-deps --target DIR .

`--record` writes bench/results/DATE-engine.md. A store that is not installed is named in the report and left out;
`pip install '.[bench]'` brings all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from engine_stores import BURST_WRITES, CACHE_BYTES, COMMIT_WRITES, COMPILED, KINDS
from machine_notes import ROOT, machine_notes

CHILD: Final = Path(__file__).with_name("engine_workloads.py")
CHILD_TIMEOUT_S: Final = 600
SETTLE: Final = ", settle"

TARGETS: Final = (("fillrandom", "rocksdict", 1.0), ("readrandom, hot", "plyvel", 0.5))
"""Workload, the store it is measured by, the share of that store's figure which leafdb is to reach."""

Run = Mapping[str, Any]
"""What one process printed."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How much of what."""

    records: int
    value_bytes: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """RECORDSxBYTES; ValueError for anything else."""
        records, _, value_bytes = text.partition("x")
        return cls(int(records), int(value_bytes))


class Figures:
    """All runs of one shape."""

    def __init__(self, runs: Mapping[str, Sequence[Run]]) -> None:
        self.runs = runs
        self.stores = list(runs)
        self.workloads = list(runs[self.stores[0]][0]["workloads"])

    def of(self, store: str, workload: str) -> list[Mapping[str, float]]:
        return [run["workloads"][workload] for run in self.runs[store]]

    def rates(self, store: str, workload: str) -> list[float]:
        """Operations a second of each round, in thousands."""
        return sorted(each["operations"] / max(each["seconds"], 1e-9) / 1_000 for each in self.of(store, workload))

    def cpu_us(self, store: str, workload: str) -> tuple[float, float]:
        """Microseconds of CPU an operation, of the process and of its worker, that of settling included."""
        rounds = [self.of(store, workload)]
        if workload + SETTLE in self.workloads:
            rounds.append(self.of(store, workload + SETTLE))
        operations = rounds[0][0]["operations"]
        own = median(sum(each["cpu_s"] for each in parts) for parts in zip(*rounds, strict=True))
        worker = median(sum(each["worker_cpu_s"] for each in parts) for parts in zip(*rounds, strict=True))
        return own / operations * 1e6, worker / operations * 1e6

    def overall(self, store: str, name: str) -> float:
        return float(median(run[name] for run in self.runs[store]))


def measure(shape: Shape, stores: Sequence[str], rounds: int, compiled: Path | None) -> Figures:
    """Run every store once a round; what each said. `compiled` is where a compiled leafdb is installed."""
    runs: dict[str, list[Run]] = {store: [] for store in stores}
    for number in range(rounds):
        for store in stores:
            print(f"round {number + 1}: {store}, {shape.records} x {shape.value_bytes}", file=sys.stderr)
            environment = dict(os.environ)
            if store == COMPILED:
                environment["PYTHONPATH"] = os.pathsep.join((str(compiled), environment.get("PYTHONPATH", "")))
            with tempfile.TemporaryDirectory(prefix="leafdb-bench-") as directory:
                finished = subprocess.run(
                    [sys.executable, str(CHILD), store, str(shape.records), str(shape.value_bytes), directory],
                    stdout=subprocess.PIPE, text=True, timeout=CHILD_TIMEOUT_S, check=True, env=environment,
                )  # fmt: skip
            runs[store].append(json.loads(finished.stdout))
    return Figures(runs)


def table(shape: Shape, figures: Figures) -> Iterator[str]:
    """The figures of one shape, as Markdown."""
    yield f"## {shape.records} records of {shape.value_bytes} bytes"
    yield ""
    yield "Thousands of operations a second: median (lowest to highest)."
    yield ""
    yield from _grid(figures, [name for name in figures.workloads if SETTLE not in name], _rate)
    yield ""
    yield "Microseconds of CPU an operation, that of settling included: of the process + of its worker."
    yield ""
    yield from _grid(figures, [name for name in figures.workloads if SETTLE not in name], _cpu)
    yield ""
    yield "Seconds until nothing worked for the store any more; amplification."
    yield ""
    yield from _grid(figures, [name for name in figures.workloads if SETTLE in name], _seconds)
    for label, name in (("write", "write_amplification"), ("space", "space_amplification")):
        cells = [f"{figures.overall(store, name):.2f}" for store in figures.stores]
        yield f"| {label} amplification | " + " | ".join(cells) + " |"
    yield ""
    yield from _judge(figures)


Cell = Callable[[Figures, str, str], str]
"""What a table shows of a store's workload."""


def _grid(figures: Figures, workloads: Sequence[str], cell: Cell) -> Iterator[str]:
    yield "| | " + " | ".join(figures.stores) + " |"
    yield "|---|" + "---:|" * len(figures.stores)
    for workload in workloads:
        yield f"| {workload} | " + " | ".join(cell(figures, store, workload) for store in figures.stores) + " |"


def _rate(figures: Figures, store: str, workload: str) -> str:
    rates = figures.rates(store, workload)
    return f"{median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f})"


def _cpu(figures: Figures, store: str, workload: str) -> str:
    own, worker = figures.cpu_us(store, workload)
    return f"{own:.1f} + {worker:.1f}" if worker else f"{own:.1f}"


def _seconds(figures: Figures, store: str, workload: str) -> str:
    return f"{median(each['seconds'] for each in figures.of(store, workload)):.2f}"


def _judge(figures: Figures) -> Iterator[str]:
    """Whether leafdb reached its targets, by the clock; by CPU beside it, where the other has no worker either."""
    for workload, other, share in TARGETS:
        for store in ("leafdb", COMPILED):
            if store not in figures.stores or other not in figures.stores:
                continue
            ratio = median(figures.rates(store, workload)) / median(figures.rates(other, workload))
            verdict = "reached" if ratio >= share else "missed"
            by_cpu = sum(figures.cpu_us(other, workload)) / sum(figures.cpu_us(store, workload))
            yield (
                f"- {workload}, {store}: {ratio:.2f} times {other}'s rate ({by_cpu:.2f} by CPU); "
                f"the target of {share:.1f} is {verdict}"
            )
    yield ""


def page(shapes: Mapping[Shape, Figures], rounds: int, missing: Sequence[str], notes: Mapping[str, str]) -> str:
    """The whole report."""
    lines = [
        f"# Storage engine, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "",
        "`bench/run.py engine`: 16-byte keys, values that compress to half, one thread, no syncs, the data ten times "
        f"the write buffer, a cache of {CACHE_BYTES >> 20} MiB. The stores took turns, rounds: {rounds}. leafdb gives "
        f'its log {BURST_WRITES} writes at a time, as a node with a burst of requests ("singly": one). LevelDB and '
        f"RocksDB log every put on its own; lmdb and sqlite3 commit once in {COMMIT_WRITES}. leafdb flushes and "
        "compacts in a worker process, as in production.",
        "",
    ]
    for shape, figures in shapes.items():
        lines += table(shape, figures)
    lines += [f"- {name}: not installed: pip install {KINDS[name].package}" for name in missing]
    lines += [f"- {name}: {value}" for name, value in notes.items()]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="run.py engine", description="leafdb's engine beside other stores.")
    parser.add_argument("--stores", default=",".join(name for name in KINDS if name != COMPILED))
    parser.add_argument("--compiled", type=Path, help="where a compiled leafdb is installed, to be measured as well")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--values", default="200000x100,20000x4096", help="RECORDSxBYTES, several with commas between")
    parser.add_argument("--quick", action="store_true", help="200 records, once: to try the script")
    parser.add_argument("--record", action="store_true", help="write bench/results/DATE-engine.md")
    parser.add_argument("--out", type=Path, help="write this file")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.values, chosen.rounds = "200x100", 1
    wanted = chosen.stores.split(",")
    if chosen.compiled is not None and COMPILED not in wanted:
        wanted.insert(1, COMPILED)
    if unknown := set(wanted) - set(KINDS):
        parser.error(f"unknown stores {sorted(unknown)}; there are {', '.join(KINDS)}")
    stores = [name for name in wanted if KINDS[name].installed()]
    missing = [name for name in wanted if name not in stores]
    if not stores:
        parser.error("none of these stores is installed")
    notes = machine_notes(tempfile.gettempdir())
    shapes = {
        shape: measure(shape, stores, chosen.rounds, chosen.compiled)
        for shape in map(Shape.parse, chosen.values.split(","))
    }
    text = page(shapes, chosen.rounds, missing, notes)
    print(text)
    out = chosen.out
    if chosen.record:
        out = ROOT / "bench" / "results" / f"{datetime.now(UTC):%Y-%m-%d}-engine.md"
    if out is not None:
        out.write_text(text, encoding="utf-8")
        print(f"written to {out}", file=sys.stderr)
    return 0
