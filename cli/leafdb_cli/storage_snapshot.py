"""`leafdb storage snapshot`: moments of the members' stores, kept beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column, human_bytes, human_seconds
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Moments of the stores, kept beside them.", no_args_is_help=True, rich_markup_mode=None)

TIMEOUT_S: Final = 60.0
"""A snapshot waits for its node to bring what is in memory into tables."""
COLUMNS: Final = [
    Column("node"), Column("name"), Column("age_s", "age", human_seconds, right=True),
    Column("files", right=True, spare=1), Column("bytes", "size", human_bytes, right=True),
    Column("problem", show=lambda problem: problem or "-"),
]  # fmt: skip
DROPPED_COLUMNS: Final = [Column("node", "dropped on")]

NAME = Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '-', '_' and '.', at most 64.")]
ONLY = Annotated[str, typer.Option("--only", metavar="NODE", help="On this member only.")]


@app.command()
def create(
    ctx: typer.Context,
    name: NAME,
    bucket: Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="This bucket only.")] = "",
    only: ONLY = "",
) -> None:
    """Keep what every member holds now, under a name.

    What is in memory is written to disk first. It costs no room until the store has moved on, lies on the same disk
    as the store and is no backup.

    Examples: leafdb storage snapshot create before-upgrade, leafdb storage snapshot create monday --bucket carts
    """
    session = session_of(ctx)
    args = {"name": name, **_named(bucket=bucket, node=only)}
    reply = session.ask("snapshots.create", args, changes=True, timeout_s=TIMEOUT_S)
    _print(session, reply)
    if reply.get("errors"):
        raise Quit(
            exits.FAILED,
            "not every member has made it; of those that have, it stays",
            "leafdb storage snapshot list says who has it",
        )


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the snapshots of all members, and what disk they cost.

    Example: leafdb storage snapshot list
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session))


def _show(session: Session) -> None:
    reply = session.ask("snapshots.list")
    held: Mapping[str, int] = reply["held"]
    _print(session, reply, {"held": dict(held)})
    if session.options.output == "table":
        for name, size in held.items():
            if size:
                session.note(f"{name} keeps {human_bytes(size)} on disk for snapshots alone")


@app.command()
def drop(ctx: typer.Context, name: NAME, only: ONLY = "") -> None:
    """Take a snapshot away, on all members that have it or on one.

    Example: leafdb storage snapshot drop before-upgrade
    """
    session = session_of(ctx)
    reply = session.ask("snapshots.drop", {"name": name, **_named(node=only)}, changes=True, timeout_s=TIMEOUT_S)
    errors: Mapping[str, str] = reply.get("errors") or {}
    session.output.items(
        "SnapshotDropList", [{"node": each} for each in reply["dropped"]], DROPPED_COLUMNS, errors=errors
    )
    if errors:
        raise Quit(
            exits.FAILED,
            "not every member could be asked, or could drop it",
            "leafdb storage snapshot list says who has it still",
        )


def _named(**options: str) -> dict[str, str]:
    return {name: value for name, value in options.items() if value}


def _print(session: Session, reply: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> None:
    errors: Mapping[str, str] = reply.get("errors") or {}
    session.output.items(
        "SnapshotList", reply["snapshots"], COLUMNS, errors=errors, extra=extra or {}, empty="no snapshots"
    )
