"""`leafdb role`: grants under a name, given to users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Roles: what users may do.", no_args_is_help=True, rich_markup_mode=None)

CHANGE_TIMEOUT_S: Final = 15.0
GRANT_HELP: Final = (
    "VERB[:BUCKET[/PREFIX]], as read:carts, write:carts/user-, delete:*, bucket.create, admin.read; "
    "leafdb role create --help has all."
)
NAME = Annotated[str, typer.Argument(metavar="ROLE", help="The role's name.")]
GRANTS = Annotated[list[str], typer.Argument(metavar="GRANT...", help=GRANT_HELP)]

COLUMNS: Final = [
    Column("name"),
    Column("built_in", "built in", spare=1),
    Column("grants", show=lambda grants: ", ".join(grants) or "-"),
    Column("users", show=lambda users: ", ".join(users) or "-", spare=2),
]


def _print(session: Session, items: list[Mapping[str, Any]]) -> None:
    session.output.items("RoleList", items, COLUMNS, empty="no roles")


def _change(session: Session, verb: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    return session.ask(verb, args, changes=True, timeout_s=CHANGE_TIMEOUT_S)


def _checked(grants: Sequence[str]) -> list[str]:
    """Grants as they are kept. A word that is none is told before anything is asked."""
    from leafdb.model.grants import parse_grant

    try:
        return sorted({str(parse_grant(each)) for each in grants})
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="GRANT") from None


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every role, those built in first.

    Example: leafdb role list
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _print(session, list(session.ask("role.list")["roles"])))


@app.command()
def show(ctx: typer.Context, role: NAME) -> None:
    """Show one role.

    Example: leafdb role show reader
    """
    session = session_of(ctx)
    found = [item for item in session.ask("role.list")["roles"] if item["name"] == role]
    if not found:
        raise Quit(exits.NOT_FOUND, f"there is no role {role!r}", "leafdb role list names them")
    _print(session, found)


@app.command()
def create(ctx: typer.Context, role: NAME, grants: GRANTS) -> None:
    """Make a role.

    A grant is VERB, VERB:BUCKET or VERB:BUCKET/PREFIX; * is every bucket, and what is said without one. Verbs: read,
    write, delete (these three take a prefix, of the key or of a pair's partition key), bucket.create, bucket.set,
    bucket.drop, admin.read, admin.operate, admin.cluster, admin.backup, admin.accounts; bucket.*, admin.* and * stand
    for several. hex:00ff as PREFIX means these bytes.

    Example: leafdb role create cart-service read:carts write:carts delete:carts/tmp-
    """
    session = session_of(ctx)
    _print(session, [_change(session, "role.create", {"name": role, "grants": _checked(grants)})])


@app.command()
def grant(ctx: typer.Context, role: NAME, grants: GRANTS) -> None:
    """Add grants to a role; whoever has it may do so at once.

    Example: leafdb role grant cart-service read:prices
    """
    session = session_of(ctx)
    _print(session, [_change(session, "role.set", {"name": role, "add": _checked(grants), "remove": []})])


@app.command()
def revoke(ctx: typer.Context, role: NAME, grants: GRANTS) -> None:
    """Take grants from a role; it counts from the next request on, on open connections too.

    Example: leafdb role revoke cart-service read:prices
    """
    session = session_of(ctx)
    _print(session, [_change(session, "role.set", {"name": role, "add": [], "remove": _checked(grants)})])


@app.command()
def drop(ctx: typer.Context, role: NAME) -> None:
    """Drop a role that nobody has.

    Example: leafdb role drop cart-service
    """
    session = session_of(ctx)
    _change(session, "role.drop", {"name": role})
    session.note(f"dropped role {role}")
