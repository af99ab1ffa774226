"""`leafdb user`: who may log in. A password becomes a verifier here; nodes are never given one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="Users: who may log in.", no_args_is_help=True, rich_markup_mode=None)

CHANGE_TIMEOUT_S: Final = 15.0
ROLES: Final = "admin, operator, writer, reader, or one of leafdb role create."

NAME = Annotated[str, typer.Argument(metavar="USER", help="The user's name.")]
FILE = Annotated[
    str, typer.Option("--password-file", metavar="FILE", help="A file that holds the password, instead of a prompt.")
]
GIVEN = Annotated[list[str], typer.Argument(metavar="ROLE...", help=ROLES)]

COLUMNS: Final = [
    Column("name"),
    Column("password"),
    Column("roles", show=lambda roles: ", ".join(roles) or "-"),
    Column("tokens", show=lambda tokens: ", ".join(tokens) or "-", spare=1),
]


def _print(session: Session, items: list[Mapping[str, Any]]) -> None:
    session.output.items("UserList", items, COLUMNS, empty="no users")


def _change(session: Session, verb: str, args: Mapping[str, Any]) -> Mapping[str, Any]:
    return session.ask(verb, args, changes=True, timeout_s=CHANGE_TIMEOUT_S)


def _verifier(path: str) -> dict[str, Any]:
    """What the nodes keep of the password that was given or typed."""
    from leafdb.client.auth import verifier_for
    from leafdb_cli.credentials import new_password

    return verifier_for(new_password(path))


@app.command("list")
def list_(ctx: typer.Context) -> None:
    """List every user.

    Example: leafdb user list
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _print(session, list(session.ask("user.list")["users"])))


@app.command()
def show(ctx: typer.Context, user: NAME) -> None:
    """Show one user, and all that the user's roles grant.

    Example: leafdb user show alice
    """
    session = session_of(ctx)
    found = [item for item in session.ask("user.list")["users"] if item["name"] == user]
    if not found:
        raise Quit(exits.NOT_FOUND, f"there is no user {user!r}", "leafdb user list names them")
    columns = [*COLUMNS, Column("grants", show=lambda grants: ", ".join(grants) or "-")]
    session.output.items("UserList", found, columns)


@app.command()
def create(
    ctx: typer.Context,
    user: NAME,
    role: Annotated[list[str] | None, typer.Option("--role", metavar="ROLE", help=f"May stand again: {ROLES}")] = None,
    password_file: FILE = "",
    no_password: Annotated[bool, typer.Option("--no-password", help="Only tokens let this user in.")] = False,
) -> None:
    """Make a user; the password is asked for, or read from a file. Without a role a user may do nothing.

    The first one is made with the cluster's own secret: LEAFDB_SECRET_FILE names it.

    Example: leafdb user create alice --role admin
    """
    session = session_of(ctx)
    if no_password and password_file:
        raise typer.BadParameter("--no-password and --password-file exclude each other")
    verifier = None if no_password else _verifier(password_file)
    made = _change(session, "user.create", {"name": user, "verifier": verifier, "roles": sorted(set(role or ()))})
    _print(session, [made] if made else [])


@app.command("set")
def set_(
    ctx: typer.Context,
    user: NAME,
    password_file: FILE = "",
    no_password: Annotated[bool, typer.Option("--no-password", help="Take the password away: tokens only.")] = False,
) -> None:
    """Give a user another password. Who is logged in with the old one has to log in again.

    Everybody may change their own, who has logged in with a password: LEAFDB_USER says who that is.

    Example: leafdb user set alice --password-file alice.new
    """
    session = session_of(ctx)
    if no_password and password_file:
        raise typer.BadParameter("--no-password and --password-file exclude each other")
    verifier = None if no_password else _verifier(password_file)
    made = _change(session, "user.password", {"name": user, "verifier": verifier})
    _print(session, [made] if made else [])


@app.command()
def grant(ctx: typer.Context, user: NAME, roles: GIVEN) -> None:
    """Give a user roles.

    Example: leafdb user grant alice writer
    """
    session = session_of(ctx)
    _print(session, [_change(session, "user.roles", {"name": user, "add": sorted(set(roles)), "remove": []})])


@app.command()
def revoke(ctx: typer.Context, user: NAME, roles: GIVEN) -> None:
    """Take roles from a user; it counts from the next request on, on open connections too.

    Example: leafdb user revoke alice writer
    """
    session = session_of(ctx)
    _print(session, [_change(session, "user.roles", {"name": user, "add": [], "remove": sorted(set(roles))})])


@app.command()
def drop(ctx: typer.Context, user: NAME) -> None:
    """Drop a user with all tokens; open connections may do nothing more.

    Example: leafdb user drop alice
    """
    session = session_of(ctx)
    _change(session, "user.drop", {"name": user})
    session.note(f"dropped user {user}")
