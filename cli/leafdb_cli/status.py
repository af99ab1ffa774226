"""`leafdb status`: the cluster in a few figures, every problem in words; with --check an exit code for scripts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.members import change_item, coming_and_going, tell_changes
from leafdb_cli.render import Column, plain_table
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

WAIT_S: Final = 60.0
POLL_S: Final = 0.25

FIELDS: Final = (
    "cluster", "epoch", "healthy", "nodes_up", "nodes_total", "hints_pending", "repair_pending", "problems",
    "notices",
)  # fmt: skip
LISTS: Final = ("problems", "notices")
COLUMNS: Final = [Column(name) for name in FIELDS if name not in LISTS]


def status(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit with 7 unless the cluster is healthy.")] = False,
) -> None:
    """Show how the cluster is. With --wait, wait until it is healthy (--timeout, default 60s).

    Examples: leafdb status --check, leafdb status --wait --timeout 2m
    """
    session = session_of(ctx, watch=True)
    healthy = session.watching(lambda: _show(session))
    if check and not healthy:
        raise Quit(
            exits.UNHEALTHY, "the cluster is not healthy", "each problem is told above; leafdb doctor says what to do"
        )


def _show(session: Session) -> bool:
    reply = _settled(session) if session.options.wait else session.ask("status")
    item = {name: reply.get(name, []) if name in LISTS else reply[name] for name in FIELDS}
    changes = coming_and_going(reply)
    session.output.items(
        "StatusList",
        [item],
        COLUMNS,
        errors=reply.get("errors") or {},
        extra=change_item(reply),
        pretty=lambda: _pretty(item, changes),
        plain=lambda: _plain(item),
    )
    if not session.output.pretty:
        tell_changes(session, reply)
    return bool(reply["healthy"])


def _settled(session: Session) -> Mapping[str, Any]:
    """The status once the cluster is healthy, or when the time is up."""
    deadline = time.monotonic() + session.timeout_s(WAIT_S)
    with session.client(routing="listed") as client:
        while True:
            reply = client.admin("status", timeout=5.0)
            if reply["healthy"] or time.monotonic() >= deadline:
                return reply
            time.sleep(POLL_S)


def _plain(item: Mapping[str, Any]) -> str:
    """The figures in a table, then a line for each problem and each notice: never cut short."""
    found = [f"! {problem}\n" for problem in item["problems"]] + [f"- {notice}\n" for notice in item["notices"]]
    return plain_table(COLUMNS, [item]) + "".join(found)


def _pretty(item: Mapping[str, Any], changes: Sequence[str]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    healthy = item["healthy"]
    head = Text.assemble(
        ("● ", "green" if healthy else "red"),
        (str(item["cluster"]), "bold"),
        f"  epoch {item['epoch']}  ",
        ("healthy" if healthy else "not healthy", "green" if healthy else "bold red"),
    )
    up, total = item["nodes_up"], item["nodes_total"]
    body = Text.assemble(
        "  nodes ",
        (f"{up} of {total} up", "" if up == total else "red"),
        f"   hints pending {item['hints_pending']}   repairs pending {item['repair_pending']}",
    )
    troubles = (Text(f"  ! {problem}", style="yellow") for problem in item["problems"])
    notices = (Text(f"  - {notice}") for notice in item["notices"])
    return Group(head, body, *troubles, *notices, *(Text(f"  {change}", style="cyan") for change in changes))
