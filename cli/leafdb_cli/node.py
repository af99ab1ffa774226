"""`leafdb node`: the members, each with what it says of itself."""

from __future__ import annotations

from typing import Final

import typer

from leafdb_cli.render import Column, human_bytes, human_seconds
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="The members of the cluster.", no_args_is_help=True, rich_markup_mode=None)

STATE_STYLES: Final = {"alive": "green", "suspect": "yellow", "draining": "yellow"}


def state_style(state: object) -> str:
    """How a node's state looks."""
    return STATE_STYLES.get(str(state), "bold red")


COLUMNS: Final = [
    Column("name"), Column("id", right=True), Column("state", style=state_style), Column("host"), Column("zone"),
    Column("client"), Column("version"), Column("uptime_s", "uptime", human_seconds),
    Column("memory_bytes", "memory", human_bytes), Column("pid", right=True),
]  # fmt: skip


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every member: its state, its addresses, its process."""
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session))


def _show(session: Session) -> None:
    reply = session.ask("node.list")
    session.output.items("NodeList", reply["nodes"], COLUMNS, errors=reply.get("errors") or {})
