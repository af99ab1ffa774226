"""`leafdb bench`: the load generator."""

from __future__ import annotations

import typer

app = typer.Typer(help="The load generator.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def run(ctx: typer.Context) -> None:
    """x"""


@app.command()
def run2(ctx: typer.Context) -> None:
    """x"""
