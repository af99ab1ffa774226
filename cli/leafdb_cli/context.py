"""`leafdb context`: saved connections, and which of them is meant when nothing else is said.

Where a command goes is decided by the first of these that says something: --node, --cluster, LEAFDB_NODE,
LEAFDB_CLUSTER, `leafdb context use`, and the default port of this machine. `leafdb context show` says which it was.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Final

import typer

from leafdb.errors import ConfigError
from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.options import where_of
from leafdb_cli.render import Column, joined
from leafdb_cli.saved import CURRENT, NONE, Saved, read_saved, saved_clusters_path, write_saved
from leafdb_cli.session import session_of

app = typer.Typer(help="Saved connections.", no_args_is_help=True, rich_markup_mode=None)

NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
COLUMNS: Final = [Column("name"), Column("current"), Column("nodes", show=joined)]
SHOWN_COLUMNS: Final = [Column("name"), Column("nodes", show=joined), Column("said_by", "said by")]

CONTEXT = Annotated[str, typer.Argument(metavar="CONTEXT", help="The name of a saved connection.")]


@app.command()
def add(
    ctx: typer.Context,
    name: CONTEXT,
    nodes: Annotated[list[str], typer.Argument(metavar="HOST:PORT...", help="Client addresses of any of its nodes.")],
    use: Annotated[bool, typer.Option("--use", help="Go there from now on when nothing else is said.")] = False,
    again: Annotated[bool, typer.Option("--replace", help="Fine if there is one of this name: change it.")] = False,
) -> None:
    """Save where a cluster is, under a name for --cluster.

    The file holds addresses and paths, never secrets, and is yours alone to read.

    Example: leafdb context add prod 10.0.0.1:7411 10.0.0.2:7411 --use
    """
    from leafdb.client.url import parse_address

    session = session_of(ctx)
    if not NAME_PATTERN.fullmatch(name) or name in (CURRENT, NONE):
        raise typer.BadParameter(
            f"{name!r} is no name: letters, digits, dots, dashes and underscores", param_hint="NAME"
        )
    saved = _saved()
    if name in saved.tables and not again:
        raise Quit(exits.FAILED, f"there is a saved connection {name} already", "--replace changes it")
    try:
        addresses = tuple(str(parse_address(part)) for text in nodes for part in text.split(","))
    except ConfigError as error:
        raise typer.BadParameter(error.message, param_hint="HOST:PORT") from None
    saved = saved.added(name, addresses)
    write_saved(saved.using(name) if use else saved)
    session.note(f"saved in {saved.path}: leafdb --cluster {name} status" + (", or without --cluster" if use else ""))


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the saved connections.

    Example: leafdb context list
    """
    session, saved = session_of(ctx), _saved()
    items = [
        {"name": name, "current": name == saved.current, "nodes": list(saved.nodes(name))} for name in saved.tables
    ]
    session.output.items("ContextList", items, COLUMNS, empty="none is saved: leafdb context add NAME HOST:PORT")


@app.command()
def use(ctx: typer.Context, name: CONTEXT) -> None:
    """Go there from now on when nothing else is said. `none`: to the default port of this machine again.

    Examples: leafdb context use prod, leafdb context use none
    """
    session, saved = session_of(ctx), _saved()
    if name == NONE:
        write_saved(saved.using(""))
        session.note("none is used any more")
        return
    nodes = _nodes(saved, name)
    write_saved(saved.using(name))
    session.note(f"{name} is used: {joined(nodes)}")


@app.command()
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="CONTEXT", help="A saved connection; otherwise the one in use.")] = "",
) -> None:
    """Show where commands go, and what says so.

    Examples: leafdb context show, leafdb --cluster prod context show
    """
    session = session_of(ctx)
    if name:
        item: dict[str, Any] = {"name": name, "nodes": list(_nodes(_saved(), name)), "said_by": "its name"}
    else:
        found = where_of(session.options)
        item = {"name": found.cluster or None, "nodes": list(found.nodes), "said_by": found.said_by}
    session.output.items("ContextList", [item], SHOWN_COLUMNS)


@app.command()
def remove(ctx: typer.Context, name: CONTEXT) -> None:
    """Forget a saved connection. Nothing happens to the cluster.

    Example: leafdb context remove prod
    """
    session, saved = session_of(ctx), _saved()
    _nodes(saved, name)
    write_saved(saved.removed(name))
    session.note(f"{name} is forgotten")


def _saved() -> Saved:
    return read_saved(saved_clusters_path(os.environ))


def _nodes(saved: Saved, name: str) -> tuple[str, ...]:
    """The addresses of one that must be there."""
    if name not in saved.tables:
        known = ", ".join(saved.tables) or "none"
        raise Quit(exits.NOT_FOUND, f"no saved connection {name!r}; there is {known}", "leafdb context add saves one")
    return saved.nodes(name)
