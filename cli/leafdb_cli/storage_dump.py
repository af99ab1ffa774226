"""`leafdb storage dump`: a file of a store, read without any node. What is sound is printed, and where it is not."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb.types import FIRST_BUCKET_ID
from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.keys import key_fields, key_text, preview
from leafdb_cli.render import ItemStream, bytes_fields, human_bytes
from leafdb_cli.session import session_of

if TYPE_CHECKING:
    from leafdb.storage.dump import Dumped
    from leafdb.vfs.base import File

app = typer.Typer(
    help="A file of a store, read without any node.",
    epilog="What cannot be read is told with its offset; then the exit code is 7. Nothing is written or locked.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

TOKEN_BYTES: Final = 8
VALUE_CHARS: Final = 60

Reader = Callable[["File", str], Iterator["Dumped"]]

FILE = Annotated[Path, typer.Argument(metavar="FILE", help="As DATA_DIR/wal/0000000007.log.")]
VALUES = Annotated[bool, typer.Option("--values", help="Values too, not only their sizes.")]
LIMIT = Annotated[int, typer.Option("--limit", min=0, metavar="N", help="So many entries at most; 0 is all.")]


@app.command()
def wal(ctx: typer.Context, file: FILE, values: VALUES = False, limit: LIMIT = 0) -> None:
    """Print a segment of the log: every entry of every write, in order, up to where it is damaged.

    Example: leafdb storage dump wal /var/lib/leafdb/wal/0000000007.log --limit 20
    """
    from leafdb.storage.dump import dump_wal

    _dump(ctx, "WalDump", file, dump_wal, values=values, limit=limit)


@app.command()
def sstable(ctx: typer.Context, file: FILE, values: VALUES = False, limit: LIMIT = 0) -> None:
    """Print a table: what it says of itself, and every entry of every block that is sound.

    Example: leafdb storage dump sstable /var/lib/leafdb/tables/0000000012.sst -o jsonl
    """
    from leafdb.storage.dump import dump_sstable

    _dump(ctx, "TableDump", file, dump_sstable, values=values, limit=limit)


@app.command()
def values(ctx: typer.Context, file: FILE, values: VALUES = False, limit: LIMIT = 0) -> None:
    """Print a value file: the key of every large value that is sound, dead ones too.

    Example: leafdb storage dump values /var/lib/leafdb/values/0000000008.val --limit 20
    """
    from leafdb.storage.dump import dump_values

    _dump(ctx, "ValueDump", file, dump_values, values=values, limit=limit)


@app.command()
def manifest(ctx: typer.Context, file: FILE, limit: LIMIT = 0) -> None:
    """Print a manifest: every edit, with the tables it adds and removes.

    Example: leafdb storage dump manifest /var/lib/leafdb/MANIFEST-0000000003
    """
    from leafdb.storage.dump import dump_manifest

    _dump(ctx, "ManifestDump", file, dump_manifest, values=False, limit=limit)


def _dump(ctx: typer.Context, kind: str, path: Path, read: Reader, *, values: bool, limit: int) -> None:
    from leafdb.storage.dump import What
    from leafdb.vfs.disk import DiskFileSystem

    session = session_of(ctx)
    stream = ItemStream(session.output, kind)
    damages = entries = 0
    cut = False
    if not stat.S_ISREG(path.stat().st_mode):
        raise Quit(
            exits.FAILED,
            f"{path} is no regular file",
            "name one file of a store: DATA_DIR/tables, /wal and /values have them",
        )
    file = DiskFileSystem(path.parent).open_read(path.name)
    try:
        for line in read(file, str(path)):
            if line.what in (What.ENTRY, What.EDIT):
                if limit and entries == limit:
                    cut = True
                    break
                entries += 1
            damages += line.what is What.DAMAGE
            item = item_of(line, values=values)
            stream.write(item, lambda item=item: text_of(item))  # type: ignore[misc]
    finally:
        file.close()
    stream.close()
    if cut:
        session.note(f"{entries} were shown, and there are more: --limit 0 shows all")
    if damages:
        places = "1 place is" if damages == 1 else f"{damages} places are"
        raise Quit(
            exits.UNHEALTHY,
            f"{path} is damaged: {places} told above. What else was shown is sound",
            "docs/operations/storage.md: damaged files",
        )


def item_of(line: Dumped, *, values: bool) -> dict[str, Any]:
    """A line in JSON."""
    item: dict[str, Any] = {"what": str(line.what), "offset": line.offset}
    item.update({name: _plain(value) for name, value in line.fields.items() if not isinstance(value, bytes)})
    for name in ("smallest", "largest"):
        if name in line.fields:
            item[name] = stored_key_fields(int(line.fields["tree"]), line.fields[name])
    if line.tree_id is not None:
        item["tree"] = int(line.tree_id)
        item.update(stored_key_fields(int(line.tree_id), line.key))
        if line.value is None or isinstance(line.value, bytes):
            item["value_bytes"] = None if line.value is None else len(line.value)
        if values and isinstance(line.value, bytes):
            item.update(bytes_fields("value", line.value))
    return item


def _plain(value: Any) -> Any:
    """A field in JSON: tables of an edit have keys."""
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return value
    return [
        {
            name: stored_key_fields(int(table["tree"]), field) if isinstance(field, bytes) else field
            for name, field in table.items()
        }
        for table in value
    ]


def stored_key_fields(tree: int, stored: bytes) -> dict[str, Any]:
    """What a stored key is: in a bucket's tree its token and the key somebody wrote, elsewhere its bytes."""
    from leafdb.model.key import decode_key

    if tree >= FIRST_BUCKET_ID and len(stored) > TOKEN_BYTES:
        try:
            return {"token": stored[:TOKEN_BYTES].hex(), **key_fields(decode_key(stored[TOKEN_BYTES:]))}
        except ValueError:
            pass  # not written by a replica: the bytes have to do
    return {"stored_key": stored.hex()}


def stored_key_text(tree: int, stored: bytes) -> str:
    """The same in a few words."""
    from leafdb.model.key import decode_key

    if tree >= FIRST_BUCKET_ID and len(stored) > TOKEN_BYTES:
        try:
            return key_text(decode_key(stored[TOKEN_BYTES:]))
        except ValueError:
            pass  # as above; a range that was told cut short, too
    return preview(stored)


def text_of(item: Mapping[str, Any]) -> str:
    """A line for a person."""
    match item["what"]:
        case "entry":
            mark = f"  mark {item['mark']}" if "mark" in item else ""
            size = _size(item)
            value = item.get("value", item.get("value_base64"))
            shown = "" if value is None else "  " + repr(value)[: VALUE_CHARS + 2]
            return (
                f"{item['offset']:>10}  {item.get('sequence', ''):>10}  tree {item['tree']}  {_key(item)}  "
                f"{size}{mark}{shown}"
            )
        case "edit":
            return "\n".join([f"{item['offset']:>10}  edit {item['edit']}: {_edit(item)}", *_added(item)])
        case "damage":
            return f"{item['offset']:>10}  DAMAGED: {item['problem']}"
        case "end":
            counts = ", ".join(f"{item[name]} {name}" for name in ("entries", "edits") if name in item)
            return f"{item['offset']:>10}  end: {item['sound_bytes']} of {item['bytes']} bytes are sound, {counts}"
        case _:
            skipped = ("what", "offset", "smallest", "largest")
            named = {name.replace("_", " "): value for name, value in item.items() if name not in skipped}
            return ", ".join(f"{name} {value}" for name, value in named.items()) + _range(item)


def _size(item: Mapping[str, Any]) -> str:
    if "value_file" in item:
        return f"{human_bytes(item['stored_bytes'])} in value file {item['value_file']} at {item['value_offset']}"
    return "deleted" if item["value_bytes"] is None else human_bytes(item["value_bytes"])


def _key(fields: Mapping[str, Any]) -> str:
    if "stored_key" in fields:
        return f"0x{fields['stored_key']}"
    parts = [fields.get(name, fields.get(f"{name}_base64")) for name in ("key", "sort_key")]
    return " / ".join(repr(part) for part in parts if part is not None)


def _range(item: Mapping[str, Any]) -> str:
    return f", keys {_key(item['smallest'])} to {_key(item['largest'])}" if "smallest" in item else ""


def _edit(item: Mapping[str, Any]) -> str:
    said = [f"{name} {value}" for name, value in item.items() if name not in ("what", "offset", "edit", "added")]
    return ", ".join(said) or "tables"


def _added(item: Mapping[str, Any]) -> Iterator[str]:
    for table in item.get("added", ()):
        yield (
            f"{'':>10}  + table {table['table']}, tree {table['tree']}, level {table['level']}, "
            f"{human_bytes(table['bytes'])}, {table['entries']} entries{_range(table)}"
        )
