"""`leafdb repair purge`: have it proved now that what was deleted may be forgotten, and see what holds it up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.purge_view import HELD_UP_COLUMNS, holders, purge_text
from leafdb_cli.render import Column, human_seconds
from leafdb_cli.session import session_of

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

WAIT_S: Final = 360.0
POLL_S: Final = 0.25
STARTED_COLUMNS: Final = [
    Column("node"), Column("waiting", right=True), Column("oldest_s", "oldest", human_seconds, right=True),
]  # fmt: skip
ONLY = Annotated[str, typer.Option("--only", metavar="NAME", help="What this member leads only.")]

Line = Mapping[str, Any]


def purge(ctx: typer.Context, only: ONLY = "") -> None:
    """Prove now that deleted and expired data may be forgotten, where any waits.

    It happens by itself, every repair.purge_interval; this is for who has brought a member back and will not wait.
    With --wait, return when it was tried, and say who holds up what is left. With --dry-run, only say what waits.

    Examples: leafdb repair purge --wait, leafdb repair purge --dry-run
    """
    session = session_of(ctx, dry_run=True)
    with session.client(routing="listed") as client:
        if session.options.dry_run:
            lines, errors = _purges(client.admin("repair.status"), only)
            items = [{"node": line["node"], "waiting": line["waiting"], "oldest_s": line["oldest_s"]} for line in lines]
            session.output.items("PurgeList", items, STARTED_COLUMNS, errors=errors)
            _say(session.note, lines)
            return
        reply = client.admin("repair.purge", {"node": only} if only else {}, changes=True)
        nodes: Mapping[str, Line] = reply["nodes"]
        errors = dict(reply.get("errors") or {})
        if not session.options.wait:
            items = [{"node": name, **line} for name, line in sorted(nodes.items())]
            session.output.items("PurgeList", items, STARTED_COLUMNS, errors=errors)
            if errors:
                raise Quit(exits.FAILED, "not every node could be told", exits.WHEN_BACK)
            return
        lines = _tried(client, nodes, time.monotonic() + session.timeout_s(WAIT_S))
    held = holders(lines)
    session.output.items("HeldUpList", held, HELD_UP_COLUMNS, errors=errors, empty="nothing holds anything up")
    if errors or held:
        raise Quit(
            exits.FAILED,
            "not everything that was deleted may be forgotten",
            "what is held up, and by whom, is told above",
        )


def _purges(reply: Line, only: str) -> tuple[list[Line], dict[str, str]]:
    """What leaders say, and who said nothing; of one of them, if that is asked for."""
    lines = [line for line in reply["purges"] if only in ("", line["node"])]
    errors = {name: why for name, why in (reply.get("errors") or {}).items() if only in ("", name)}
    return lines, errors


def _say(note: Any, lines: Sequence[Line]) -> None:
    for said in purge_text(lines):
        note(said)


def _tried(client: Client, nodes: Mapping[str, Line], deadline: float) -> list[Line]:
    """What the leaders say once each has tried."""
    while True:
        lines = [line for line in client.admin("repair.status", timeout=5.0)["purges"] if line["node"] in nodes]
        if len(lines) == len(nodes) and all(line["tries"] >= nodes[line["node"]]["try"] for line in lines):
            return lines
        if time.monotonic() >= deadline:
            raise Quit(
                exits.UNAVAILABLE, "it goes on without anybody watching", "leafdb repair status shows how far it is"
            )
        time.sleep(POLL_S)
