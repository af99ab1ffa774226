"""`leafdb cluster stage`: what the ring shall change into, said piece by piece. Nothing moves before a commit.

Whoever says force-remove says that a node is dead: its copies are not waited for and its number is banned for good. So
that one shows what the cluster thinks of it, evaluated by the server, and has the node's name typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from leafdb_cli.plan_screen import plain, plan_lines, pretty
from leafdb_cli.plan_view import PlanView
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(
    help="Say what the ring shall change into; nothing moves before a commit.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

STAGE_TIMEOUT_S: Final = 15.0
"""A newcomer is asked who it is, and the register is changed."""

COLUMNS: Final = [Column("change")]

ADDRESS = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="HOST:PORT on which the new node listens for peers (7412).")
]
NODE = Annotated[str, typer.Argument(metavar="NODE", help="A member's name or number.")]


@app.command()
def join(ctx: typer.Context, address: ADDRESS) -> None:
    """Let a node join.

    It runs with the cluster's secret and belongs to no cluster yet.

    Example: leafdb cluster stage join 10.0.0.4:7412
    """
    _stage(session_of(ctx), {"change": "join", "address": address})


@app.command()
def leave(ctx: typer.Context, node: NODE) -> None:
    """Let a member give everything away and go.

    It serves until the end, and goes for good. With --dry-run, what that alone would do.

    Example: leafdb cluster stage leave dev-2
    """
    session = session_of(ctx, dry_run=True)
    change = {"change": "leave", "node": node}
    if session.options.dry_run:
        show_plan(session, simulated(session, change))
        return
    _stage(session, change)


@app.command("force-remove")
def force_remove(
    ctx: typer.Context,
    node: NODE,
    understood: Annotated[
        bool, typer.Option("--i-understand-data-loss", help="With --yes: do it without asking.")
    ] = False,
) -> None:
    """Give a dead member up.

    Nobody waits for it, and what it alone holds is lost: while it lives, let it leave. Asks for its name. With
    --dry-run, what that alone would do.

    Example: leafdb cluster stage force-remove dev-2
    """
    session = session_of(ctx, dry_run=True)
    change = {"change": "force-remove", "node": node}
    plan = simulated(session, change)
    if session.options.dry_run:
        show_plan(session, plan)
        return
    name = next((share.name for share in plan.shares if node in (share.name, str(share.node))), node)
    session.confirm_loss(name, losses(plan, name), understood=understood)
    _stage(session, change)


@app.command()
def replace(ctx: typer.Context, node: NODE, address: ADDRESS) -> None:
    """Let a new node take exactly what a member has.

    The member, dead or alive, goes for good.

    Example: leafdb cluster stage replace dev-2 10.0.0.4:7412
    """
    _stage(session_of(ctx), {"change": "replace", "node": node, "address": address})


def simulated(session: Session, *changes: Mapping[str, Any]) -> PlanView:
    """The plan that those changes alone would make. Raises NotApplied when they could not be staged."""
    reply = session.ask("ring.simulate", {"changes": [dict(change) for change in changes]}, timeout_s=STAGE_TIMEOUT_S)
    return PlanView.from_wire(reply, simulated=True)


def losses(plan: PlanView, name: str) -> list[str]:
    """What a person should read before the name is typed."""
    lines = [f"{name} would be given up as dead: what it alone holds is lost, and it never comes back as it was"]
    lines += [f"  x {refusal}" for refusal in plan.refusals]
    lines += [f"  ! {warning}" for warning in plan.warnings]
    if not plan.refusals:
        lines.append("  of every range a majority of the owners is alive without it")
    return [*lines, "staging moves nothing yet: leafdb cluster plan shows it again, leafdb cluster clear takes it back"]


def show_plan(session: Session, plan: PlanView, *commands: tuple[str, str]) -> None:
    """A plan in whatever form was asked for; `commands` may be typed next."""
    lines = plan_lines(plan, commands)
    item = plan.item()
    if commands:
        item["next"] = [command for command, _ in commands]
    session.output.items("PlanList", [item], [], pretty=lambda: pretty(lines), plain=lambda: plain(lines))


def _stage(session: Session, change: Mapping[str, Any]) -> None:
    reply = session.ask("cluster.stage", change, changes=True, timeout_s=STAGE_TIMEOUT_S)
    items = [{"change": str(text)} for text in reply["staged"]]
    session.output.items("StagedChangeList", items, COLUMNS, extra={"epoch": reply["epoch"]})
    session.note("nothing has moved: leafdb cluster plan shows what this comes to")
