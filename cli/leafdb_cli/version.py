"""`leafdb version`: which client this is."""

from __future__ import annotations

import platform

import typer

import leafdb
from leafdb_cli.render import Column
from leafdb_cli.session import session_of


def version(ctx: typer.Context) -> None:
    """Show the version of this client.

    Example: leafdb version
    """
    item = {"client": leafdb.__version__, "python": platform.python_version()}
    session_of(ctx).output.items("VersionList", [item], [Column("client"), Column("python")])
