"""`leafdb hints`: writes that wait for a node that was away. Drained: no items, and nobody who could not be asked."""

from __future__ import annotations

from typing import Final

import typer

from leafdb_cli.render import Column, human_bytes, human_seconds
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Writes kept for nodes that were away.", no_args_is_help=True, rich_markup_mode=None)

COLUMNS: Final = [
    Column("holder"), Column("target"), Column("records", right=True), Column("bytes", "size", human_bytes, right=True),
    Column("oldest_age_s", "oldest", human_seconds, right=True),
]  # fmt: skip


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the hints of the whole cluster: who holds how many for whom."""
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session))


def _show(session: Session) -> None:
    reply = session.ask("hints.list")
    session.output.items("HintList", reply["hints"], COLUMNS, errors=reply.get("errors") or {}, empty="no hints")
