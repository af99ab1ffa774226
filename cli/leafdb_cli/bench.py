"""`leafdb bench`: the load generator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import typer

from leafdb_cli.options import parse_duration_s, parse_size
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="The load generator.", no_args_is_help=True, rich_markup_mode=None)

CLEAR_LINE: Final = "\r\x1b[K"
WORKLOADS: Final = "put|get|mixed|ycsb-a..ycsb-f"

COLUMNS: Final = [
    Column("workload"), Column("connections", right=True), Column("ops_per_s", "ops/s", right=True),
    Column("p50_ms", "p50 ms", right=True), Column("p99_ms", "p99 ms", right=True),
    Column("p999_ms", "p99.9 ms", right=True), Column("errors", right=True),
    Column("client_cpu_us_per_op", "client us/op", right=True),
    Column("server_cpu_us_per_op", "server us/op", right=True),
]  # fmt: skip


@app.callback()
def noun() -> None:
    """The load generator."""


@app.command()
def run(
    ctx: typer.Context,
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help=WORKLOADS)],
    connections: Annotated[int, typer.Option("--connections", "-c", help="With one request in flight each.")] = 48,
    value_size: Annotated[str, typer.Option("--value-size", metavar="SIZE", help="Bytes of a value.")] = "100",
    duration: Annotated[str, typer.Option("--duration", metavar="TIME", help="How long it is measured.")] = "20s",
    keys: Annotated[int, typer.Option("--keys", help="How many keys there are.")] = 100_000,
    n: Annotated[int, typer.Option("--n", help="Replicas of a key.")] = 3,
    r: Annotated[int, typer.Option("--r", help="Replicas a read waits for.")] = 2,
    w: Annotated[int, typer.Option("--w", help="Replicas a write waits for.")] = 2,
    durability: Annotated[str, typer.Option("--durability", help="periodic or always.")] = "periodic",
    seed: Annotated[int, typer.Option("--seed", help="Draw the same keys again; 0: different ones.")] = 0,
    sync_dir: Annotated[
        Path | None, typer.Option("--sync-dir", metavar="DIR", help="Where fdatasync is measured with always.")
    ] = None,
) -> None:
    """Load the cluster and say what it bore. Makes a bucket of its own and drops it at the end.

    Reads find their keys loaded before; the first seconds are not counted. Server CPU is that of every leafdbd and its
    worker together, where they run on this machine.

    Example: leafdb bench run ycsb-a --keys 1000000 --connections 96
    """
    from leafdb_cli.workloads.connections import Manner
    from leafdb_cli.workloads.run import Plan
    from leafdb_cli.workloads.run import run as run_plan

    session = session_of(ctx)
    try:
        size, duration_s = parse_size(value_size), parse_duration_s(duration)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    plan = Plan(
        workload=workload,
        connections=connections,
        value_size=size,
        duration_s=duration_s,
        keys=keys,
        n=n,
        r=r,
        w=w,
        durability=cast(Literal["always", "periodic"], durability),
        seed=seed,
        sync_directory=None if sync_dir is None else os.fspath(sync_dir),
    )
    with session.client(routing="listed", timeout_s=10.0) as client:
        try:
            figures = run_plan(client, plan, _teller(session), Manner(session.client_tls(), session.auth))
        finally:
            if session.output.err.isatty():
                session.output.err.write(CLEAR_LINE)
    report(session, figures)


def report(session: Session, figures: dict[str, Any]) -> None:
    """Print the figures, and what a person should know beside them."""
    session.output.items("BenchList", [figures], COLUMNS)
    if figures["errors"]:
        listing = ", ".join(f"{count} {reason}" for reason, count in figures["errors_by_reason"].items())
        session.note(f"errors: {listing}")
    if figures["fdatasync_p50_ms"] is not None:
        session.note(f"fdatasync of 4 KiB on this disk: {figures['fdatasync_p50_ms']} ms (median)")


def _teller(session: Session) -> Any:
    """One line that is written over, on a terminal. A bar's own thread would take the interpreter from the loop."""
    err = session.output.err
    if not err.isatty():
        return lambda phase, done, total: None

    def tell(phase: str, done: float, total: float) -> None:
        share = min(1.0, done / total) if total else 1.0
        filled = round(30 * share)
        err.write(f"{CLEAR_LINE}{phase:<10} {'━' * filled}{'╌' * (30 - filled)} {100 * share:3.0f} %")
        err.flush()

    return tell
