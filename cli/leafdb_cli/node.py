"""`leafdb node`: the members, each with what it says of itself; and what a rolling restart asks of them.

`drain`, `undrain` and `safe-to-stop` are about one node. Without a name that is the one --node says, alone: of several
addresses nobody could tell which would answer. With a name the command finds its address in the cluster, and makes sure
that who answers there has that name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb_cli import exits, node_process
from leafdb_cli.exits import Quit
from leafdb_cli.members import tell_changes
from leafdb_cli.options import url_of
from leafdb_cli.render import Column, human_bytes, human_seconds, plain_table, rich_table
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from leafdb.client.sync_client import Client

app = typer.Typer(help="The members of the cluster.", no_args_is_help=True, rich_markup_mode=None)

WAIT_S: Final = 300.0
POLL_S: Final = 0.5
DRAIN_TIMEOUT_S: Final = 15.0
DRAINING: Final = "draining"
STATE_STYLES: Final = {
    "alive": "green", "serving": "green", "suspect": "yellow", DRAINING: "yellow", "drained": "yellow",
}  # fmt: skip


def state_style(state: object) -> str:
    """How a node's state looks."""
    return STATE_STYLES.get(str(state), "bold red")


COLUMNS: Final = [
    Column("name"), Column("id", right=True), Column("state", style=state_style), Column("host", spare=2),
    Column("zone", spare=1), Column("client"), Column("version", spare=3),
    Column("uptime_s", "uptime", human_seconds, spare=4), Column("memory_bytes", "memory", human_bytes, spare=5),
    Column("pid", right=True, spare=6),
]  # fmt: skip
CHANGE: Final = Column("change", style=lambda _: "yellow")
WEIGHT: Final = Column("weight", show=lambda weight: str(1 if weight is None else weight), right=True)
FIELD_COLUMNS: Final = [Column("field"), Column("value")]
STATE_COLUMNS: Final = [Column("name"), Column("state", style=state_style)]
SAFE_COLUMNS: Final = [
    Column("name"),
    Column("safe"),
    Column("reasons", show=lambda reasons: "; ".join(reasons) or "-"),
]

NAME = Annotated[str, typer.Argument(metavar="NAME", help="A member's name; otherwise the node that --node says.")]


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every member: its state, its addresses, its process, whether it comes or goes.

    Example: leafdb node list --watch
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session))


def _show(session: Session) -> None:
    reply = session.ask("node.list")
    session.output.items("NodeList", reply["nodes"], node_columns(reply["nodes"]), errors=reply.get("errors") or {})
    tell_changes(session, reply)


@app.command()
def show(ctx: typer.Context, name: NAME = "") -> None:
    """Show one member: its addresses, its process, whether it comes or goes.

    Example: leafdb node show dev-1
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show_one(session, name))


def _show_one(session: Session, name: str) -> None:
    if not name:
        with node_client(session, "") as (_, name):
            pass
    reply = session.ask("node.list")
    item = _listed(reply["nodes"], name)
    errors = {who: why for who, why in (reply.get("errors") or {}).items() if who == name}
    rows = [{"field": field.replace("_", " "), "value": _field_text(field, value)} for field, value in item.items()]
    session.output.items(
        "NodeList",
        [item],
        FIELD_COLUMNS,
        errors=errors,
        pretty=lambda: rich_table(FIELD_COLUMNS, rows),
        plain=lambda: plain_table(FIELD_COLUMNS, rows),
    )


def _field_text(field: str, value: Any) -> str:
    """A member's field on a line."""
    if value is None or value == "":
        return "-"
    if field.endswith("_bytes"):
        return human_bytes(value)
    return human_seconds(value) if field.endswith("_s") else str(value)


def node_columns(nodes: Sequence[Mapping[str, Any]]) -> list[Column]:
    """What a table of nodes shows; weights and changes only where there are some."""
    weights = [WEIGHT] if weighted(nodes) else []
    return [*COLUMNS, *weights, *([CHANGE] if any(node.get("change") for node in nodes) else [])]


def weighted(members: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any member has another weight than most have."""
    return any(member.get("weight", 1) != 1 for member in members)


@app.command()
def drain(ctx: typer.Context, name: NAME = "") -> None:
    """Prepare a node for its stop.

    It takes no new requests and hands its hints over, and stays there. With --wait, return when that is done.

    Example: leafdb node drain dev-2 --wait
    """
    session = session_of(ctx)
    with node_client(session, name) as (client, who):
        reply = client.admin("node.drain", changes=True)
        if session.options.wait:
            reply = _until_drained(session, client, reply)
    session.output.items("NodeStateList", [{"name": who, "state": str(reply["state"])}], STATE_COLUMNS)


@app.command()
def undrain(ctx: typer.Context, name: NAME = "") -> None:
    """Have a drained node serve again.

    Example: leafdb node undrain dev-2
    """
    session = session_of(ctx)
    with node_client(session, name) as (client, who):
        reply = client.admin("node.undrain", changes=True)
    session.output.items("NodeStateList", [{"name": who, "state": str(reply["state"])}], STATE_COLUMNS)


app.command()(node_process.loglevel)
app.command()(node_process.profile)


@app.command("safe-to-stop")
def safe_to_stop(ctx: typer.Context, name: NAME = "") -> None:
    """Ask whether a node can be stopped now.

    0 when every range keeps a quorum without it, 7 and the reasons if not. With --wait, until it can.

    Example: leafdb node safe-to-stop dev-2 && systemctl stop leafdb
    """
    session = session_of(ctx, watch=True)
    with _about(session, name) as (client, who):
        item = session.watching(lambda: _print_safe(session, client, who))
    if not item["safe"]:
        raise Quit(exits.UNHEALTHY, f"{who} is not safe to stop: {'; '.join(item['reasons'])}", "--wait until it is")


def _print_safe(session: Session, client: Client, who: str) -> dict[str, Any]:
    deadline = time.monotonic() + (session.timeout_s(WAIT_S) if session.options.wait else 0.0)
    while True:
        reply = client.admin("node.safe_to_stop", {"node": who}, timeout=DRAIN_TIMEOUT_S)
        if reply["safe"] or time.monotonic() >= deadline:
            break
        time.sleep(POLL_S)
    item = {"name": who, "safe": bool(reply["safe"]), "reasons": [str(reason) for reason in reply["reasons"]]}
    session.output.items("NodeSafetyList", [item], SAFE_COLUMNS)
    return item


def _until_drained(session: Session, client: Client, reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ask again until the node has nothing left to do. Draining a node that drains changes nothing."""
    deadline = time.monotonic() + session.timeout_s(WAIT_S)
    while reply["state"] == DRAINING:
        if time.monotonic() >= deadline:
            raise Quit(
                exits.UNAVAILABLE,
                "the node is still draining; it goes on without anybody watching",
                "ask again: leafdb node drain",
            )
        time.sleep(POLL_S)
        reply = client.admin("node.drain", timeout=DRAIN_TIMEOUT_S)
    return reply


@contextmanager
def node_client(session: Session, name: str, *, request_s: float = DRAIN_TIMEOUT_S) -> Iterator[tuple[Client, str]]:
    """A client of that very node, and the node's name."""
    where = _address_of(session, name) if name else _only_url(session)
    with session.connect(where, timeout_s=session.request_s(request_s)) as client:
        found = client.ping().name
        if name and found != name:
            raise Quit(
                exits.FAILED,
                f"{found} answers at the address of {name}: nothing was done",
                "leafdb node list has the addresses",
            )
        yield client, found


@contextmanager
def _about(session: Session, name: str) -> Iterator[tuple[Client, str]]:
    """A client of any node, and the name of the one that is meant."""
    if not name:
        with node_client(session, "") as found:
            yield found
        return
    with session.client(routing="listed", timeout_s=DRAIN_TIMEOUT_S) as client:
        yield client, name


def _address_of(session: Session, name: str) -> str:
    return str(_listed(session.ask("node.list")["nodes"], name)["client"])


def _listed(nodes: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """The member of this name. Quit when there is none."""
    for node in nodes:
        if node["name"] == name:
            return node
    known = ", ".join(str(node["name"]) for node in nodes)
    raise Quit(exits.NOT_FOUND, f"there is no node {name!r}; there are {known}", "say one of these names")


def _only_url(session: Session) -> str:
    url = url_of(session.options)
    if "," in url:
        raise typer.BadParameter("several addresses are given, and one node is meant: say its NAME")
    return url
