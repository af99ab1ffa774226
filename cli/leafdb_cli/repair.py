"""`leafdb repair`: comparing replicas on demand, following it, taking it back; and when it comes by itself."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb_cli import exits, repair_forecast, repair_purge, repair_schedule
from leafdb_cli.exits import Quit
from leafdb_cli.purge_view import purge_text
from leafdb_cli.render import Column
from leafdb_cli.repair_view import (
    COLUMNS,
    STARTED_COLUMNS,
    losses_text,
    progress_of,
    schedule_text,
    unsure_text,
    view_of,
)
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

app = typer.Typer(help="Anti-entropy between replicas.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(repair_schedule.app, name="schedule")
app.command()(repair_purge.purge)

WAIT_S: Final = 300.0
POLL_S: Final = 0.25
TELL_S: Final = 2.0
ENDED: Final = frozenset({"done", "failed", "cancelled"})
_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

BUCKET = Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="This bucket only.")]
ONLY = Annotated[str, typer.Option("--only", metavar="NAME", help="What this member shares with others only.")]
RANGE = Annotated[str, typer.Option("--range", metavar="P|P-Q", help="These partitions only: ring show numbers them.")]


@app.command()
def run(ctx: typer.Context, bucket: BUCKET = "", only: ONLY = "", range_: RANGE = "") -> None:
    """Compare every range with its other replicas now, and mend what differs.

    With --wait, return when all of it is done. With --dry-run, compare and move nothing: shows what differs, some
    keys with both versions, and what this would move.

    Examples: leafdb repair run --wait, leafdb repair run --bucket carts --range 0-63 --only dev-2 --dry-run
    """
    session = session_of(ctx, dry_run=True)
    args: dict[str, Any] = {name: value for name, value in (("bucket", bucket), ("node", only)) if value}
    if range_:
        args["range"] = parse_range(range_)
    with session.client(routing="listed") as client:
        if session.options.dry_run:
            _look(session, client, args)
            return
        reply = client.admin("repair.run", args, changes=True)
        tasks: Mapping[str, Any] = reply.get("tasks", {})
        errors: Mapping[str, str] = reply.get("errors") or {}
        if not session.options.wait:
            items = [{"node": name, "task": task} for name, task in tasks.items()]
            session.output.items("RepairTaskList", items, STARTED_COLUMNS, errors=errors)
            if errors:
                raise Quit(exits.FAILED, "not every node has begun", exits.WHEN_BACK)
            return
        repairs = _wait(session, client, tasks, time.monotonic() + session.timeout_s(WAIT_S))
    session.output.items("RepairList", repairs, COLUMNS, errors=errors, pretty=lambda: view_of(repairs, (), ()))
    if errors or any(repair["state"] != "done" for repair in repairs):
        raise Quit(exits.FAILED, "not every repair was done", "leafdb repair status says what each waits for")


def _look(session: Session, client: Client, args: Mapping[str, Any]) -> None:
    """A dry run, from its beginning to its end."""
    reply = client.admin("repair.dry", args, changes=True)
    tasks: Mapping[str, Any] = reply["tasks"]
    lines = _wait(session, client, tasks, time.monotonic() + session.timeout_s(WAIT_S))
    found = client.admin("repair.findings", {"tasks": dict(tasks)})
    errors = {**(reply.get("errors") or {}), **(found.get("errors") or {})}
    repair_forecast.show(session, found["findings"], errors)
    if errors or any(line["state"] != "done" for line in lines):
        raise Quit(
            exits.FAILED, "not every range could be compared", "leafdb status says who is away; run it again then"
        )


def parse_range(text: str) -> list[int]:
    """First and last partition of `7` or `0-63`."""
    match = _RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if first > last:
        raise typer.BadParameter(f"{text!r} is neither a partition such as 7 nor a range such as 0-63")
    return [first, last]


def _wait(session: Session, client: Client, tasks: Mapping[str, Any], deadline: float) -> list[Mapping[str, Any]]:
    """The repairs of these tasks, once all have ended."""
    wanted = {(name, str(task)) for name, task in tasks.items()}
    told, tell_at = "", time.monotonic() + TELL_S
    while True:
        found = [
            repair
            for repair in client.admin("repair.status", timeout=5.0)["repairs"]
            if (repair["node"], str(repair["task"])) in wanted
        ]
        if all(repair["state"] in ENDED for repair in found) and len(found) == len(wanted):
            return found
        now = time.monotonic()
        if now >= deadline:
            raise Quit(
                exits.UNAVAILABLE, "it goes on without anybody watching", "leafdb repair status shows how far it is"
            )
        if now >= tell_at and progress_of(found) != told:
            told, tell_at = progress_of(found), now + TELL_S
            session.note(told)
        time.sleep(POLL_S)


@app.command()
def status(ctx: typer.Context) -> None:
    """List every repair the cluster knows of, how old comparisons are, what may be lost, what waits to be forgotten.

    Example: leafdb repair status --watch
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session, session.ask("repair.status")))


def _show(session: Session, reply: Mapping[str, Any]) -> None:
    tasks: Sequence[Mapping[str, Any]] = reply["repairs"]
    schedules: Sequence[Mapping[str, Any]] = reply.get("schedules") or ()
    losses: Sequence[Mapping[str, Any]] = reply.get("losses") or ()
    purges: Sequence[Mapping[str, Any]] = reply.get("purges") or ()
    unsure: Sequence[Mapping[str, Any]] = reply.get("unsure") or ()
    session.output.items(
        "RepairList",
        tasks,
        COLUMNS,
        errors=reply.get("errors") or {},
        extra={
            "schedules": list(schedules),
            "losses": list(losses),
            "purges": list(purges),
            "unsure": list(unsure),
        },
        pretty=lambda: view_of(tasks, schedules, losses, purges, unsure),
        empty="no repairs",
    )
    if session.options.output == "table" and not session.output.pretty:
        for said in (*schedule_text(schedules), *losses_text(losses), *purge_text(purges), *unsure_text(unsure)):
            session.note(said)


@app.command()
def cancel(
    ctx: typer.Context,
    task: Annotated[str, typer.Argument(metavar="NODE/TASK", help="As repair status shows it.")],
) -> None:
    """Take back a repair that somebody asked for.

    What was compared stays so. What is owed for another reason, as after an absence, cannot be cancelled.

    Example: leafdb repair cancel dev-0/3
    """
    session = session_of(ctx)
    if not re.fullmatch(r".+/[0-9]+", task):
        raise typer.BadParameter(f"{task!r} is not NODE/TASK, as leafdb repair status shows it")
    reply = session.ask("repair.cancel", {"task": task}, changes=True)
    session.output.items("RepairCancelList", [{"task": str(reply["task"])}], [Column("task", "cancelled")])


@app.command()
def acknowledge(ctx: typer.Context, only: ONLY = "") -> None:
    """Say that you have read where writes may be lost.

    It is a problem of the cluster until then. The list in repair status keeps it, with the time of this.

    Example: leafdb repair acknowledge --only dev-1
    """
    session = session_of(ctx)
    reply = session.ask("repair.acknowledge", {"node": only} if only else {}, changes=True)
    items = [{"node": name, "partitions": count} for name, count in sorted(reply["nodes"].items())]
    errors: Mapping[str, str] = reply.get("errors") or {}
    session.output.items(
        "AcknowledgedList", items, [Column("node"), Column("partitions", right=True)], errors=errors,
        empty="nothing was waiting to be acknowledged",
    )  # fmt: skip
    if errors:
        raise Quit(exits.FAILED, "not every node could be told", exits.WHEN_BACK)
