"""The page about every metric, made from the tables of `leafdb.node.metric_tables`.

    .venv/bin/python tools/metrics_reference.py > docs/operations/metrics.md

A test compares what is committed with what is made. A metric that no code moves is marked: it is described, and will be
0 until somebody counts it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from leafdb.errors import Reason
from leafdb.node.metric_tables import (
    BUILD_INFO,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    REJECTED,
    REJECTED_HELP,
    STORAGE_COUNTERS,
    TRANSPORT_COUNTERS,
)

SOURCE = Path(__file__).parents[1] / "src" / "leafdb"

HEAD = """\
# Metrics

`http://HOST:7413/metrics` of each node, in Prometheus' text form. Made by `tools/metrics_reference.py` from the tables
the node counts with; a test keeps them equal. No label holds a key or an address. Counters begin at 0 with the
process. Beside them stand `leafdb_process_...`: CPU seconds, resident memory, open files, start time of the process.

What to watch, and what to do about it, is told in [when something is wrong](trouble.md).

"""

UNMOVED = " *Not counted yet in this version: always 0.*"
UNREAD = " *Not shown yet in this version.*"


def source_text() -> str:
    """Every module of the package, in one string."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(SOURCE.rglob("*.py")))


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def table(heading: str, rows: Iterable[str]) -> str:
    """A section with its table."""
    return "\n".join([f"## {heading}", "", row("Metric", "Labels", ""), row("---", "---", "---"), *rows, "", ""])


def render() -> str:
    """The whole page."""
    text = source_text()
    return (
        HEAD + table("Counters", counters(text)) + table("Gauges", gauges(text)) + table("Histograms", histograms(text))
    )


def counters(text: str) -> list[str]:
    """One row for each counter's name."""
    rows = []
    for metric, group in groupby(COUNTERS, key=lambda counted: counted.metric):
        members = list(group)
        moved = [moves(text, counted.attribute) for counted in members]
        labels = ", ".join(f"{name}={value}" for counted in members for name, value in counted.labels)
        idle = [value for counted, is_moved in zip(members, moved, strict=True) if not is_moved
                for _, value in counted.labels]  # fmt: skip
        note = UNMOVED if not any(moved) else f" *Not counted yet: {', '.join(idle)}.*" if idle else ""
        rows.append(row(f"`{metric}`", labels, members[0].help + note))
    reasons = ", ".join(sorted(str(reason) for reason in Reason))
    rows.append(row(f"`{REJECTED}`", f"reason={reasons}", REJECTED_HELP))
    return rows


def gauges(text: str) -> list[str]:
    """One row for each gauge."""
    return [
        row(f"`{gauge.metric}`", gauge.label, gauge.help + ("" if f'watch("{name}"' in text else UNREAD))
        for name, gauge in GAUGES.items()
    ] + [row(f"`{BUILD_INFO}`", "version", "Always 1: which version this is.")]


def histograms(text: str) -> list[str]:
    """One row for each histogram's name."""
    rows = []
    for metric, group in groupby(HISTOGRAMS, key=lambda measured: measured.metric):
        members = list(group)
        labels = ", ".join(f"{name}={value}" for measured in members for name, value in measured.labels)
        seen = [re.search(rf"metrics\.{measured.attribute}\b", text) for measured in members]
        rows.append(row(f"`{metric}`", labels, members[0].help + ("" if all(seen) else UNMOVED)))
    return rows


def moves(text: str, attribute: str) -> bool:
    """Whether some code counts it: on a Metrics, or in the transport or the engine, which count for themselves."""
    if attribute in STORAGE_COUNTERS:
        return f"def {STORAGE_COUNTERS[attribute]}(self) -> int:" in text
    if attribute in TRANSPORT_COUNTERS:
        return f"counters.{TRANSPORT_COUNTERS[attribute]} +=" in text
    if f'{{"{attribute}": "' in text:
        return True
    return re.search(rf"(?:metrics|self)\.{attribute} (?:\+=|= (?!0\n))", text) is not None


if __name__ == "__main__":
    sys.stdout.write(render())
