"""What goes to stdout: the JSON envelope, JSON lines, tables. Notes and progress are not data and go to stderr.

JSON is an interface: {"apiVersion": "leafdb/v1", "kind": ..., "items": [...]}, nodes that could not be reached under
a top-level "errors". An item is a plain dict whose keys are pinned; bytes become text in one place, `bytes_fields`.
A table is for people: on a terminal rich draws it, elsewhere it is plain columns, never cut short.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, Final

from leafdb_cli.exits import API_VERSION
from leafdb_cli.options import Format

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

GAP_CELLS: Final = 3
"""Between two columns on a terminal."""

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: the item's key, its title, how a value reads, and on a terminal how it looks."""

    key: str
    title: str = ""
    show: Callable[[Any], str] | None = None
    style: Callable[[Any], str] | None = None
    right: bool = False
    spare: int = 0
    """Above 0: a terminal that is too narrow goes without this column, before those with lower figures."""

    def text(self, item: Item) -> str:
        """The cell of this item."""
        value = item.get(self.key)
        if self.show is not None:
            return self.show(value)
        if value is None:
            return "-"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return str(value)

    def heading(self) -> str:
        """The column's title."""
        return self.title or self.key.replace("_", " ")


def bytes_fields(name: str, value: bytes) -> dict[str, str]:
    """`{name: text}`, or `{name_base64: ...}` where the bytes are not UTF-8."""
    try:
        return {name: value.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode("ascii")}


def bytes_from_fields(fields: Mapping[str, Any], name: str) -> bytes:
    """The bytes that `bytes_fields` wrote. ValueError when the fields are missing, doubled or of the wrong type."""
    text, encoded = fields.get(name), fields.get(f"{name}_base64")
    if (text is None) == (encoded is None):
        raise ValueError(f"wants either {name} or {name}_base64")
    value = encoded if text is None else text
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    if text is not None:
        return value.encode("utf-8")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name}_base64 is not base64") from None


def envelope(kind: str, items: Sequence[Item], errors: Mapping[str, str], extra: Item) -> dict[str, Any]:
    """The JSON document of a command."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": kind, **extra, "items": list(items)}
    if errors:
        document["errors"] = dict(errors)
    return document


def plain_table(columns: Sequence[Column], items: Sequence[Item]) -> str:
    """Columns of text, two spaces apart."""
    rows = [[column.heading() for column in columns], *([column.text(item) for column in columns] for item in items)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def fitting(columns: Sequence[Column], items: Sequence[Item], width: int) -> list[Column]:
    """The columns for which a terminal so wide has room: a row that is folded reads worse than one that is shorter."""
    sizes = [max(len(column.heading()), *(len(column.text(item)) for item in items)) for column in columns]
    kept = list(range(len(columns)))
    while sum(sizes[index] + GAP_CELLS for index in kept) > width:
        spare = max(kept, key=lambda index: columns[index].spare)
        if not columns[spare].spare:
            break
        kept.remove(spare)
    return [columns[index] for index in kept]


def rich_table(columns: Sequence[Column], items: Sequence[Item]) -> RenderableType:
    """The same for a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.heading(), justify="right" if column.right else "left", overflow="fold")
    for item in items:
        cells = [
            Text(column.text(item), style=column.style(item.get(column.key)) if column.style else "")
            for column in columns
        ]
        table.add_row(*cells)
    return table


class Output:
    """Where and how a command prints. `is_terminal` and colours are decided once, here."""

    def __init__(self, form: Format, *, no_color: bool, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self.form = form
        self.no_color = no_color
        self._out = out
        self._err = err

    @property
    def out(self) -> IO[str]:
        """Data."""
        return self._out if self._out is not None else sys.stdout

    @property
    def err(self) -> IO[str]:
        """Notes and progress."""
        return self._err if self._err is not None else sys.stderr

    @property
    def pretty(self) -> bool:
        """A person looks at a table on a terminal."""
        return self.form is Format.TABLE and self.out.isatty()

    def console(self, file: IO[str]) -> Console:
        """A rich console on one of the two streams."""
        from rich.console import Console

        return Console(file=file, no_color=self.no_color or None, highlight=False)

    def note(self, text: str) -> None:
        """A line for the person, on stderr."""
        self.out.flush()
        self.err.write(text + "\n")
        self.err.flush()

    def data(self, data: bytes) -> None:
        """Exact bytes."""
        self.out.flush()
        buffer = getattr(self.out, "buffer", None)
        if buffer is None:
            self.out.write(data.decode("utf-8", "backslashreplace"))
        else:
            buffer.write(data)
            buffer.flush()

    def items(
        self,
        kind: str,
        items: Sequence[Item],
        columns: Sequence[Column],
        *,
        errors: Mapping[str, str] | None = None,
        extra: Item | None = None,
        pretty: Callable[[], RenderableType] | None = None,
        plain: Callable[[], str] | None = None,
        empty: str = "",
    ) -> None:
        """Print a command's answer.

        `pretty` is for terminals and `plain` for elsewhere, instead of the table; `empty` is said for no items.
        """
        errors = errors or {}
        match self.form:
            case Format.JSON:
                json.dump(envelope(kind, items, errors, extra or {}), self.out, indent=2, ensure_ascii=False)
                self.out.write("\n")
            case Format.JSONL:
                for item in items:
                    self.out.write(json.dumps(item, ensure_ascii=False) + "\n")
            case Format.TABLE:
                if self.out.isatty() and (items or pretty):
                    console = self.console(self.out)
                    console.print(pretty() if pretty else rich_table(fitting(columns, items, console.width), items))
                elif items:
                    self.out.write(plain() if plain else plain_table(columns, items))
        self.out.flush()
        if self.form is not Format.JSON:
            for node, reason in errors.items():
                self.note(f"{node} could not be asked: {reason}")
        if self.form is Format.TABLE and not items and empty:
            self.note(empty)


class ItemStream:
    """A long list printed while it comes: JSON as one document, written piece by piece."""

    def __init__(self, output: Output, kind: str) -> None:
        self._output = output
        self._kind = kind
        self._count = 0

    def write(self, item: Item, line: Callable[[], str]) -> None:
        """One more item; `line` is how it reads in a table."""
        out = self._output.out
        match self._output.form:
            case Format.JSON:
                head = "" if self._count else self._head()
                comma = ",\n  " if self._count else "\n  "
                out.write(head + comma + json.dumps(item, ensure_ascii=False))
            case Format.JSONL:
                out.write(json.dumps(item, ensure_ascii=False) + "\n")
            case Format.TABLE:
                out.write(line() + "\n")
        self._count += 1

    def close(self, extra: Item | None = None) -> None:
        """The end of the list."""
        out = self._output.out
        if self._output.form is Format.JSON:
            tail = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in (extra or {}).items())
            out.write(("" if self._count else self._head()) + ("\n]" if self._count else "]") + tail + "}\n")
        out.flush()

    def _head(self) -> str:
        return f'{{"apiVersion": {json.dumps(API_VERSION)}, "kind": {json.dumps(self._kind)}, "items": ['


def human_bytes(size: int | float | None) -> str:
    """`3.1 MiB`."""
    if size is None:
        return "-"
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def human_seconds(seconds: float | None) -> str:
    """`2h 05m`, `3m 20s`, `4.2s`."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def stamp_text(stamp: int) -> str:
    """The wall-clock part of a hybrid stamp, UTC: `2026-11-21 18:03:04.123`."""
    moment = datetime(1970, 1, 1) + timedelta(milliseconds=stamp >> 16)  # noqa: DTZ001  # printed as it is
    return moment.isoformat(" ", "milliseconds")


def joined(items: Iterable[Any]) -> str:
    """A list in a cell."""
    return ", ".join(str(item) for item in items) or "-"
