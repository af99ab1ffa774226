"""`leafdb backup`: a copy of the whole cluster in a directory, looked at, proved sound, and brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from leafdb.errors import ConfigError, StorageError
from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.options import parse_size
from leafdb_cli.progress import bar
from leafdb_cli.render import Column, human_bytes
from leafdb_cli.session import session_of

app = typer.Typer(help="Backups of the whole cluster.", no_args_is_help=True, rich_markup_mode=None)

TIMEOUT_S: Final = 60.0
SHOWN_MAX: Final = 20

PATH = Annotated[Path, typer.Argument(metavar="PATH", help="The backup's own directory: DIR/NAME.")]

COLUMNS: Final = [
    Column("name"), Column("cluster"), Column("taken"), Column("nodes"), Column("missing", spare=1),
    Column("buckets"), Column("files", right=True, spare=2), Column("bytes", "size", human_bytes, right=True),
    Column("state"),
]  # fmt: skip
PROBLEM_COLUMNS: Final = [Column("path"), Column("problem")]


@app.command()
def create(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups are kept; made when missing.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What this one is called.")],
    allow_missing: Annotated[
        list[str] | None,
        typer.Option("--allow-missing", metavar="NODE", help="Go on without this member, which is down."),
    ] = None,
    rate: Annotated[str, typer.Option("--rate", metavar="SIZE", help="Fetch at most so much a second, as 50MiB.")] = "",
) -> None:
    """Back the whole cluster up, from every node, while it serves.

    Every write that was acknowledged before this began is in it. Interrupted, it goes on where it was when it is run
    again. It is read back whole before it gets its name.

    Example: leafdb backup create /backups --name monday --rate 50MiB
    """
    from leafdb_cli.backup_create import BackupJob

    session = session_of(ctx)
    try:
        rate_bytes = parse_size(rate) if rate else 0
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rate") from None
    with session.client(routing="listed", timeout_s=TIMEOUT_S) as client:
        listing = BackupJob(session, client, directory, name, tuple(allow_missing or ()), rate_bytes).run()
    session.output.items("BackupList", [item_of(listing)], COLUMNS)


@app.command("list")
def list_(
    ctx: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups are kept.")],
) -> None:
    """List the backups in a directory, oldest first. Needs no cluster, and reads no more than their lists.

    Example: leafdb backup list /backups
    """
    from leafdb.backup.verifying import read_listing
    from leafdb.vfs.disk import DiskFileSystem

    session = session_of(ctx)
    items = []
    for path in sorted(_existing(directory).iterdir()):
        if not path.is_dir():
            continue
        try:
            items.append(item_of(read_listing(DiskFileSystem(path))))
        except StorageError as error:
            unfinished = path.name.endswith(".part")
            state = "not finished" if unfinished else error.message
            items.append({"name": path.name, "state": state})
    items.sort(key=lambda item: str(item.get("taken", "")))
    session.output.items("BackupList", items, COLUMNS, empty=f"no backups in {directory}")


@app.command()
def verify(ctx: typer.Context, path: PATH) -> None:
    """Read every byte of a backup and say what is wrong, by file. Needs no cluster.

    Exit code 0: it is sound. 1: it is damaged.

    Example: leafdb backup verify /backups/monday
    """
    from leafdb.backup.verifying import read_listing
    from leafdb.vfs.disk import DiskFileSystem

    session = session_of(ctx)
    listing = read_listing(DiskFileSystem(_existing(path)))
    problems = problems_of(session.output, path, listing)
    if not problems:
        session.output.items("BackupList", [item_of(listing)], COLUMNS)
        return
    items = [{"path": problem.path, "problem": problem.what} for problem in problems]
    session.output.items("BackupProblemList", items, PROBLEM_COLUMNS)
    raise Quit(
        exits.FAILED, f"{path} is damaged: {len(problems)} problems", "restore an older one, and make a new one now"
    )


@app.command()
def restore(
    ctx: typer.Context,
    path: PATH,
    bucket: Annotated[str, typer.Option("--bucket", metavar="BUCKET", help="This bucket only.")] = "",
    into: Annotated[
        str, typer.Option("--into", metavar="NAME", help="Under this name; also into one that holds keys.")
    ] = "",
) -> None:
    """Bring a backup back, into a cluster of any shape: buckets that are not there are made as they were.

    A damaged backup is refused, and so is a bucket that holds keys, unless --into names it: then what is there and
    what comes are merged. Twice changes nothing. Interrupted, it goes on where it was when it is run again. With
    --dry-run, say what is in the backup and write nothing.

    Example: leafdb backup restore /backups/monday --bucket carts --into carts-of-monday
    """
    from leafdb_cli.backup_restore import restore_from

    session = session_of(ctx, dry_run=True)
    if into and not bucket:
        raise typer.BadParameter("it renames one bucket: say which with --bucket", param_hint="--into")
    restore_from(session, _existing(path), bucket, into)


def problems_of(output: Any, path: Path, listing: Any) -> list[Any]:
    """Everything that is wrong with a backup, found by reading all of it."""
    from leafdb.backup.verifying import verify as read_whole
    from leafdb.vfs.disk import DiskFileSystem

    read = 0
    with bar(output, f"reading {path.name}", 2.0 * listing.size) as progress:

        def more(size: int) -> None:
            nonlocal read
            read += size
            progress.move(read, human_bytes(read))

        return list(read_whole(DiskFileSystem(path), listing, more))


def damage_text(path: Path, problems: list[Any]) -> str:
    """What is wrong with a backup, for people."""
    lines = [f"  {problem.path}: {problem.what}" for problem in problems[:SHOWN_MAX]]
    more = [f"  and {len(problems) - SHOWN_MAX} more: leafdb backup verify"] if len(problems) > SHOWN_MAX else []
    return "\n".join([f"{path} is damaged:", *lines, *more])


def item_of(listing: Any) -> dict[str, Any]:
    """A backup's item."""
    from datetime import UTC, datetime

    taken = datetime.fromtimestamp(min(listing.begun_ms, 253_402_300_799_000) / 1000, UTC)
    return {
        "name": listing.name,
        "cluster": listing.cluster,
        "taken": taken.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "nodes": ", ".join(node.name for node in listing.nodes),
        "missing": ", ".join(listing.missing) or None,
        "buckets": len(listing.buckets),
        "files": len(listing.files),
        "bytes": listing.size,
        "state": "finished",
    }


def _existing(path: Path) -> Path:
    """A directory that is there: looking at one that is not would make it."""
    if not path.is_dir():
        raise ConfigError(f"there is no directory {path}")
    return path
