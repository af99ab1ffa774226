"""`leafdb storage`: the stores of the nodes, and single files of a store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb_cli import exits, storage_dump, storage_snapshot
from leafdb_cli.exits import Quit
from leafdb_cli.render import fitting, plain_table, rich_table
from leafdb_cli.session import Session, session_of
from leafdb_cli.storage_view import (
    BEGUN_COLUMNS,
    TASK_COLUMNS,
    TREE_COLUMNS,
    damage_text,
    progress_text,
    store_items,
    store_text,
    task_items,
    task_rows,
    tree_rows,
)
from leafdb_cli.transfer import parse_rate

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

app = typer.Typer(help="The stores of the nodes, and their files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(storage_dump.app, name="dump")
app.add_typer(storage_snapshot.app, name="snapshot")

WAIT_S: Final = 3_600.0
POLL_S: Final = 0.25
TELL_S: Final = 5.0
RUNNING: Final = "running"

ONLY = Annotated[str, typer.Option("--only", metavar="NAME", help="This member's store only.")]

Task = Mapping[str, Any]


@app.command()
def stats(ctx: typer.Context, only: ONLY = "") -> None:
    """Show what is in each store: trees by level, log, memory, cache, what is compacted, what is behind.

    Examples: leafdb storage stats, leafdb storage stats --only dev-1 --watch
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show_stats(session, session.ask("storage.stats", _named(only))))


def _show_stats(session: Session, reply: Mapping[str, Any]) -> None:
    stores = store_items(reply["nodes"])
    rows = tree_rows(stores)
    output = session.output
    output.items(
        "StoreList",
        stores,
        TREE_COLUMNS,
        errors=reply.get("errors") or {},
        pretty=lambda: rich_table(fitting(TREE_COLUMNS, rows, output.console(output.out).width), rows),
        plain=lambda: plain_table(TREE_COLUMNS, rows),
        empty="no store could be asked",
    )
    if session.options.output == "table":
        for store in stores:
            for line in store_text(store):
                session.note(line)


@app.command()
def flush(ctx: typer.Context, only: ONLY = "") -> None:
    """Bring what is in memory into tables, and so let the log be short.

    It happens by itself when enough has come together. With --wait, return when it is done.

    Example: leafdb storage flush --wait
    """
    _task(session_of(ctx), "storage.flush", "flush", _named(only))


@app.command()
def compact(
    ctx: typer.Context,
    bucket: Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="This bucket only.")] = "",
    only: ONLY = "",
) -> None:
    """Merge everything down to the last level that holds data.

    It happens by itself as far as is worth it; this gives back at once what was overwritten and deleted, and reads and
    writes everything once. It takes turns with what is due and loses nothing. With --wait, return when it is done.

    Example: leafdb storage compact --bucket carts --only dev-1 --wait
    """
    args = {**_named(only), **({"bucket": bucket} if bucket else {})}
    _task(session_of(ctx), "storage.compact", "compact", args)


@app.command()
def verify(
    ctx: typer.Context,
    only: ONLY = "",
    rate: Annotated[
        str, typer.Option("--bytes-per-second", metavar="RATE|none", help="Of each node; 16MiB unless said.")
    ] = "",
    stop: Annotated[bool, typer.Option("--stop", help="End the one that is under way.")] = False,
) -> None:
    """Read every byte of every file again, and say what is damaged: file, place, bucket, partitions.

    It changes nothing, and what is damaged is not served. With --wait or --watch until it is done; the exit code is 7
    when damage was found.

    Examples: leafdb storage verify --wait, leafdb storage verify --only dev-1 --bytes-per-second 100MiB --watch
    """
    session = session_of(ctx, watch=True)
    if stop:
        reply = session.ask("storage.stop", _named(only), changes=True)
        items = [{"node": name} for name in reply["nodes"]]
        errors: Mapping[str, str] = reply.get("errors") or {}
        session.output.items("StorageStopList", items, BEGUN_COLUMNS[:1], errors=errors, empty="none was under way")
        if errors:
            raise Quit(exits.FAILED, "not every node could be told", exits.WHEN_BACK)
        return
    args: dict[str, Any] = _named(only)
    if rate:
        args["bytes_per_s"] = parse_rate(rate)
    _task(session, "storage.verify", "verify", args)


@app.command()
def tasks(ctx: typer.Context, only: ONLY = "") -> None:
    """Show how far flushes, compactions and verifications are that somebody asked for, or how the last ones ended.

    Example: leafdb storage tasks --watch
    """
    session = session_of(ctx, watch=True)

    def show() -> bool:
        reply = session.ask("storage.tasks", _named(only))
        _print(session, reply["tasks"], reply.get("errors") or {})
        return not any(task["state"] == RUNNING for task in reply["tasks"])

    session.watching(show, over=lambda over: over)


def _named(only: str) -> dict[str, Any]:
    return {"node": only} if only else {}


def _task(session: Session, verb: str, kind: str, args: Mapping[str, Any]) -> None:
    """Begin it; with --wait or --watch see it to its end."""
    with session.client(routing="listed") as client:
        reply = client.admin(verb, args, changes=True)
        begun: Mapping[str, int] = reply["tasks"]
        errors: Mapping[str, str] = reply.get("errors") or {}
        if not (session.options.wait or session.options.watch):
            items = [{"node": name, "task": task} for name, task in begun.items()]
            session.output.items("StorageTaskList", items, BEGUN_COLUMNS, errors=errors)
            if errors:
                raise Quit(exits.FAILED, "not every node has begun", exits.WHEN_BACK)
            session.note("leafdb storage tasks shows how far it is")
            return
        found = _until_ended(session, client, kind, begun)
    _print(session, found, errors)
    _judge(found, errors)


def _until_ended(session: Session, client: Client, kind: str, begun: Mapping[str, int]) -> list[Task]:
    """The tasks that were begun, once none of them is running."""
    deadline = time.monotonic() + session.timeout_s(WAIT_S)
    tell_at = time.monotonic() + TELL_S
    while True:
        reply = client.admin("storage.tasks", timeout=5.0)
        found = [task for task in reply["tasks"] if task["kind"] == kind and begun.get(task["node"]) == task["task"]]
        away = set(begun) - {task["node"] for task in found}
        if away - set(reply.get("errors") or {}):
            raise Quit(
                exits.FAILED,
                f"{', '.join(sorted(away))} knows nothing of it any more: it was started again",
                "begin it again: what was done stays done",
            )
        if not away and all(task["state"] != RUNNING for task in found):
            return found
        now = time.monotonic()
        if now >= deadline:
            raise Quit(
                exits.UNAVAILABLE, "it goes on without anybody watching", "leafdb storage tasks shows how far it is"
            )
        if session.options.watch and session.output.pretty:
            session.output.out.write("\x1b[H\x1b[2J")
            _print(session, found, reply.get("errors") or {})
        elif now >= tell_at:
            tell_at = now + TELL_S
            for task in found:
                if task["state"] == RUNNING:
                    session.note(f"{task['node']}: {progress_text(task)}")
        time.sleep(POLL_S)


def _print(session: Session, found: Sequence[Task], errors: Mapping[str, str]) -> None:
    rows = task_rows(found)
    output = session.output
    output.items(
        "StorageTaskList",
        task_items(found),
        TASK_COLUMNS,
        errors=errors,
        pretty=(lambda: rich_table(fitting(TASK_COLUMNS, rows, output.console(output.out).width), rows))
        if rows
        else None,
        plain=lambda: plain_table(TASK_COLUMNS, rows),
        empty="nobody has asked for anything since the nodes were started",
    )
    if session.options.output == "table":
        for line in damage_text(found):
            session.note(line)


def _judge(found: Sequence[Task], errors: Mapping[str, str]) -> None:
    """Whether that went well, and what to do if not."""
    damaged = sorted(str(task["node"]) for task in found if task.get("damages_found"))
    if damaged:
        raise Quit(
            exits.UNHEALTHY,
            f"files of {', '.join(damaged)} are damaged. Nothing damaged is served: other replicas answer for it",
            "keep those up, and look at that disk; step by step: docs/operations/storage.md",
        )
    if errors or any(task["state"] != "done" for task in found):
        raise Quit(exits.FAILED, "not every store has done it", "leafdb storage tasks says what became of each")
