"""`leafdb NOUN VERB`: the command tree and its global options.

A noun is a file that holds a typer app and imports nothing heavy: the client, rich and the event loop are imported
inside command bodies, so that `leafdb --help` costs what Python and typer cost.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from leafdb_cli import bench, bucket, cluster, config, dev, hints, kv, node, repair, ring, status
from leafdb_cli.options import Format, Options, hoist, parse_duration_s
from leafdb_cli.session import Guard, Session, session_of

app = typer.Typer(
    cls=Guard,
    help="Work with leafdb clusters. Data goes to stdout, notes and progress to stderr.",
    epilog="The options above may stand anywhere on the line. Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, "
    "4 conflict, 5 unavailable, 6 unauthorized, 7 unhealthy, 9 outcome unknown, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
)


@app.callback()
def root(
    ctx: typer.Context,
    node_: Annotated[
        str, typer.Option("--node", metavar="HOST:PORT", help="Any node, or several with commas. [env: LEAFDB_NODE]")
    ] = "",
    cluster_: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="A saved connection instead. [env: LEAFDB_CLUSTER]")
    ] = "",
    output: Annotated[Format, typer.Option("-o", "--output", help="How data is printed.")] = Format.TABLE,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="TIME", help="Deadline of each request, as 5s or 250ms.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, where supported.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show again every two seconds, where supported.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is done, not when it is begun.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours. [env: NO_COLOR]")] = False,
) -> None:
    """Work with leafdb clusters."""
    timeout_s = None
    if timeout:
        try:
            timeout_s = parse_duration_s(timeout)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--timeout") from None
        if not 0 < timeout_s <= 300:
            raise typer.BadParameter("a deadline lies above 0 and at most at 300 seconds", param_hint="--timeout")
    ctx.obj = Session(
        Options(
            node=node_,
            cluster=cluster_,
            output=output,
            timeout_s=timeout_s,
            yes=yes,
            dry_run=dry_run,
            watch=watch,
            wait=wait,
            no_color=no_color,
        )
    )


@app.command()
def version(ctx: typer.Context) -> None:
    """The version of this client."""
    import platform

    import leafdb
    from leafdb_cli.render import Column

    item = {"client": leafdb.__version__, "python": platform.python_version()}
    session_of(ctx).output.items("VersionList", [item], [Column("client"), Column("python")])


app.command("status")(status.status)
for _noun, _app in (
    ("dev", dev.app),
    ("kv", kv.app),
    ("bucket", bucket.app),
    ("ring", ring.app),
    ("cluster", cluster.app),
    ("node", node.app),
    ("hints", hints.app),
    ("repair", repair.app),
    ("config", config.app),
    ("bench", bench.app),
):
    app.add_typer(_app, name=_noun)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    app(args=hoist(sys.argv[1:] if argv is None else argv), prog_name="leafdb")


if __name__ == "__main__":
    main()
