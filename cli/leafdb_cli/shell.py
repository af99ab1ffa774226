"""`leafdb shell`: the command tree behind a prompt, in one process, with history and completion.

A line is what would stand behind `leafdb`; the global options that the shell was started with are in force on every one
that says nothing else. Commands run as they do alone: dangerous ones ask, exit codes are kept for `exit`. A script on
standard input is read line by line and ends at the first line that fails.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.options import Format, Options, hoist, where_of
from leafdb_cli.session import Session, session_of

HISTORY_LINES_MAX: Final = 1_000
NAME_S: Final = 0.5
"""For the name of the cluster a node is asked so long."""
GREETING: Final = "help lists the commands, exit ends it; the tab key completes"

Run = Callable[[Sequence[str]], int]


def shell(ctx: typer.Context) -> None:
    """Type commands at a prompt, without `leafdb` before them. Tab completes, the arrows bring lines back.

    Lines on standard input are run one by one, until one fails.

    Examples: leafdb --cluster prod shell, leafdb shell < commands.txt
    """
    session = session_of(ctx)
    front = shared_options(session.options)
    if sys.stdin.isatty():
        _talk(session, front)
        return
    for number, line in enumerate(sys.stdin, 1):
        code = run_line(line, front)
        if code:
            raise Quit(code, f"line {number} ended with {code}", "the lines behind it were not run")


def shared_options(options: Options) -> list[str]:
    """The global options of the shell, as a line would have them."""
    valued = (
        ("--node", options.node),
        ("--cluster", options.cluster),
        ("--output", "" if options.output is Format.TABLE else str(options.output)),
        ("--timeout", "" if options.timeout_s is None else f"{options.timeout_s}s"),
    )
    flags = (("--yes", options.yes), ("--wait", options.wait), ("--no-color", options.no_color))
    return [
        *(word for name, value in valued if value for word in (name, value)),
        *(name for name, is_set in flags if is_set),
    ]


def run_line(line: str, front: Sequence[str]) -> int:
    """Run one line; the exit code that the command would have had."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        sys.stderr.write(f"leafdb: {error}\n  close the quotation, or put a backslash before the quote\n")
        return exits.USAGE
    if words[:1] == ["leafdb"]:
        words = words[1:]
    if not words:
        return exits.OK
    if words[0] == "shell":
        sys.stderr.write("leafdb: this is a shell already\n  type what would stand behind leafdb\n")
        return exits.USAGE
    if words[0] == "help":
        words = [*words[1:], "--help"]
    return _run([*_in_force(front, words), *words])


def _in_force(front: Sequence[str], words: Sequence[str]) -> Sequence[str]:
    """The shell's options without those of where to connect, when the line says that itself."""
    if not any(word.partition("=")[0] in ("--node", "--cluster") for word in words):
        return front
    kept = iter(front)
    return [word for word in kept if word not in ("--node", "--cluster") or next(kept, None) is None]


def _run(arguments: Sequence[str]) -> int:
    from leafdb_cli.main import build, noun_of

    hoisted = hoist(arguments)
    try:
        build(noun_of(hoisted))(args=hoisted, prog_name="leafdb")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else exits.FAILED if ended.code else exits.OK
    return exits.OK


def _talk(session: Session, front: Sequence[str]) -> None:
    """Read and run until there is no more."""
    session.note(GREETING)
    prompt, code = prompt_of(session), exits.OK
    with _lines_kept(history_path(), front):
        while True:
            try:
                line = input(prompt)
            except EOFError:
                session.note("")
                break
            except KeyboardInterrupt:
                session.note("")
                continue
            words = line.split()
            if words[:1] in (["exit"], ["quit"]):
                break
            code = run_line(line, front)
            if words[:1] == ["context"]:
                prompt = prompt_of(session)
    if code:
        raise Quit(code)


def prompt_of(session: Session) -> str:
    """It names the cluster that a line would go to: as it calls itself, or as we call it while it is silent."""
    from leafdb.client.connect import connect
    from leafdb.errors import LeafdbError

    try:
        where = where_of(session.options)
        with connect(where.url, timeout=NAME_S, routing="listed") as client:
            return f"leafdb {client.status().cluster}> "
    except LeafdbError:
        pass
    with suppress(LeafdbError):
        where = where_of(session.options)
        return f"leafdb {where.cluster or where.nodes[0]} (silent)> "
    return "leafdb> "


def history_path() -> Path:
    """Where lines are kept from one time to the next."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path(os.environ.get("HOME", "~")).expanduser() / ".local/state")
    return Path(state) / "leafdb" / "history"


@contextmanager
def _lines_kept(path: Path, front: Sequence[str]) -> Iterator[None]:
    """Editing with history and completion, where Python was built with readline; kept where a file can be."""
    try:
        import readline
    except ModuleNotFoundError:
        yield
        return
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES_MAX)
    readline.set_completer_delims(" \t\n")
    readline.set_completer(completer(readline, front))
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
            readline.write_history_file(path)


def completer(readline: Any, front: Sequence[str]) -> Callable[[str, int], str | None]:
    """For readline, which asks for one candidate after the other."""
    from leafdb_cli.completing import candidates, live_names, split_line

    names = live_names()
    found: list[str] = []

    def one(text: str, state: int) -> str | None:
        if state == 0:
            line = str(readline.get_line_buffer())[: readline.get_endidx()]
            found[:] = candidates([*front, *split_line(line)], names)
        return f"{found[state]} " if state < len(found) else None

    return one
