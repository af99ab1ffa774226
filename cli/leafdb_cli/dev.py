"""`leafdb dev`: a local cluster of real processes, to try things and to develop against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb_cli.render import Column
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="A local cluster of real processes.", no_args_is_help=True, rich_markup_mode=None)

FOLLOW_S: Final = 0.2

DIR = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where the cluster lives.")]
INDEX = Annotated[int, typer.Argument(metavar="I", help="The node's number, from 0.")]
DEFAULT_DIR: Final = Path("./.leafdb-dev")


def _state_style(state: Any) -> str:
    return "green" if state == "running" else "red"


COLUMNS: Final = [
    Column("name"), Column("state", style=_state_style), Column("pid", right=True), Column("client"), Column("peer"),
    Column("http"), Column("dir"),
]  # fmt: skip


def _print(session: Session, items: Sequence[dict[str, Any]], empty: str = "") -> None:
    session.output.items("DevNodeList", items, COLUMNS, empty=empty)


def _cluster(session: Session, directory: Path) -> Any:
    from leafdb_cli.dev_cluster import DevCluster

    return DevCluster(directory, session.note)


@app.command()
def up(
    ctx: typer.Context,
    directory: DIR = DEFAULT_DIR,
    n: Annotated[int | None, typer.Option("-n", metavar="N", help="Nodes, 3 unless said.")] = None,
    base_port: Annotated[
        int | None, typer.Option("--base-port", metavar="P", help="First port, 7411 unless said; 0: a free block.")
    ] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", metavar="K", help="Members on each node, 1 unless said: node.shards.")
    ] = None,
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="Speak TLS, with a CA made for it; not unless said.")
    ] = None,
) -> None:
    """Start a cluster, or start again what is in the directory; returns when every node is ready.

    Example: leafdb dev up -n 3
    """
    from leafdb_cli.dev_layout import node_items

    session = session_of(ctx)
    started = time.monotonic()
    nodes = _cluster(session, directory).up(n, base_port, shards, tls=tls)
    items = [item for node in nodes for item in node_items(node)]
    _print(session, items)
    session.note(f"{len(items)} nodes ready after {time.monotonic() - started:.1f} s")
    if session.output.pretty:
        given = f" --tls-ca {nodes[0].ca}" if nodes[0].ca else ""
        session.note(f"try: leafdb --node {nodes[0].client}{given} bucket create demo")


@app.command()
def down(
    ctx: typer.Context,
    directory: DIR = DEFAULT_DIR,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the data as well.")] = False,
) -> None:
    """Stop every node. Doing it twice is fine.

    Examples: leafdb dev down, leafdb dev down --purge
    """
    session = session_of(ctx, dry_run=True)
    cluster = _cluster(session, directory)
    if session.options.dry_run:
        session.note(f"would stop the nodes in {cluster.directory}" + (" and remove their data" if purge else ""))
        return
    stopped = cluster.down(purge=purge)
    session.note(f"stopped {stopped} nodes" + (", removed the data" if purge else ""))


@app.command()
def status(ctx: typer.Context, directory: DIR = DEFAULT_DIR) -> None:
    """List the nodes and whether they run.

    Example: leafdb dev status
    """
    session = session_of(ctx, watch=True)
    cluster = _cluster(session, directory)
    session.watching(lambda: _print(session, cluster.items()))


@app.command()
def kill(ctx: typer.Context, index: INDEX, directory: DIR = DEFAULT_DIR) -> None:
    """Kill a node with SIGKILL, as a power cut would.

    Example: leafdb dev kill 2
    """
    session = session_of(ctx)
    ran = _cluster(session, directory).kill(index)
    session.note(f"dev-{index} is killed" if ran else f"dev-{index} did not run")


@app.command()
def start(ctx: typer.Context, index: INDEX, directory: DIR = DEFAULT_DIR) -> None:
    """Start a node again; returns when it is ready.

    Example: leafdb dev start 2
    """
    session = session_of(ctx)
    node = _cluster(session, directory).start(index)
    session.note(f"{node.name} is ready at {node.client}")


@app.command()
def logs(
    ctx: typer.Context,
    index: INDEX,
    directory: DIR = DEFAULT_DIR,
    lines: Annotated[int, typer.Option("--lines", "-l", min=1, help="The last so many lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
) -> None:
    """Print what a node says.

    Example: leafdb dev logs 2
    """
    session = session_of(ctx)
    cluster = _cluster(session, directory)
    node = cluster.node(index)
    text = cluster.tail(node, lines)
    if text:
        session.output.out.write(text + "\n")
        session.output.out.flush()
    if follow:
        _follow(node.log, session.output.data)


def _follow(path: Path, write: Callable[[bytes], None]) -> None:
    with path.open("rb") as file:
        file.seek(0, 2)
        while True:
            data = file.read()
            if data:
                write(data)
            else:
                time.sleep(FOLLOW_S)
