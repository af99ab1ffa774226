"""`leafdb token`: long random texts that stand for a user. Made here, shown once; nodes keep a digest."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb_cli.options import parse_duration_s
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Tokens, by which programs log in.", no_args_is_help=True, rich_markup_mode=None)

CHANGE_TIMEOUT_S: Final = 15.0
MARK: Final = "leafdb_"
"""How every token begins, so that people and scanners of repositories know one when they see it."""
NAME = Annotated[str, typer.Argument(metavar="TOKEN", help="A name for the token.")]


def _time(expires_ms: int | None) -> str:
    return datetime.fromtimestamp(expires_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if expires_ms else "never"


COLUMNS: Final = [Column("name"), Column("user"), Column("expires_ms", "expires", show=_time)]


def _print(session: Session, items: list[Mapping[str, Any]]) -> None:
    session.output.items("TokenList", items, COLUMNS, empty="no tokens")


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every token by name; what it says cannot be seen again.

    Example: leafdb token list
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _print(session, list(session.ask("token.list")["tokens"])))


@app.command()
def create(
    ctx: typer.Context,
    token: NAME,
    user: Annotated[str, typer.Option("--user", metavar="USER", help="Whom the token stands for.")],
    expires: Annotated[str, typer.Option("--expires", metavar="TIME", help="How long it is good, or never.")] = "90d",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write it into this new file instead of showing it.")
    ] = None,
) -> None:
    """Make a token, shown this once. It is taken over TLS or loopback only.

    Example: leafdb token create backup-job --user backup --expires 30d --out backup.token
    """
    from leafdb.limits import TOKEN_BYTES
    from leafdb.ring.accounts import token_digest

    session = session_of(ctx)
    try:
        expires_ms = 0 if expires == "never" else round(1000 * (time.time() + parse_duration_s(expires)))
    except ValueError as error:
        raise typer.BadParameter(f"{error}, nor never", param_hint="--expires") from None
    text = MARK + base64.urlsafe_b64encode(os.urandom(TOKEN_BYTES)).decode().rstrip("=")
    if out is not None:
        # Before it counts: a token that could not be kept would be one that nobody has.
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
    args = {"name": token, "user": user, "digest": token_digest(text), "expires_ms": expires_ms}
    try:
        made = session.ask("token.create", args, changes=True, timeout_s=CHANGE_TIMEOUT_S)
    except BaseException:
        if out is not None:
            out.unlink(missing_ok=True)
        raise
    if out is None:
        sys.stdout.write(text + "\n")
        session.note(f"token {made['name']} of {made['user']}, good until {_time(made['expires_ms'])}: keep it now")
    else:
        _print(session, [made])


@app.command()
def drop(ctx: typer.Context, token: NAME) -> None:
    """Drop a token; who came with it may do nothing more.

    Example: leafdb token drop backup-job
    """
    session = session_of(ctx)
    session.ask("token.drop", {"name": token}, changes=True, timeout_s=CHANGE_TIMEOUT_S)
    session.note(f"dropped token {token}")
