"""`leafdb NOUN VERB`: the command tree and its global options.

A noun is a file that holds a typer app. Only the noun that was named is imported, and the client, rich and the rest
inside command bodies, so that `leafdb --help` costs what Python and typer cost.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import FrameType
from typing import Annotated, Final, NoReturn

import typer

from leafdb.limits import REQUEST_TIMEOUT_S_MAX
from leafdb_cli.guard import Guard
from leafdb_cli.options import VALUED, Format, Options, hoist, parse_duration_s
from leafdb_cli.session import Session

NOUNS: Final[Mapping[str, str]] = {
    "dev": "A local cluster of real processes.",
    "status": "How the cluster is; with --check an exit code for scripts.",
    "doctor": "What is wrong, and what to do about it.",
    "top": "What every node does just now: rates, latencies, what waits.",
    "kv": "Keys and values.",
    "bucket": "Buckets and their properties.",
    "ring": "The ring: who owns which partitions.",
    "cluster": "Found a cluster, see whether it agrees, change its ring.",
    "node": "The members of the cluster.",
    "transfer": "Copies that a ring change makes.",
    "hints": "Writes kept for nodes that were away.",
    "repair": "Anti-entropy between replicas.",
    "user": "Users: who may log in.",
    "role": "Roles: what users may do.",
    "token": "Tokens, by which programs log in.",
    "backup": "Backups of the whole cluster.",
    "storage": "The stores of the nodes, and their files.",
    "stats": "What nodes count: durations, queues, hot keys.",
    "metrics": "All that a node counts; dashboards and alert rules for it.",
    "task": "Long jobs of the nodes, of every kind.",
    "config": "Configuration of nodes.",
    "cert": "Certificates for TLS: the CA, nodes, clients.",
    "bench": "The load generator.",
    "sim": "Simulations from one seed, and known bugs that they must find.",
    "context": "Saved connections: what --cluster names.",
    "shell": "Commands at a prompt, with history and completion.",
    "completion": "Completion of commands and names in bash, zsh and fish.",
    "version": "The version of this client.",
}
"""What may follow `leafdb`, with the line that `leafdb --help` shows. Each is a module of this package."""


def root(
    ctx: typer.Context,
    node_: Annotated[
        str, typer.Option("--node", metavar="HOST:PORT", help="Any node, or several with commas. [env: LEAFDB_NODE]")
    ] = "",
    cluster_: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="A saved connection instead. [env: LEAFDB_CLUSTER]")
    ] = "",
    tls_ca: Annotated[
        str, typer.Option("--tls-ca", metavar="FILE", help="Speak TLS; the cluster's CA. [env: LEAFDB_CA_FILE]")
    ] = "",
    tls_cert: Annotated[
        str, typer.Option("--tls-cert", metavar="FILE", help="A client's certificate. [env: LEAFDB_CERT_FILE]")
    ] = "",
    tls_key: Annotated[str, typer.Option("--tls-key", metavar="FILE", help="Its key. [env: LEAFDB_KEY_FILE]")] = "",
    output: Annotated[Format, typer.Option("-o", "--output", help="How data is printed.")] = Format.TABLE,
    timeout: Annotated[
        str,
        typer.Option(
            "--timeout", metavar="TIME", help="Deadline of each request, as 5s; with --wait of the waiting, as 2h."
        ),
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
        if timeout_s <= 0 or (timeout_s > REQUEST_TIMEOUT_S_MAX and not wait):
            most = f"a deadline lies above 0 and at most at {REQUEST_TIMEOUT_S_MAX:.0f} seconds, but for that of --wait"
            raise typer.BadParameter(most, param_hint="--timeout")
    ctx.obj = Session(
        Options(
            node=node_,
            cluster=cluster_,
            tls_ca=tls_ca,
            tls_cert=tls_cert,
            tls_key=tls_key,
            output=output,
            timeout_s=timeout_s,
            yes=yes,
            dry_run=dry_run,
            watch=watch,
            wait=wait,
            no_color=no_color,
        )
    )


def build(noun: str | None = None) -> typer.Typer:
    """The command tree: with one noun's commands, or with all; the other nouns are names with a line of help."""
    app = typer.Typer(
        cls=Guard,
        help="Work with leafdb clusters. Data goes to stdout, notes and progress to stderr.",
        epilog="The options above may stand anywhere on the line. Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, "
        "4 conflict, 5 unavailable, 6 unauthorized, 7 unhealthy, 8 plan is stale, 9 outcome unknown, 130 interrupted.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 110},
    )
    app.callback()(root)
    for name, line in NOUNS.items():
        if noun not in (None, name):
            app.add_typer(typer.Typer(), name=name, help=line)
            continue
        found = import_module(f"leafdb_cli.{name}")
        if isinstance(getattr(found, "app", None), typer.Typer):
            app.add_typer(found.app, name=name, short_help=line)  # its own help says more
        else:
            app.command(name, help=None)(getattr(found, name))
    return app


def noun_of(arguments: Sequence[str]) -> str:
    """The noun on a hoisted line; empty when there is none, or none that is known."""
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if not argument.startswith("-"):
            return argument if argument in NOUNS else ""
        position += 2 if argument in VALUED else 1
    return ""


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    # What a command has begun (nodes that start, a bucket of a benchmark) is undone on SIGTERM as on control-C.
    signal.signal(signal.SIGTERM, _terminate)
    arguments = hoist(sys.argv[1:] if argv is None else argv)
    build(noun_of(arguments))(args=arguments, prog_name="leafdb")


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
