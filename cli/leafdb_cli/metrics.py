"""`leafdb metrics`: all that a node counts; and dashboards and alert rules, made from the same definitions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


def labels_text(labels: Mapping[str, str]) -> str:
    """`op=put, ...`"""
    return ", ".join(f"{name}={value}" for name, value in labels.items())


COLUMNS: Final = [
    Column("metric"), Column("labels", show=labels_text),
    Column("value", show=lambda value: f"{value:.10g}", right=True),
]  # fmt: skip
OUT = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files go.")]
HERE: Final = Path()


@app.callback()
def metrics(
    ctx: typer.Context,
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="Only metrics with this in their names.")] = "",
    buckets: Annotated[bool, typer.Option("--buckets", help="The buckets of histograms as well.")] = False,
) -> None:
    """Show what the node that answers counts, as its /metrics page does.

    Example: leafdb metrics --name hints --watch
    """
    if ctx.invoked_subcommand is None:
        session = session_of(ctx, watch=True)
        session.watching(lambda: _show(session, name, buckets=buckets))


def _show(session: Session, name: str, *, buckets: bool) -> None:
    items = [dict(item) for item in session.ask("metrics.read")["samples"] if _wanted(item, name, buckets=buckets)]
    session.output.items("MetricList", items, COLUMNS, empty="no metric has that in its name")


def _wanted(item: Mapping[str, Any], name: str, *, buckets: bool) -> bool:
    return name in item["metric"] and (buckets or "le" not in item["labels"])


@app.command()
def dashboards(ctx: typer.Context, out: OUT = HERE) -> None:
    """Write three Grafana dashboards as JSON: overview, node, anti-entropy.

    Example: leafdb metrics dashboards --out /etc/grafana/dashboards
    """
    from leafdb_cli.monitoring_dashboards import dashboards, render

    _write(session_of(ctx), out, {f"{each.uid}.json": render(each) for each in dashboards()})


@app.command()
def rules(ctx: typer.Context, out: OUT = HERE) -> None:
    """Write alert rules for Prometheus, and the unit tests that promtool runs over them.

    Example: leafdb metrics rules --out /etc/prometheus/rules
    """
    from leafdb_cli.monitoring_rules import RULES_FILE, TESTS_FILE, render_rules, render_tests

    _write(session_of(ctx), out, {RULES_FILE: render_rules(), TESTS_FILE: render_tests()})


def _write(session: Session, out: Path, files: Mapping[str, str]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    items = []
    for name, text in files.items():
        path = out / name
        path.write_text(text, encoding="utf-8")
        items.append({"file": str(path), "bytes": len(text.encode())})
    session.output.items("FileList", items, [Column("file"), Column("bytes", right=True)])
