"""`leafdb repair schedule`: how old comparisons may get, and whether they come by themselves."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.options import parse_duration_s
from leafdb_cli.repair_view import SCHEDULE_COLUMNS, schedule_text
from leafdb_cli.session import Session, session_of

app = typer.Typer(
    help="When ranges are compared by themselves; without a verb, show it.\n\nExample: leafdb repair schedule",
    invoke_without_command=True,
    rich_markup_mode=None,
)

CONFIGURED: Final = "configured"

ONLY = Annotated[str, typer.Option("--only", metavar="NAME", help="On this member only.")]


@app.callback()
def schedule(ctx: typer.Context) -> None:
    """When ranges are compared by themselves; without a verb, show it."""
    if ctx.invoked_subcommand is None:
        show(ctx)


@app.command()
def show(ctx: typer.Context) -> None:
    """Show what is promised, how old the oldest comparison is, and what is too old and why.

    Example: leafdb repair schedule show
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _schedules(session, {}))


@app.command("set")
def set_(
    ctx: typer.Context,
    age: Annotated[str, typer.Argument(metavar="AGE|configured", help="As 12h; or what the configuration says.")],
    only: ONLY = "",
) -> None:
    """Promise another age: every range is compared with its other replicas within it.

    It outlives restarts.

    Examples: leafdb repair schedule set 6h, leafdb repair schedule set configured
    """
    session = session_of(ctx)
    try:
        age_s = 0 if age == CONFIGURED else int(parse_duration_s(age))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="AGE") from None
    _change(session, {"age_s": age_s}, only)


@app.command()
def pause(ctx: typer.Context, only: ONLY = "") -> None:
    """Compare nothing by itself any more, also after restarts.

    What is owed for a reason, as after an absence, goes on.

    Example: leafdb repair schedule pause --only dev-1
    """
    _change(session_of(ctx), {"paused": True}, only)


@app.command()
def resume(ctx: typer.Context, only: ONLY = "") -> None:
    """Go on comparing.

    Example: leafdb repair schedule resume
    """
    _change(session_of(ctx), {"paused": False}, only)


def _change(session: Session, args: dict[str, Any], only: str) -> None:
    reply = _schedules(session, args | ({"node": only} if only else {}))
    if reply.get("errors"):
        raise Quit(exits.FAILED, "not every node took it", exits.WHEN_BACK)


def _schedules(session: Session, args: dict[str, Any]) -> dict[str, Any]:
    reply = dict(session.ask("repair.schedule", args, changes=bool(args)))
    session.output.items("RepairScheduleList", reply["schedules"], SCHEDULE_COLUMNS, errors=reply.get("errors") or {})
    if session.output.pretty:
        for said in schedule_text(reply["schedules"]):
            session.note(said)
    return reply
