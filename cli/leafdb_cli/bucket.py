"""`leafdb bucket`: buckets and their properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast

import typer

from leafdb_cli.options import parse_duration_s
from leafdb_cli.quorums import parse_quorum
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Buckets and their properties.", no_args_is_help=True, rich_markup_mode=None)

COUNTED_MAX: Final = 1_000
COUNTS: Final = ("r", "w", "pr", "pw", "dw")
SET_TIMEOUT_S: Final = 15.0

COLUMNS: Final = [
    Column("name"), Column("conflict"), Column("durability"), Column("n"), Column("r"), Column("w"), Column("pr"),
    Column("pw"), Column("dw"), Column("ttl_s", "ttl"), Column("sloppy"),
]  # fmt: skip

NAME = Annotated[str, typer.Argument(metavar="BUCKET", help="The bucket's name.")]


def item_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """A bucket's item from its properties on the wire."""
    from leafdb.model.bucket import BucketProperties, count_name

    found = BucketProperties.from_wire(properties)
    return {
        "name": found.name,
        "id": int(found.id),
        "generation": found.generation,
        "n": found.n,
        "r": count_name(found.r),
        "w": count_name(found.w),
        "pr": count_name(found.pr),
        "pw": count_name(found.pw),
        "dw": count_name(found.dw),
        "conflict": found.conflict.name.lower(),
        "durability": found.durability.name.lower(),
        "ttl_s": found.ttl_ms / 1000 if found.ttl_ms else None,
        "sloppy": found.sloppy,
    }


def _print(session: Session, items: list[dict[str, Any]]) -> None:
    session.output.items("BucketList", items, COLUMNS, empty="no buckets")


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every bucket.

    Example: leafdb bucket list -o json
    """
    session = session_of(ctx, watch=True)
    session.watching(
        lambda: _print(
            session, sorted(map(item_of, session.ask("bucket.list")["buckets"]), key=lambda item: str(item["name"]))
        )
    )


@app.command()
def show(ctx: typer.Context, bucket: NAME) -> None:
    """Show one bucket's properties.

    Example: leafdb bucket show carts
    """
    session = session_of(ctx)
    _print(session, [item_of(session.ask("bucket.get", {"name": bucket}))])


@app.command()
def create(
    ctx: typer.Context,
    bucket: NAME,
    n: Annotated[int, typer.Option("--n", "-n", help="Replicas of each key.")] = 3,
    r: Annotated[str, typer.Option("--r", help="Replicas a read waits for: a number, quorum or all.")] = "quorum",
    w: Annotated[str, typer.Option("--w", help="Replicas a write waits for.")] = "quorum",
    pr: Annotated[str, typer.Option("--pr", help="Of them primaries, on reads.")] = "0",
    pw: Annotated[str, typer.Option("--pw", help="Of them primaries, on writes.")] = "0",
    dw: Annotated[str, typer.Option("--dw", help="Of them synced to disk, on writes.")] = "0",
    conflict: Annotated[str, typer.Option("--conflict", help="siblings keeps concurrent values, lww the newest.")] = (
        "siblings"
    ),
    durability: Annotated[str, typer.Option("--durability", help="always: synced before it is acknowledged.")] = (
        "always"
    ),
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="Time to live of a write that says none.")] = "",
    strict: Annotated[bool, typer.Option("--strict", help="No copy on a fallback counts.")] = False,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Fine if it is there with equal properties.")] = False,
) -> None:
    """Create a bucket; returns once every live member holds it.

    Examples: leafdb bucket create carts --n 3 --w all, leafdb bucket create latest --conflict lww --ttl 7d
    """
    session = session_of(ctx)
    counts = {name: parse_quorum(name, text) for name, text in zip(COUNTS, (r, w, pr, pw, dw), strict=True)}
    try:
        ttl_s = parse_duration_s(ttl) if ttl else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from None
    with session.client() as client:
        client.create_bucket(
            bucket,
            n=n,
            r=counts["r"],
            w=counts["w"],
            pr=counts["pr"],
            pw=counts["pw"],
            dw=counts["dw"],
            # The client refuses a policy this version lacks and lists those it has.
            conflict=cast(Literal["siblings", "lww"], conflict),
            durability=cast(Literal["always", "periodic"], durability),
            ttl=ttl_s,
            sloppy=not strict,
            exist_ok=exist_ok,
        )
        _print(session, [item_of(client.admin("bucket.get", {"name": bucket}))])


@app.command("set")
def set_(
    ctx: typer.Context,
    bucket: NAME,
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="r, w, pr, pw, dw, ttl or sloppy, each with =VALUE.")
    ],
) -> None:
    """Change properties of a bucket; returns once every live member goes by them.

    They are for requests to come: nothing that is there is written again, and a ttl is given to new writes only. n,
    conflict and durability are fixed at creation.

    Examples: leafdb bucket set carts w=all dw=1, leafdb bucket set carts ttl=7d, leafdb bucket set carts ttl=none
    """
    session = session_of(ctx)
    properties: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise typer.BadParameter(f"{change!r} is not KEY=VALUE", param_hint="KEY=VALUE")
        properties.update([property_of(name, value)])
    reply = session.ask("bucket.set", {"name": bucket, "properties": properties}, changes=True, timeout_s=SET_TIMEOUT_S)
    _print(session, [item_of(reply["bucket"])])


def property_of(name: str, value: str) -> tuple[str, Any]:
    """A property as it crosses the wire. What cannot be changed is sent as it stands: the node says why it cannot."""
    from leafdb.model.bucket import count_from_name

    try:
        if name in COUNTS:
            return name, count_from_name(parse_quorum(name, value))
        if name == "ttl":
            return "ttl_ms", 0 if value == "none" else round(1000 * parse_duration_s(value))
    except ValueError as error:
        raise typer.BadParameter(f"{error}{', nor none' if name == 'ttl' else ''}", param_hint=name) from None
    if name == "sloppy":
        if value not in ("true", "false"):
            raise typer.BadParameter(f"{value!r} is neither true nor false", param_hint="sloppy")
        return name, value == "true"
    return name, value


@app.command()
def drop(
    ctx: typer.Context,
    bucket: NAME,
    understood: Annotated[
        bool, typer.Option("--i-understand-data-loss", help="With --yes: do it without asking.")
    ] = False,
) -> None:
    """Drop a bucket with everything in it.

    Examples: leafdb bucket drop carts --dry-run, leafdb bucket drop carts
    """
    session = session_of(ctx, dry_run=True)
    with session.client() as client:
        properties = item_of(client.admin("bucket.get", {"name": bucket}))
        losses = [f"bucket {bucket} would be lost with {_census(client, properties)}"]
        if session.options.dry_run:
            session.note("\n".join(losses))
            _print(session, [properties])
            return
        session.confirm_loss(str(client.status().cluster), losses, understood=understood)
        client.drop_bucket(bucket)
    session.note(f"dropped {bucket}")


def _census(client: Any, properties: Mapping[str, Any]) -> str:
    handle = client.lww_bucket if properties["conflict"] == "lww" else client.bucket
    count = sum(1 for _ in handle(properties["name"]).scan(limit=COUNTED_MAX, r=1))
    if count == 0:
        return "no keys in it"
    return f"at least {count} keys" if count == COUNTED_MAX else f"{count} keys" if count > 1 else "1 key"
