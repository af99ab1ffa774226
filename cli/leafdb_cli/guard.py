"""The guard around every command: whatever it raises becomes a message on stderr and an exit code, here alone.

A message says what happened and, in a line of its own, what to do next. With -o json or jsonl it is a JSON object
instead, {"apiVersion": "leafdb/v1", "kind": "Error", "error": {...}}, the last line of stderr: stdout stays data only.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from typer.core import TyperGroup

from leafdb.errors import LeafdbError
from leafdb_cli import exits
from leafdb_cli.advice import advice_of
from leafdb_cli.exits import Quit

JSON_FORMS: Final = frozenset({"json", "jsonl"})


class Guard(TyperGroup):
    """The root of the command tree: every command runs inside its `invoke`."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **options: Any) -> Any:
        """Parse and run. Wrong usage is told by typer, and as JSON where that is asked for."""
        if not wants_json(args or ()):
            return super().main(args, *more, **options)
        try:
            code = super().main(args, *more, **{**options, "standalone_mode": False})
        except Exception as error:
            if not hasattr(error, "format_message"):
                raise
            complain(exits.USAGE, _usage(error), _usage_hint(error), as_json=True)
            raise SystemExit(exits.USAGE) from None
        raise SystemExit(code or exits.OK)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it raises becomes an exit code."""
        as_json = str(ctx.params.get("output", "")) in JSON_FORMS
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except Quit as quit_:
            if quit_.message:
                complain(quit_.code, quit_.message, quit_.hint, as_json=as_json)
            raise SystemExit(quit_.code) from None
        except LeafdbError as error:
            code = exits.exit_code(error)
            complain(code, exits.account(error), advice_of(error), as_json=as_json, error=error)
            raise SystemExit(code) from None
        except KeyboardInterrupt:
            complain(exits.INTERRUPTED, "interrupted", as_json=as_json)
            raise SystemExit(exits.INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                _abandon_stdout()
                raise SystemExit(exits.OK) from None
            what = f"{error.filename or 'input or output'}: {error.strerror or error}"
            complain(exits.FAILED, what, _file_hint(error), as_json=as_json)
            raise SystemExit(exits.FAILED) from None


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether the line, its global options in front, asks for JSON. Looked at before it is parsed: that may fail."""
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if argument in ("-o", "--output"):
            value = arguments[index + 1] if index + 1 < len(arguments) else ""
        elif name != "--output":
            value = argument.removeprefix("-o") if argument.startswith("-o") else ""
        if value in JSON_FORMS:
            return True
    return False


def complain(
    code: int, message: str, hint: str = "", *, as_json: bool = False, error: LeafdbError | None = None
) -> None:
    """Say what happened and what to do next, on stderr."""
    if as_json:
        text = json.dumps(exits.error_document(code, message, hint, error), ensure_ascii=False)
    else:
        more = "" if error is None or error.explanation is None else f"\n{error.explanation}"
        text = f"leafdb: {message}" + (f"\n  {hint}" if hint else "") + more
    with suppress(OSError):
        sys.stdout.flush()
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _usage(error: Any) -> str:
    """What typer would say of a line that it cannot take."""
    return str(error.format_message())


def _usage_hint(error: Any) -> str:
    ctx = getattr(error, "ctx", None)
    return f"{ctx.command_path if ctx else 'leafdb'} --help says how it is used"


def _file_hint(error: OSError) -> str:
    """What to do about a file that cannot be had; nothing where the system's own words say it."""
    match error.errno:
        case errno.ENOENT:
            return "look at the name: a relative path starts where the command is run"
        case errno.EACCES | errno.EPERM:
            return "run it as somebody who may, or change the rights of that file"
        case errno.ENOSPC | errno.EDQUOT:
            return "make room there, and run the same command again"
        case _:
            return ""


def _abandon_stdout() -> None:
    """Nobody reads any more: what is still buffered goes nowhere, and the interpreter's last flush says nothing."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
