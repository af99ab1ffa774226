"""`leafdb storage`: what nodes keep on disk."""

from __future__ import annotations

import typer

from leafdb_cli import storage_snapshot

app = typer.Typer(help="What nodes keep on disk: snapshots.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(storage_snapshot.app, name="snapshot")
