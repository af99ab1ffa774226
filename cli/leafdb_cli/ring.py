"""`leafdb ring`: who owns what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from leafdb_cli.node import state_style
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(help="The ring: who owns which partitions.", no_args_is_help=True, rich_markup_mode=None)

CELLS_PER_LINE: Final = 64
BAR_CELLS: Final = 24
PALETTE: Final = ("cyan", "magenta", "yellow", "green", "blue", "red", "bright_cyan", "bright_magenta", "bright_yellow")
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def percent(share: Any) -> str:
    """`33.6 %`."""
    return f"{100 * float(share):.1f} %"


COLUMNS: Final = [
    Column("name"), Column("id", right=True), Column("state", style=state_style), Column("host"), Column("zone"),
    Column("owned", right=True), Column("share", show=percent, right=True),
]  # fmt: skip


@app.command()
def show(ctx: typer.Context) -> None:
    """Show the members' shares, and on a terminal who owns each partition."""
    session = session_of(ctx, watch=True)
    session.watching(lambda: print_ring(session, session.ask("ring.show")))


def print_ring(session: Session, reply: Mapping[str, Any]) -> None:
    """The ring, in whatever form was asked for."""
    session.output.items(
        "RingMemberList",
        reply["members"],
        COLUMNS,
        extra={"epoch": reply["epoch"], "partitions": reply["partitions"], "owners": reply["owners"]},
        pretty=lambda: pretty_ring(reply),
    )
    for warning in reply.get("warnings", ()):
        session.note(f"! {warning}")


def marks(members: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, str]]:
    """A letter and a colour for each member number."""
    return {
        member["id"]: (LETTERS[index % len(LETTERS)], PALETTE[index % len(PALETTE)])
        for index, member in enumerate(members)
    }


def pretty_ring(reply: Mapping[str, Any]) -> RenderableType:
    """A bar for each member, and a strip with a cell for each partition."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    members = reply["members"]
    mark = marks(members)
    largest = max((member["share"] for member in members), default=0) or 1
    table = Table.grid(padding=(0, 2))
    for member in members:
        letter, color = mark[member["id"]]
        bar = "█" * max(1, round(BAR_CELLS * member["share"] / largest)) if member["owned"] else ""
        state = str(member.get("state", ""))
        table.add_row(
            Text(letter, style=f"bold {color}"),
            Text(str(member["name"]), style="bold"),
            Text(state, style=state_style(state)),
            Text(f"host {member['host']}  zone {member['zone']}", style="dim"),
            Text(f"{member['owned']:>4}", justify="right"),
            Text(percent(member["share"]), justify="right"),
            Text(bar, style=color),
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
