"""`leafdb hints`: writes that wait for a node that was away. Drained: no items, and nobody who could not be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column, human_bytes, human_seconds
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Writes kept for nodes that were away.", no_args_is_help=True, rich_markup_mode=None)

PURGE_TIMEOUT_S: Final = 120.0
COLUMNS: Final = [
    Column("holder"), Column("target"), Column("records", right=True),
    Column("fallback_records", "that counted", right=True, spare=1),
    Column("bytes", "size", human_bytes, right=True), Column("oldest_age_s", "oldest", human_seconds, right=True),
    Column("paused"),
]  # fmt: skip
PAUSED_COLUMNS: Final = [Column("holder"), Column("paused", "delivers nothing to", show=lambda names: names or "-")]
PURGED_COLUMNS: Final = [
    Column("holder"), Column("records", right=True), Column("fallback_records", "that counted", right=True),
    Column("bytes", "size", human_bytes, right=True), Column("ranges", "ranges marked", right=True),
    Column("kept", right=True),
]  # fmt: skip

TARGET = Annotated[str, typer.Argument(metavar="[TARGET]", help="For this node; otherwise for all.")]
ONLY = Annotated[str, typer.Option("--only", metavar="HOLDER", help="What this member keeps only.")]


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List the hints of the whole cluster: who holds how many for whom.

    Example: leafdb hints list --watch
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session))


def _show(session: Session) -> None:
    reply = session.ask("hints.list")
    paused: Mapping[str, str] = reply.get("paused") or {}
    session.output.items(
        "HintList",
        reply["hints"],
        COLUMNS,
        errors=reply.get("errors") or {},
        extra={"paused": dict(paused)},
        empty="no hints",
    )
    if session.options.output == "table":
        for holder, names in paused.items():
            session.note(f"{holder} was told to deliver nothing to {names}: leafdb hints resume")


@app.command()
def pause(ctx: typer.Context, target: TARGET = "", only: ONLY = "") -> None:
    """Deliver no hints for now.

    They are kept as before, until they are too old or too many; then anti-entropy does their work. Restarts do not
    change it.

    Examples: leafdb hints pause, leafdb hints pause dev-2
    """
    _hold(session_of(ctx), target, only, paused=True)


@app.command()
def resume(ctx: typer.Context, target: TARGET = "", only: ONLY = "") -> None:
    """Deliver hints again.

    Examples: leafdb hints resume, leafdb hints resume dev-2
    """
    _hold(session_of(ctx), target, only, paused=False)


def _hold(session: Session, target: str, only: str, *, paused: bool) -> None:
    reply = session.ask("hints.pause", {"paused": paused, **_named(target, only)}, changes=True)
    items = [{"holder": name, "paused": names} for name, names in reply["nodes"].items()]
    errors: Mapping[str, str] = reply.get("errors") or {}
    session.output.items("HintPauseList", items, PAUSED_COLUMNS, errors=errors)
    if errors:
        raise Quit(exits.FAILED, "not every node was told; whoever is away goes on as it was", exits.WHEN_BACK)


@app.command()
def purge(
    ctx: typer.Context,
    target: TARGET = "",
    only: ONLY = "",
    keep_counted: Annotated[
        bool, typer.Option("--keep-counted", help="Leave the copies that counted for a write.")
    ] = False,
    understood: Annotated[
        bool, typer.Option("--i-understand-data-loss", help="With --yes: do it without asking.")
    ] = False,
) -> None:
    """Give hints up instead of delivering them.

    Their ranges are marked first, so anti-entropy brings their target what they had. A copy that counted for a
    write may be all that is left of it: losing those has the cluster's name typed. With --dry-run, what it would be.

    Examples: leafdb hints purge dev-2 --dry-run, leafdb hints purge dev-2 --keep-counted
    """
    session = session_of(ctx, dry_run=True)
    named = _named(target, only)
    would = session.ask("hints.purge", {"dry": True, **named}, timeout_s=PURGE_TIMEOUT_S)
    if session.options.dry_run:
        _print(session, would)
        session.note("nothing was done")
        return
    counted = sum(int(line["fallback_records"]) for line in would["purged"].values())
    lose = bool(counted) and not keep_counted
    if lose:
        _confirm(session, counted, would["purged"], understood=understood)
    done = session.ask("hints.purge", {"lose": lose, **named}, changes=True, timeout_s=PURGE_TIMEOUT_S)
    _print(session, done)
    if done.get("errors"):
        raise Quit(exits.FAILED, "not every node could be asked", exits.WHEN_BACK)


def _confirm(session: Session, counted: int, purged: Mapping[str, Any], *, understood: bool) -> None:
    holders = ", ".join(sorted(name for name, line in purged.items() if line["fallback_records"]))
    losses = [
        f"{counted} copies on {holders} counted for their writes; of each it may be all that is left.",
        "Those writes were acknowledged, and are lost where no other replica has them. --keep-counted leaves them.",
    ]
    cluster = str(session.ask("status")["cluster"])
    session.confirm_loss(cluster, losses, understood=understood)


def _named(target: str, only: str) -> dict[str, str]:
    return {name: value for name, value in (("target", target), ("node", only)) if value}


def _print(session: Session, reply: Mapping[str, Any]) -> None:
    items = [{"holder": name, **line} for name, line in reply["purged"].items()]
    errors: Mapping[str, str] = reply.get("errors") or {}
    session.output.items("HintPurgeList", items, PURGED_COLUMNS, errors=errors, empty="there were none")
