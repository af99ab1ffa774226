"""`leafdb ring`: who owns what, and who will. What changes would come to is in `ring_simulate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from leafdb_cli import ring_simulate
from leafdb_cli.members import change_item, tell_changes
from leafdb_cli.node import CHANGE, WEIGHT, state_style, weighted
from leafdb_cli.plan_screen import CELLS_PER_LINE, mark_of, percent
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(help="The ring: who owns which partitions.", no_args_is_help=True, rich_markup_mode=None)

BAR_CELLS: Final = 16

COLUMNS: Final = [
    Column("name"), Column("id", right=True), Column("state", style=state_style), Column("host"), Column("zone"),
    Column("owned", right=True), Column("share", show=percent, right=True),
]  # fmt: skip
CHANGING: Final = [Column("owned_next", "then", right=True), CHANGE]
"""What there is to see of the members while a plan is in progress."""


@app.command()
def show(ctx: typer.Context) -> None:
    """Show the members' shares, and on a terminal who owns each partition.

    Example: leafdb ring show
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: print_ring(session, session.ask("ring.show")))


def print_ring(session: Session, reply: Mapping[str, Any]) -> None:
    """The ring, in whatever form was asked for."""
    weights = [WEIGHT] if weighted(reply["members"]) else []
    session.output.items(
        "RingMemberList",
        reply["members"],
        [*COLUMNS, *weights, *(CHANGING if reply.get("change") else [])],
        extra={
            "epoch": reply["epoch"],
            "partitions": reply["partitions"],
            "owners": reply["owners"],
            **change_item(reply),
        },
        pretty=lambda: pretty_ring(reply),
    )
    tell_changes(session, reply)
    for warning in reply.get("warnings", ()):
        session.note(f"! {warning}")


def marks(members: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, str]]:
    """A letter and a colour for each member number."""
    return {member["id"]: mark_of(index) for index, member in enumerate(members)}


def pretty_ring(reply: Mapping[str, Any]) -> RenderableType:
    """A bar for each member, and a strip with a cell for each partition; labels only where they tell something."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    members = reply["members"]
    mark = marks(members)
    largest = max((member["share"] for member in members), default=0) or 1
    changing = bool(reply.get("change"))
    labels = [
        *(["host"] if any(member["host"] != member["name"] for member in members) else []),
        *(["zone"] if len({member["zone"] for member in members}) > 1 else []),
        *(["weight"] if weighted(members) else []),
    ]
    table = Table.grid(padding=(0, 2))
    headings = ["", "name", "state", *labels, "owned", "share", *(["then"] if changing else [])]
    table.add_row(*(Text(heading, style="dim") for heading in headings))
    for member in members:
        letter, color = mark[member["id"]]
        bar = "█" * max(1, round(BAR_CELLS * member["share"] / largest)) if member["owned"] else ""
        state = str(member.get("state", ""))
        then = [Text(f"{member['owned_next']:>4}"), Text(str(member["change"]), style="yellow")] if changing else []
        table.add_row(
            Text(letter, style=f"bold {color}"),
            Text(str(member["name"]), style="bold"),
            Text(state, style=state_style(state)),
            *(Text(str(member.get(label, 1)), style="dim") for label in labels),
            Text(f"{member['owned']:>5}", justify="right"),
            Text(percent(member["share"]), justify="right"),
            *(then or [Text(bar, style=color)]),
        )
    strip = Text()
    owners = reply["owners"]
    for start in range(0, len(owners), CELLS_PER_LINE):
        strip.append(f"{start:>6}  ", style="dim")
        for owner in owners[start : start + CELLS_PER_LINE]:
            letter, color = mark.get(owner, ("?", "red"))
            strip.append(letter, style=f"black on {color}")
        strip.append("\n")
    head = Text(f"epoch {reply['epoch']}, {reply['partitions']} partitions, {len(members)} members\n", style="bold")
    return Group(head, table, Text(""), strip)


app.command()(ring_simulate.simulate)
app.command()(ring_simulate.history)
