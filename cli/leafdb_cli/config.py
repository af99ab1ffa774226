"""`leafdb config`: what leafdbd would say about a configuration file, before it is asked to run with it; and what a
node runs with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column
from leafdb_cli.session import session_of

app = typer.Typer(help="Configuration of nodes.", no_args_is_help=True, rich_markup_mode=None)

CHECK_S: Final = 30.0
COLUMNS: Final = [Column("level"), Column("path"), Column("problem")]
SETTING_COLUMNS: Final = [Column("path", "setting"), Column("value")]
ORIGIN_COLUMN: Final = Column("origin")
DEFAULT_COLUMN: Final = Column("default")
WAITING_COLUMN: Final = Column("waiting", "waits for a restart")


@app.command()
def check(ctx: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE", help="A leafdb.toml.")]) -> None:
    """Check a configuration file as leafdbd reads it: every problem at once, each with its path.

    Example: leafdb config check /etc/leafdb/leafdb.toml
    """
    session = session_of(ctx)
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "leafdb.node.main", "--config", str(file), "--check"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Quit(exits.FAILED, f"leafdbd said nothing of {file} within {CHECK_S:.0f} s", "try it again") from None
    items = [
        _item("warning", line.removeprefix("warning: "))
        for line in finished.stdout.splitlines()
        if line.startswith("warning: ")
    ]
    items += [_item("error", line.removeprefix("leafdbd: ")) for line in finished.stderr.splitlines() if line.strip()]
    session.output.items("ConfigProblemList", items, COLUMNS)
    if finished.returncode != 0:
        count = sum(item["level"] == "error" for item in items)
        raise Quit(
            exits.FAILED,
            f"{file}: {count} problem{'' if count == 1 else 's'}",
            "docs/operations/configuration.md has every setting",
        )
    for line in finished.stdout.splitlines():
        if line.startswith("shard "):
            session.note(line)
    session.note(f"{file} is fine")


@app.command()
def show(
    ctx: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Only what differs from its default, or waits.")] = False,
) -> None:
    """Show the settings of the node that answers, as they are in force. Secrets are files, and never shown.

    Example: leafdb config show --diff --origin
    """
    session = session_of(ctx)
    reply = session.ask("config.show")
    items = [dict(item) for item in reply["settings"] if not diff or item["differs"] or item["waiting"]]
    columns = [*SETTING_COLUMNS, *([DEFAULT_COLUMN] if diff else []), *([ORIGIN_COLUMN] if origin else [])]
    if any(item["waiting"] for item in items):
        columns.append(WAITING_COLUMN)
    session.output.items("SettingList", items, columns, extra={"node": reply["node"]})
    session.note(f"of node {reply['node']}")


def _item(level: str, line: str) -> dict[str, str]:
    path, colon, problem = line.partition(": ")
    if not colon or " " in path:
        return {"level": level, "path": "", "problem": line}
    return {"level": level, "path": path, "problem": problem}
