"""`leafdb cluster plan|commit|clear|abort`: look at what is staged, do exactly that, or do not.

A plan has an id, a digest of everything it comes from and comes to. `commit` names it: had anything changed since it
was looked at, the id is another and nothing is done (exit code 8).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb.errors import NotApplied, Reason
from leafdb_cli import exits
from leafdb_cli.cluster_stage import show_plan
from leafdb_cli.exits import Quit
from leafdb_cli.plan_view import PlanView, phase_text
from leafdb_cli.session import Session, session_of
from leafdb_cli.transfer_progress import close, wait_for_end

PLAN_TIMEOUT_S: Final = 15.0
PLAN_ID_DIGITS: Final = 32

PLAN_ID = Annotated[str, typer.Argument(metavar="PLAN_ID", help="What `leafdb cluster plan` shows.")]


def plan(
    ctx: typer.Context,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the ring, now and then, into this file.")
    ] = None,
) -> None:
    """Show what is staged, or in progress.

    The ring to be, who owns what, what moves, how safe each step is, and what to type next.

    Example: leafdb cluster plan --svg plan.svg
    """
    session = session_of(ctx)
    found = ask_plan(session)
    if svg is not None:
        draw(session, found, svg)
    show_plan(session, found, *next_commands(session, found))


def commit(
    ctx: typer.Context,
    plan_id: PLAN_ID,
    force: Annotated[
        bool, typer.Option("--force", help="Even where acknowledged writes may be lost; asks for the cluster's name.")
    ] = False,
    understood: Annotated[
        bool, typer.Option("--i-understand-data-loss", help="With --yes: do it without asking.")
    ] = False,
) -> None:
    """Carry out the plan of this id.

    And no other: 8 when what is staged has changed since. With --wait, until it is over: 0 when it is done, 1 when it
    was given up. With --dry-run, whether it could be done.

    Example: leafdb cluster commit 3f9c2a17d04be8f1a2b3c4d5e6f70812 --wait
    """
    session = session_of(ctx, dry_run=True)
    wanted = parse_plan_id(plan_id)
    examined = None
    if session.options.dry_run or force or session.options.wait:
        examined = examine(session, wanted)
        if session.options.dry_run:
            _tell(session, examined, force=force)
            return
        if force and examined.refusals and not examined.in_progress:
            cluster = str(session.ask("status")["cluster"])
            session.confirm_loss(cluster, _losses(examined), understood=understood)
    reply = session.ask("cluster.commit", {"plan_id": wanted, "force": force}, changes=True, timeout_s=PLAN_TIMEOUT_S)
    session.note(f"plan {wanted.hex()} is in progress since epoch {reply['epoch']}")
    if not session.options.wait or examined is None:
        session.note("leafdb transfer list --watch follows it, leafdb cluster abort gives it up")
        return
    close(session, examined, done=wait_for_end(session, examined, int(reply["epoch"])))


def clear(ctx: typer.Context) -> None:
    """Forget everything that is staged.

    A plan in progress is not touched: that is `abort`.

    Example: leafdb cluster clear
    """
    session = session_of(ctx)
    session.ask("cluster.clear", changes=True, timeout_s=PLAN_TIMEOUT_S)
    session.note("nothing is staged any more")


def abort(
    ctx: typer.Context,
    plan_id: Annotated[
        str, typer.Argument(metavar="PLAN_ID", help="This plan and no other; otherwise whichever is in progress.")
    ] = "",
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="NODE", help="Do not wait for this one: it will never be back. Repeatable."),
    ] = None,
) -> None:
    """Give the plan in progress up.

    The ring becomes what it was and nothing is lost; who was joining is sent away and may try again. With --wait, until
    that is over. A plan on its way back waits for members that are down; when one is gone for good, abort once more and
    name it.

    Example: leafdb cluster abort --without dev-3 --wait
    """
    session = session_of(ctx)
    args: dict[str, Any] = {"plan_id": parse_plan_id(plan_id)} if plan_id else {}
    if without:
        args["without"] = without
    examined = ask_plan(session) if session.options.wait else None
    if examined is not None and not examined.in_progress:
        raise NotApplied("no plan is in progress", reason=Reason.NO_PLAN)
    reply = session.ask("cluster.abort", args, changes=True, timeout_s=PLAN_TIMEOUT_S)
    if phase_text(reply.get("phase")):
        session.note("the plan is on its way back: reads are at the old owners again, and writes follow")
        if without:
            session.note(f"that has just been seen: abort once more not to wait for {', '.join(without)}")
    else:
        session.note("the plan was given up; the ring is as it was")
    if examined is not None:
        close(session, examined, done=wait_for_end(session, examined, int(reply["epoch"])), wanted=(False,))


def ask_plan(session: Session) -> PlanView:
    """The plan that is staged or in progress. Raises NotApplied(NOTHING_STAGED)."""
    return PlanView.from_wire(session.ask("cluster.plan", timeout_s=PLAN_TIMEOUT_S))


def examine(session: Session, plan_id: bytes) -> PlanView:
    """The plan of this id, as the server sees it now. Raises NotApplied(PLAN_STALE) when there is another or none."""
    try:
        found = ask_plan(session)
    except NotApplied as error:
        if error.reason is not Reason.NOTHING_STAGED:
            raise
        raise _stale(plan_id, "nothing is staged any more") from None
    if found.plan_id != plan_id.hex():
        state = "in progress" if found.in_progress else "what is staged now"
        raise _stale(plan_id, f"{found.plan_id} is {state}")
    return found


def _stale(plan_id: bytes, why: str) -> NotApplied:
    return NotApplied(f"plan {plan_id.hex()} is stale: {why}", reason=Reason.PLAN_STALE)


def parse_plan_id(text: str) -> bytes:
    """The bytes of a plan id as it is shown."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if 2 * len(found) != PLAN_ID_DIGITS:
        raise typer.BadParameter(
            f"{text!r} is no plan id: that is {PLAN_ID_DIGITS} hexadecimal digits, shown by `leafdb cluster plan`",
            param_hint="PLAN_ID",
        )
    return found


def next_commands(session: Session, found: PlanView) -> list[tuple[str, str]]:
    """What may be typed now, to the same nodes, and what it does."""
    options = session.options
    to = f" --node {options.node}" if options.node else f" --cluster {options.cluster}" if options.cluster else ""
    if found.in_progress:
        return [
            (f"leafdb{to} transfer list --watch", "follow it"),
            (f"leafdb{to} cluster abort {found.plan_id}", "go back, nothing is lost"),
        ]
    force = " --force" if found.refusals else ""
    return [
        (
            f"leafdb{to} cluster commit {found.plan_id}{force} --wait",
            "do it" + (", knowing what may be lost" if force else ""),
        ),
        (f"leafdb{to} cluster clear", "forget it"),
    ]


def draw(session: Session, found: PlanView, path: Path) -> None:
    """The drawing of a plan, into a file."""
    from leafdb_cli.ring_svg import ring_svg

    path.write_text(ring_svg(found), encoding="utf-8")
    session.note(f"drawn into {path}")


def _tell(session: Session, examined: PlanView, *, force: bool) -> None:
    """What a commit would do."""
    show_plan(session, examined)
    if examined.in_progress:
        session.note(f"plan {examined.plan_id} is in progress already")
    elif examined.refusals and not force:
        raise Quit(
            exits.FAILED,
            "this plan would be refused: acknowledged writes may be lost",
            "bring those owners back; or --force",
        )
    else:
        session.note(f"would commit plan {examined.plan_id}; nothing was done")


def _losses(examined: PlanView) -> list[str]:
    return ["acknowledged writes may be lost by this plan:", *(f"  x {refusal}" for refusal in examined.refusals)]
