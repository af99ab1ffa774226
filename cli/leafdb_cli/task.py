"""`leafdb task`: long jobs of the nodes, whatever began them: repairs, jobs of a store, copies of a ring change.

Each has commands of its own (`repair`, `storage`, `transfer`, `cluster`), which say more. Here they are together: what
is going on, waiting for one by its name, taking one back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb.errors import NotApplied, Reason
from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.session import Session, session_of
from leafdb_cli.task_list import COLUMNS, ENDED, TRANSFER, detail_lines, found, is_task_name, share_text, task_items
from leafdb_cli.transfer_progress import close, wait_for_end

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

app = typer.Typer(help="Long jobs of the nodes.", no_args_is_help=True, rich_markup_mode=None)

WAIT_S: Final = 3_600.0
POLL_S: Final = 0.5
REQUEST_S: Final = 5.0
NO_TASK: Final = "leafdb task list --all names those that the nodes remember; a restart forgets them"

TASK = Annotated[str, typer.Argument(metavar="TASK", help="As `leafdb task list` shows it.")]

Told = tuple[list[dict[str, Any]], Mapping[str, str], Mapping[str, Any]]
"""Every task, who could not be asked, and what was said of the ring change."""


@app.command("list")
def list_(
    ctx: typer.Context,
    ended: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
) -> None:
    """List what the nodes are at: repairs, flushes, compactions, verifications, copies of a ring change.

    Examples: leafdb task list, leafdb task list --all -o json
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session, ended=ended))


def _show(session: Session, *, ended: bool) -> None:
    with session.client(routing="listed") as client:
        items, errors, _ = _told(client)
    shown = [item for item in items if ended or item["state"] not in ENDED]
    session.output.items("TaskList", shown, COLUMNS, errors=errors, empty="nothing is under way")
    if session.options.output == "table":
        for item in shown:
            for line in detail_lines(item):
                session.note(line)


@app.command()
def show(ctx: typer.Context, task: TASK) -> None:
    """Show one of them, with what it waits for and what went wrong.

    Example: leafdb task show repair/dev-0/3
    """
    session = session_of(ctx, watch=True)
    name = _named(task)

    def look() -> Mapping[str, Any]:
        with session.client(routing="listed") as client:
            item, _ = _one(client, name)
        session.output.items("TaskList", [item], COLUMNS)
        if session.options.output == "table":
            for line in detail_lines(item):
                session.note(line)
        return item

    session.watching(look, over=lambda item: item["state"] in ENDED)


@app.command()
def wait(ctx: typer.Context, task: TASK) -> None:
    """Return when it has ended: 0 when it is done, 1 when it failed or was taken back.

    --timeout bounds it, with --wait to more than a request may take; without, an hour.

    Example: leafdb task wait verify/dev-1/2 --wait --timeout 2h
    """
    session = session_of(ctx)
    name = _named(task)
    with session.client(routing="listed", timeout_s=REQUEST_S) as client:
        item, transfer = _one(client, name)
        if item["kind"] == TRANSFER:
            _wait_for_plan(session, int(transfer["epoch"]))
            return
        deadline = time.monotonic() + session.timeout_s(WAIT_S)
        while item["state"] not in ENDED:
            if time.monotonic() >= deadline:
                what = f"{name} is not done, {share_text(item['share'])}; it goes on without anybody watching"
                raise Quit(exits.UNAVAILABLE, what, f"leafdb task show {name} says how far it is")
            time.sleep(POLL_S)
            item, _ = _one(client, name)
    session.output.items("TaskList", [item], COLUMNS)
    if item["state"] != "done":
        raise Quit(exits.FAILED, f"{name} {_ending(item)}", f"leafdb task show {name} has all that is known of it")


def _ending(item: Mapping[str, Any]) -> str:
    how = "was taken back" if item["state"] == "cancelled" else "failed"
    return f"{how}: {item['error']}" if item["error"] else how


def _wait_for_plan(session: Session, epoch: int) -> None:
    from leafdb_cli.cluster_plan import ask_plan

    plan = ask_plan(session)
    close(session, plan, done=wait_for_end(session, plan, epoch))


@app.command()
def cancel(ctx: typer.Context, task: TASK) -> None:
    """Take back a repair or a verification that somebody asked for. What it has done stays done.

    Examples: leafdb task cancel repair/dev-0/3, leafdb task cancel verify/dev-1/2
    """
    session = session_of(ctx)
    name = _named(task)
    with session.client(routing="listed") as client:
        item, _ = _one(client, name)
        if not item["cancellable"]:
            raise Quit(exits.FAILED, f"{name} cannot be taken back: {_why_not(item)}", _instead(item))
        if item["kind"] == "repair":
            client.admin("repair.cancel", {"task": name.removeprefix("repair/")}, changes=True)
        else:
            client.admin("storage.stop", {"node": item["node"]}, changes=True)
        item, _ = _one(client, name)
    session.output.items("TaskList", [item], COLUMNS)


def _why_not(item: Mapping[str, Any]) -> str:
    if item["state"] in ENDED:
        return "it has ended"
    return "nobody asked for it, it is owed" if item["kind"] == "repair" else "it is done in one piece"


def _instead(item: Mapping[str, Any]) -> str:
    if item["kind"] == TRANSFER:
        return "leafdb cluster abort gives the plan up, and the ring becomes what it was"
    return "leafdb task show says how far it is"


def _named(text: str) -> str:
    if not is_task_name(text):
        raise typer.BadParameter(
            f"{text!r} is no task, such as repair/dev-0/3 or verify/dev-1/2: leafdb task list names them",
            param_hint="TASK",
        )
    return text


def _told(client: Client) -> Told:
    """Ask for all kinds. A node of a version that lacks one of the verbs tells of the others."""
    repairs, storage, transfer = (_asked(client, verb) for verb in ("repair.status", "storage.tasks", "transfer.list"))
    errors = {**(repairs.get("errors") or {}), **(storage.get("errors") or {}), **(transfer.get("errors") or {})}
    items = task_items(repairs.get("repairs", ()), storage.get("tasks", ()), transfer if "items" in transfer else None)
    return items, errors, transfer


def _asked(client: Client, verb: str) -> Mapping[str, Any]:
    try:
        return client.admin(verb)
    except NotApplied as error:
        if error.reason is not Reason.UNSUPPORTED:
            raise
        return {}


def _one(client: Client, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A task, and what was said of the ring change. Quit when there is none of that name, or nobody who could know."""
    items, errors, transfer = _told(client)
    item = found(items, name)
    if item is not None:
        return item, transfer
    away = [who for who in errors if f"/{who}/" in name]
    if away:
        raise Quit(exits.UNAVAILABLE, f"{away[0]} could not be asked: {errors[away[0]]}", "ask again when it is back")
    raise Quit(exits.NOT_FOUND, f"there is no task {name}", NO_TASK)
