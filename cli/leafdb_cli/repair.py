"""`leafdb repair`: anti-entropy on demand, and how far each run is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column, human_bytes
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Anti-entropy between replicas.", no_args_is_help=True, rich_markup_mode=None)

WAIT_S: Final = 300.0
POLL_S: Final = 0.25
ENDED: Final = frozenset({"done", "failed", "cancelled"})


def _state_style(state: object) -> str:
    return {"done": "green", "failed": "bold red"}.get(str(state), "yellow")


COLUMNS: Final = [
    Column("node"), Column("task"), Column("state", style=_state_style), Column("partitions_done", "done", right=True),
    Column("partitions_total", "of", right=True), Column("keys_differing", "differing", right=True),
    Column("keys_sent", "sent", right=True), Column("keys_received", "received", right=True),
    Column("bytes", "size", human_bytes, right=True), Column("last_error"),
]  # fmt: skip


@app.command()
def run(
    ctx: typer.Context,
    bucket: Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="This bucket only.")] = "",
    member: Annotated[str, typer.Option("--only", metavar="NAME", help="On this member only.")] = "",
) -> None:
    """Start an exchange of every range between its replicas. With --wait, return when all of it is done."""
    session = session_of(ctx)
    args = {name: value for name, value in (("bucket", bucket), ("node", member)) if value}
    with session.client(routing="listed") as client:
        if member and member not in {node["name"] for node in client.admin("node.list")["nodes"]}:
            raise Quit(exits.NOT_FOUND, f"there is no node {member!r}")
        reply = client.admin("repair.run", args, changes=True)
        tasks: Mapping[str, Any] = reply.get("tasks", {})
        errors: Mapping[str, str] = reply.get("errors") or {}
        if not session.options.wait:
            items = [{"node": name, "task": task} for name, task in tasks.items()]
            session.output.items("RepairTaskList", items, COLUMNS[:2], errors=errors)
            return
        repairs = _wait(client, tasks, time.monotonic() + session.timeout_s(WAIT_S))
    _print(session, repairs, errors)
    if errors or any(repair["state"] != "done" for repair in repairs):
        raise Quit(exits.FAILED, "not every repair was done")


def _wait(client: Any, tasks: Mapping[str, Any], deadline: float) -> list[Mapping[str, Any]]:
    """The repairs of these tasks, once all have ended."""
    wanted = {(name, str(task)) for name, task in tasks.items()}
    while True:
        found = [
            repair
            for repair in client.admin("repair.status", timeout=5.0)["repairs"]
            if (repair["node"], str(repair["task"])) in wanted
        ]
        if all(repair["state"] in ENDED for repair in found) and len(found) == len(wanted):
            return found
        if time.monotonic() >= deadline:
            raise Quit(exits.UNAVAILABLE, "the repairs are still running: see leafdb repair status")
        time.sleep(POLL_S)


@app.command()
def status(ctx: typer.Context) -> None:
    """List every repair the cluster knows of."""
    session = session_of(ctx, watch=True)

    def show() -> None:
        reply = session.ask("repair.status")
        _print(session, reply["repairs"], reply.get("errors") or {})

    session.watching(show)


def _print(session: Session, repairs: Sequence[Mapping[str, Any]], errors: Mapping[str, str]) -> None:
    session.output.items("RepairList", repairs, COLUMNS, errors=errors, empty="no repairs")
