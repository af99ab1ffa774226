"""`leafdb transfer`: the copies that a ring change makes, how far they are, how fast they may go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.plan_view import phase_text
from leafdb_cli.render import Column, human_bytes, human_seconds, joined
from leafdb_cli.session import Session, session_of
from leafdb_cli.transfer_progress import NO_PLAN, items_of, line_of, plan_of, view_of

app = typer.Typer(help="Copies that a ring change makes.", no_args_is_help=True, rich_markup_mode=None)

COLUMNS: Final = [
    Column("name"), Column("left", "exchanges left", right=True), Column("total", "of", right=True),
    Column("bytes_done", "copied", human_bytes, right=True), Column("bytes_left", "to copy", human_bytes, right=True),
    Column("bytes_per_s", "per second", human_bytes, right=True), Column("eta_s", "eta", human_seconds, right=True),
    Column("waiting_for", "waits for", lambda names: joined(names or ())),
]  # fmt: skip
LIMIT_COLUMNS: Final = [
    Column("name"), Column("bytes_per_s", "limit", lambda rate: f"{human_bytes(rate)}/s" if rate else "none")
]  # fmt: skip
LIMIT_TIMEOUT_S: Final = 15.0

_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(|B|KiB|MiB|GiB)(?:/s)?")
_SHIFTS: Final[Mapping[str, int]] = {"": 0, "B": 0, "KiB": 10, "MiB": 20, "GiB": 30}


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the nodes that fetch copies.

    How much, how fast, how long, and for whom they wait. With --watch until nothing is left to do.

    Example: leafdb transfer list --watch
    """
    session = session_of(ctx, watch=True)
    shown = [""]

    def show() -> Mapping[str, Any]:
        reply = session.ask("transfer.list")
        _print(session, reply, shown)
        return reply

    reply = session.watching(show, over=lambda reply: not plan_of(reply))
    if not plan_of(reply):
        session.note(NO_PLAN)


def _print(session: Session, reply: Mapping[str, Any], shown: list[str]) -> None:
    """The receivers. Watched without a terminal, a table again and again reads badly: then a line when it changes."""
    errors = reply.get("errors") or {}
    if session.options.watch and session.options.output == "table" and not session.output.pretty:
        line = line_of(reply)
        if line != shown[0] and plan_of(reply):
            shown[0] = line
            session.output.out.write(line + "\n")
            session.output.out.flush()
        return
    session.output.items(
        "TransferList",
        items_of(reply),
        COLUMNS,
        errors=errors,
        extra={
            "epoch": reply.get("epoch"),
            "plan_id": plan_of(reply),
            "phase": phase_text(reply.get("phase")),
            "waiting": [str(said) for said in reply.get("waiting") or ()],
        },
        pretty=(lambda: view_of(reply)) if plan_of(reply) else None,
    )


@app.command()
def limit(
    ctx: typer.Context,
    rate: Annotated[str, typer.Argument(metavar="BYTES_PER_S|none", help="As 20MiB, or none for no limit.")],
    only: Annotated[str, typer.Option("--only", metavar="NAME", help="On this member only.")] = "",
) -> None:
    """Bound how fast each node fetches copies.

    Until it is restarted; foreground work comes first anyway.

    Examples: leafdb transfer limit 20MiB, leafdb transfer limit none --only dev-2
    """
    session = session_of(ctx)
    bytes_per_s = parse_rate(rate)
    args: dict[str, Any] = {"bytes_per_s": bytes_per_s}
    if only:
        args["node"] = only
    reply = session.ask("transfer.limit", args, changes=True, timeout_s=LIMIT_TIMEOUT_S)
    errors: Mapping[str, str] = reply.get("errors") or {}
    items = [{"name": str(name), "bytes_per_s": bytes_per_s} for name in reply["nodes"]]
    session.output.items("TransferLimitList", items, LIMIT_COLUMNS, errors=errors, empty="no node took it")
    if errors:
        raise Quit(exits.FAILED, "not every node took the limit", exits.WHEN_BACK)


def parse_rate(text: str) -> int:
    """Bytes a second; 0 for no limit."""
    if text == "none":
        return 0
    match = _RATE.fullmatch(text.strip())
    rate = int(float(match[1]) * (1 << _SHIFTS[match[2]])) if match else 0
    if rate < 1:
        raise typer.BadParameter(f"{text!r} is neither a rate such as 20MiB or 500KiB/s nor none", param_hint="RATE")
    return rate
