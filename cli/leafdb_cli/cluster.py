"""`leafdb cluster`: founding, whether the members agree, and the noun of every change of the ring.

The changes have files of their own: `cluster_stage`, `cluster_plan`, `cluster_recover`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb.config import SHARDS_MAX, parse_address, shard_address, shard_name
from leafdb_cli import cluster_plan, cluster_recover, cluster_stage
from leafdb_cli.members import change_item, tell_changes
from leafdb_cli.node import node_columns
from leafdb_cli.render import Column, joined
from leafdb_cli.session import Session, session_of

app = typer.Typer(
    help="Found a cluster, see whether it agrees, change its ring.", no_args_is_help=True, rich_markup_mode=None
)

INIT_TIMEOUT_S: Final = 30.0
MEMBER_FIELDS: Final = ("name", "host", "zone", "weight", "client", "peer", "http")

STATUS_COLUMNS: Final = [
    Column("name"), Column("cluster_id", spare=2), Column("epoch"), Column("generation", spare=1), Column("agree"),
    Column("control", show=joined),
]  # fmt: skip


@app.command()
def init(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The cluster's name.")],
    member: Annotated[
        list[str] | None,
        typer.Option(
            "--member",
            metavar="SPEC",
            help="name=N,client=HOST:PORT[,peer=][,http=][,host=][,zone=][,weight=][,shards=]; repeat",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--members", metavar="FILE", help="A TOML file with a [[member]] table for each.")
    ] = None,
) -> None:
    """Found a cluster, once, from a list of nodes that run and belong to none.

    Where peer and http are left out they are the client's next two ports; host is the name, zone is default, weight
    is 1. With shards=K, as in that machine's configuration, NAME stands for its members NAME-0 to NAME-(K-1), each
    with ports 10 above those of the one before. Run again with the same members it goes on where it was interrupted.

    Example: leafdb cluster init prod --members members.toml --dry-run
    """
    session = session_of(ctx, dry_run=True)
    try:
        members = [each for spec in member or () for each in parse_members(spec)]
        if file is not None:
            for entry in tomllib.loads(file.read_text(encoding="utf-8"))["member"]:
                members += _completed(entry)
    except (ValueError, KeyError, TypeError) as error:
        raise typer.BadParameter(f"{error}") from None
    if not members:
        raise typer.BadParameter("a cluster has members: give --member for each, or --members FILE")
    doubles = {entry["name"] for entry in members if sum(entry["name"] == other["name"] for other in members) > 1}
    if doubles:
        raise typer.BadParameter(f"two members with the name {', '.join(sorted(doubles))}")
    columns = [Column(field) for field in MEMBER_FIELDS]
    if session.options.dry_run:
        session.note(f"would found {name}")
        session.output.items("MemberList", members, columns)
        return
    found(session, name, members)
    session.output.items("MemberList", members, columns)
    session.note(f"founded {name} with {len(members)} members")


def found(session: Session, name: str, members: Sequence[Mapping[str, Any]]) -> None:
    """Ask the node the options name, or else the first member, to found the cluster."""
    from leafdb_cli.options import url_of

    named = session.options.node or session.options.cluster
    where = url_of(session.options) if named else str(members[0]["client"])
    args = {"name": name, "members": [dict(entry) for entry in members]}
    with session.connect(where, timeout_s=session.timeout_s(INIT_TIMEOUT_S)) as client:
        client.admin("cluster.init", args, changes=True)


def parse_members(spec: str) -> list[dict[str, Any]]:
    """The member in `name=N,client=HOST:PORT,...`, or the shards it stands for. ValueError."""
    fields: dict[str, str] = {}
    for part in spec.split(","):
        key, equals, value = part.partition("=")
        if not equals or not value:
            raise ValueError(f"{part!r} in {spec!r} is not FIELD=VALUE")
        fields[key.strip()] = value.strip()
    return _completed(fields)


def _completed(given: Mapping[str, Any]) -> list[dict[str, Any]]:
    fields = {key: str(value) for key, value in given.items()}
    known = (*MEMBER_FIELDS, "shards")
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(f"a member has {', '.join(known)}, not {', '.join(unknown)}")
    if not fields.get("name") or not fields.get("client"):
        raise ValueError("a member needs at least name= and client=")
    host, _, port = fields["client"].rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_533:
        raise ValueError(f"client={fields['client']} is not HOST:PORT")
    fields.setdefault("peer", f"{host}:{int(port) + 1}")
    fields.setdefault("http", f"{host}:{int(port) + 2}")
    fields.setdefault("host", fields["name"])
    fields.setdefault("zone", "default")
    whole = {**fields, "weight": _number(fields, "weight", 0, 10_000)}
    count = _number(fields, "shards", 1, SHARDS_MAX)
    return [
        _shard(whole, number) if count > 1 else {key: whole[key] for key in MEMBER_FIELDS} for number in range(count)
    ]


def _shard(machine: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One of several members on a machine, by the rule that leafdbd goes by as well."""
    moved = {key: str(shard_address(parse_address(machine[key]), number)) for key in ("client", "peer", "http")}
    return {key: machine[key] for key in MEMBER_FIELDS} | {"name": shard_name(machine["name"], number)} | moved


def _number(fields: Mapping[str, str], key: str, low: int, high: int) -> int:
    text = fields.get(key, "1")
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ValueError(f"{key}={text} is not a number from {low} to {high}")
    return int(text)


@app.command()
def status(ctx: typer.Context) -> None:
    """Show the cluster's identity, its control set, and whether all members hold the same epoch.

    Example: leafdb cluster status
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show(session))


def _show(session: Session) -> None:
    reply = session.ask("cluster.status")
    item = {key: value for key, value in reply.items() if key not in ("errors", "change")} | change_item(reply)
    item["cluster_id"] = bytes(reply["cluster_id"]).hex()
    changing = [Column("control_next", "next control set", joined)] if reply.get("control_next") else []
    session.output.items("ClusterStatusList", [item], [*STATUS_COLUMNS, *changing], errors=reply.get("errors") or {})
    if session.output.pretty:
        session.output.items("NodeList", reply["members"], node_columns(reply["members"]))
    tell_changes(session, reply)


app.add_typer(cluster_stage.app, name="stage")
app.command()(cluster_plan.plan)
app.command()(cluster_plan.commit)
app.command()(cluster_plan.clear)
app.command()(cluster_plan.abort)
app.command()(cluster_recover.recover)
