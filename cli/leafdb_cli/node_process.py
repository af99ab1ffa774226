"""`leafdb node loglevel|profile`: the process of one node, while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb_cli.render import Column
from leafdb_cli.session import session_of

PROFILE_S: Final = 10.0
PROFILE_S_MAX: Final = 60.0
GRACE_S: Final = 10.0

LEVEL_COLUMNS: Final = [Column("name"), Column("level"), Column("was")]
STACK_COLUMNS: Final = [
    Column("share", show=lambda share: f"{share:.1%}", right=True), Column("thread"), Column("function"),
]  # fmt: skip

NAME = Annotated[str, typer.Argument(metavar="[NAME]", help="A member's name; otherwise the node that --node says.")]


class Level(StrEnum):
    """What a log line can be."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def loglevel(
    ctx: typer.Context,
    name: NAME = "",
    level: Annotated[Level | None, typer.Option("--set", help="Write this and what is more important.")] = None,
) -> None:
    """Show, or change, how much a node writes to its log: until it is restarted or reads its configuration again.

    Example: leafdb node loglevel dev-1 --set debug
    """
    from leafdb_cli.node import node_client

    session = session_of(ctx)
    with node_client(session, name) as (client, who):
        args = {} if level is None else {"level": str(level)}
        reply = client.admin("node.loglevel", args, changes=level is not None)
    session.output.items("LogLevelList", [{"name": who, "level": reply["level"], "was": reply["was"]}], LEVEL_COLUMNS)


def profile(
    ctx: typer.Context,
    name: NAME = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=PROFILE_S_MAX, help="How long to look.")
    ] = PROFILE_S,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write whole stacks there, as flame graphs want them.")
    ] = None,
) -> None:
    """Look where a node spends its time: the stacks of its threads, a hundred times a second. The node serves on.

    Example: leafdb node profile dev-1 --seconds 10 --out dev-1.folded
    """
    from leafdb_cli.node import node_client

    session = session_of(ctx)
    with node_client(session, name, request_s=seconds + GRACE_S) as (client, who):
        reply = client.admin("node.profile", {"seconds": seconds}, timeout=seconds + GRACE_S)
    if out is not None:
        out.write_text("".join(f"{line['stack']} {line['seen']}\n" for line in reply["stacks"]), encoding="utf-8")
        session.note(f"{len(reply['stacks'])} stacks are in {out}")
    items = function_items(reply["stacks"])
    session.output.items("ProfileList", items, STACK_COLUMNS, extra={"node": who, "samples": reply["samples"]})


def function_items(stacks: Sequence[Any]) -> list[dict[str, Any]]:
    """By thread and innermost function how often it was seen, and in what share of the looks at that thread."""
    seen: dict[tuple[str, str], int] = {}
    of_thread: dict[str, int] = {}
    for line in stacks:
        thread, *functions = str(line["stack"]).split(";")
        name = thread, functions[-1] if functions else "?"
        seen[name] = seen.get(name, 0) + int(line["seen"])
        of_thread[thread] = of_thread.get(thread, 0) + int(line["seen"])
    items = [
        {"thread": thread, "function": function, "seen": count, "share": round(count / of_thread[thread], 4)}
        for (thread, function), count in seen.items()
    ]
    return sorted(items, key=lambda item: (item["thread"], -item["seen"], item["function"]))
