"""`leafdb ring simulate|history`: what a change would come to, without staging it; and what the ring went through."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb_cli.cluster_plan import draw
from leafdb_cli.cluster_stage import show_plan, simulated
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

NEWCOMER_FIELDS: Final = ("host", "zone", "weight")
SIMULATED_MAX: Final = 256


def when_text(at_ms: Any) -> str:
    """A moment in this machine's time zone, to the second; a dash when nobody knows."""
    return datetime.fromtimestamp(int(at_ms) / 1000).astimezone().isoformat(" ", "seconds") if at_ms else "-"


HISTORY_COLUMNS: Final = [Column("epoch", right=True), Column("at_ms", "when", when_text), Column("what")]


def simulate(
    ctx: typer.Context,
    join: Annotated[
        list[str] | None,
        typer.Option("--join", metavar="SPEC", help="NAME[,host=H][,zone=Z][,weight=W] joins; repeat."),
    ] = None,
    leave: Annotated[list[str] | None, typer.Option("--leave", metavar="NODE", help="A member leaves; repeat.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option("--force-remove", metavar="NODE", help="A member is given up as dead; repeat.")
    ] = None,
    replace: Annotated[
        list[str] | None,
        typer.Option("--replace", metavar="NODE=SPEC", help="A member gives everything to a new one; repeat."),
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the ring, now and then.")] = None,
) -> None:
    """Show what changes would come to.

    As `cluster plan` does. Nothing is staged, and what is staged does not count.

    Example: leafdb ring simulate --join d,zone=rack-2 --join e,zone=rack-3,weight=2 --leave a
    """
    session = session_of(ctx)
    changes: list[dict[str, Any]] = [{"change": "join", **parse_newcomer(spec)} for spec in join or ()]
    changes += [_replacement(spec) for spec in replace or ()]
    changes += [{"change": "leave", "node": node} for node in leave or ()]
    changes += [{"change": "force-remove", "node": node} for node in remove or ()]
    if not changes:
        raise typer.BadParameter("nothing would change: give --join, --leave, --replace or --force-remove")
    if len(changes) > SIMULATED_MAX:
        raise typer.BadParameter(f"at most {SIMULATED_MAX} changes at once")
    found = simulated(session, *changes)
    if svg is not None:
        draw(session, found, svg)
    show_plan(session, found)


def parse_newcomer(spec: str) -> dict[str, Any]:
    """A newcomer from `NAME[,host=H][,zone=Z][,weight=W]`; its host is its name unless said. Raises BadParameter."""
    name, *rest = spec.split(",")
    fields: dict[str, Any] = {"name": name, "host": name, "zone": "default", "weight": 1}
    for part in rest:
        field, equals, value = part.partition("=")
        if field not in NEWCOMER_FIELDS or not equals or not value:
            raise typer.BadParameter(f"{part!r} in {spec!r} is none of {'=, '.join(NEWCOMER_FIELDS)}=")
        fields[field] = value
    weight = str(fields["weight"])
    if not name or "=" in name or not (weight.isascii() and weight.isdigit()) or int(weight) < 1:
        raise typer.BadParameter(f"{spec!r} is not NAME[,host=H][,zone=Z][,weight=W] with a weight of 1 or more")
    return {**fields, "weight": int(weight)}


def _replacement(spec: str) -> dict[str, Any]:
    node, equals, newcomer = spec.partition("=")
    if not node or not equals or not newcomer:
        raise typer.BadParameter(f"{spec!r} is not NODE=NAME[,host=H][,zone=Z][,weight=W]")
    return {"change": "replace", "node": node, **parse_newcomer(newcomer)}


def history(ctx: typer.Context) -> None:
    """List what the ring went through.

    As far as the asked node remembers, the newest last.

    Example: leafdb ring history
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _print(session, session.ask("ring.history")))


def _order(item: Mapping[str, Any]) -> tuple[int, int]:
    return int(item.get("generation", 1)), int(item["epoch"])


def _print(session: Session, reply: Mapping[str, Any]) -> None:
    items = sorted((dict(item) for item in reply["items"]), key=_order)
    session.output.items("RingHistoryList", items, HISTORY_COLUMNS, empty="no history")
