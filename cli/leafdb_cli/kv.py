"""`leafdb kv`: single keys, scans, and whole data sets in and out.

A put says what it replaces: --after CTX, --blind, or nothing, which reads first and replaces the one value that is
there. A conflict is shown, never resolved behind your back: exit code 4.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from leafdb_cli import exits, kv_range
from leafdb_cli.exits import Quit
from leafdb_cli.keys import (
    NO_KEY,
    answer_item,
    context_text,
    item_line,
    key_fields,
    key_text,
    parse_context,
    parse_key,
    preview,
)
from leafdb_cli.options import parse_duration_s
from leafdb_cli.quorums import optional_quorum
from leafdb_cli.render import Column, ItemStream
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from leafdb.client.results import Conflict, Written
    from leafdb.explanation import Explanation

app = typer.Typer(help="Keys and values.", no_args_is_help=True, rich_markup_mode=None)

BULK_TIMEOUT_S: Final = 10.0
RESOLVE: Final = "leafdb kv siblings shows them, and the context that leafdb kv put --after CTX replaces them with"

BUCKET = Annotated[str, typer.Argument(metavar="BUCKET")]
KEY = Annotated[str, typer.Argument(metavar="KEY")]
SORT_KEY = Annotated[str | None, typer.Option("--sort-key", metavar="KEY", help="The second part of a pair.")]
KEY_HEX = Annotated[bool, typer.Option("--key-hex", help="KEY and --sort-key are hex.")]
R = Annotated[str, typer.Option("--r", help="Replicas to wait for: a number, quorum or all.")]
PR = Annotated[str, typer.Option("--pr", help="Of them primaries.")]
W = Annotated[str, typer.Option("--w", help="Replicas to wait for: a number, quorum or all.")]
PW = Annotated[str, typer.Option("--pw", help="Of them primaries.")]
DW = Annotated[str, typer.Option("--dw", help="Of them synced to disk.")]
AFTER = Annotated[str, typer.Option("--after", metavar="CTX", help="The context of a read or write of this key.")]
FORMAT = Annotated[str, typer.Option("--format", metavar="files|jsonl", help="A directory of files, or JSON lines.")]
EXPLAIN = Annotated[bool, typer.Option("--explain", help="Say who was asked, who answered what, and what follows.")]
CHECKPOINT = Annotated[Path | None, typer.Option("--checkpoint", metavar="FILE", help="Where progress is kept.")]


@app.command()
def get(
    ctx: typer.Context,
    bucket: BUCKET,
    key: KEY,
    sort_key: SORT_KEY = None,
    key_hex: KEY_HEX = False,
    r: R = "",
    pr: PR = "",
    local: Annotated[bool, typer.Option("--local", help="The named node's own replica only.")] = False,
    explain: EXPLAIN = False,
) -> None:
    """Print a value's exact bytes (a newline only on a terminal). Missing: 3. A conflict: every sibling, and 4.

    Examples: leafdb kv get carts alice, leafdb kv get carts alice --explain -o json
    """
    from leafdb.client.results import Conflict, Found, Missing
    from leafdb_cli.door import Door

    session = session_of(ctx)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    with session.client(routing="listed" if local else "ring") as client:
        how = {"r": optional_quorum("r", r), "pr": optional_quorum("pr", pr), "local": local}
        door = Door(client, bucket)
        explained = door.get_explained(wanted, **how) if explain else None
        answer = door.get(wanted, **how) if explained is None else explained.answer
    if explained is not None and (session.options.output == "table" or isinstance(answer, Missing)):
        session.note(str(explained.explanation))
    if isinstance(answer, Missing):
        raise Quit(exits.NOT_FOUND, f"no key {key_text(wanted)} in {bucket}", NO_KEY)
    if session.options.output != "table":
        more = {} if explained is None else {"explanation": explained.explanation.to_json()}
        session.output.items("KeyList", [{**answer_item(wanted, answer), **more}], [])
    elif isinstance(answer, Found):
        session.output.data(answer.value)
        if session.output.out.isatty():
            session.output.data(b"\n")
    if isinstance(answer, Conflict):
        if session.options.output == "table":
            _print_siblings(session, answer)
        raise Quit(exits.CONFLICT, f"{len(answer.siblings)} siblings", RESOLVE)


def _print_siblings(session: Session, answer: Conflict[bytes]) -> None:
    for index, sibling in enumerate(answer.siblings, 1):
        written = sibling.written_at.isoformat(timespec="milliseconds")
        session.note(f"-- sibling {index} of {len(answer.siblings)}: {len(sibling.value)} bytes, written {written}")
        session.output.data(sibling.value + b"\n")


@app.command()
def siblings(
    ctx: typer.Context,
    bucket: BUCKET,
    key: KEY,
    sort_key: SORT_KEY = None,
    key_hex: KEY_HEX = False,
    r: R = "",
) -> None:
    """Show every concurrent value with the write it came from, and the context that covers them all.

    Example: leafdb kv siblings carts alice
    """
    from leafdb.client.results import Conflict, Found, Missing
    from leafdb_cli.door import Door

    session = session_of(ctx)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    with session.client() as client:
        answer = Door(client, bucket).get(wanted, r=optional_quorum("r", r))
    if isinstance(answer, Missing):
        raise Quit(exits.NOT_FOUND, f"no key {key_text(wanted)} in {bucket}", NO_KEY)
    if session.options.output != "table":
        session.output.items("KeyList", [answer_item(wanted, answer)], [])
        return
    found: tuple[Any, ...] = answer.siblings if isinstance(answer, Conflict) else (answer,)
    assert found or isinstance(answer, Found)
    rows = [
        {"dot": each.dot, "written_at": str(each.written_at), "bytes": len(each.value), "value": preview(each.value)}
        for each in found
    ]
    columns = [Column("dot"), Column("written_at"), Column("bytes", right=True), Column("value")]
    session.output.items("SiblingList", rows, columns)
    session.note(f"context {context_text(answer.context)}")


@app.command()
def put(
    ctx: typer.Context,
    bucket: BUCKET,
    key: KEY,
    value: Annotated[str | None, typer.Argument(metavar="VALUE|-", help="- reads standard input.")] = None,
    file: Annotated[Path | None, typer.Option("--file", metavar="F", help="The value is this file's bytes.")] = None,
    after: AFTER = "",
    blind: Annotated[bool, typer.Option("--blind", help="Replace nothing: may leave a sibling.")] = False,
    sort_key: SORT_KEY = None,
    key_hex: KEY_HEX = False,
    w: W = "",
    pw: PW = "",
    dw: DW = "",
    ttl: Annotated[str, typer.Option("--ttl", metavar="TIME", help="Time to live.")] = "",
    explain: EXPLAIN = False,
) -> None:
    """Write a value. Without --after or --blind: read first, replace one value, exit 4 on siblings.

    Examples: leafdb kv put carts alice tea, leafdb kv put carts photo --file photo.jpg --blind
    """
    from leafdb_cli.door import Door

    session = session_of(ctx)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    if after and blind:
        raise typer.BadParameter("--after and --blind say two things")
    context = parse_context(after) if after else None
    try:
        ttl_s = parse_duration_s(ttl) if ttl else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--ttl") from None
    data = _value(value, file)
    how = {"w": optional_quorum("w", w), "pw": optional_quorum("pw", pw), "dw": optional_quorum("dw", dw)}
    with session.client() as client:
        door = Door(client, bucket)
        replaced = _after(door, wanted, context, blind)
        explained = door.put_explained(wanted, data, replaced, ttl=ttl_s, **how) if explain else None
        written = door.put(wanted, data, replaced, ttl=ttl_s, **how) if explained is None else explained.answer
    _print_written(session, wanted, written, "written", None if explained is None else explained.explanation)


def _value(value: str | None, file: Path | None) -> bytes:
    if (value is None) == (file is None):
        raise typer.BadParameter("give the value, or - for standard input, or --file F", param_hint="VALUE")
    if file is not None:
        return file.read_bytes()
    return sys.stdin.buffer.read() if value == "-" else os.fsencode(str(value))


def _after(door: Any, key: Any, context: Any, blind: bool) -> Any:
    """What a write replaces: as told, or the one value that is there."""
    from leafdb.client.context import BLIND
    from leafdb.client.results import Conflict

    if context is not None:
        return context
    if blind or door.lww:
        return BLIND
    answer = door.get(key)
    if isinstance(answer, Conflict):
        raise Quit(
            exits.CONFLICT,
            f"{key_text(key)} has {len(answer.siblings)} siblings and nothing was written",
            RESOLVE,
        )
    return answer.context


def _print_written(
    session: Session, key: Any, written: Written, word: str, explanation: Explanation | None = None
) -> None:
    if session.options.output == "table":
        session.note(f"{word}: {written.acks} acknowledged, {written.primaries} of them primaries")
        if explanation is not None:
            session.note(str(explanation))
        return
    item = {
        **key_fields(key),
        "context": context_text(written.context),
        "op_id": written.op_id.hex(),
        "acks": written.acks,
        "primaries": written.primaries,
        **({} if explanation is None else {"explanation": explanation.to_json()}),
    }
    session.output.items("WrittenList", [item], [])


@app.command("del")
def delete(
    ctx: typer.Context,
    bucket: BUCKET,
    key: KEY,
    after: AFTER = "",
    sort_key: SORT_KEY = None,
    key_hex: KEY_HEX = False,
    w: W = "",
    pw: PW = "",
    dw: DW = "",
) -> None:
    """Delete a key: what --after has seen, or the one value that is there. A missing key is fine.

    Example: leafdb kv del carts alice
    """
    from leafdb_cli.door import Door

    session = session_of(ctx)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    context = parse_context(after) if after else None
    how = {"w": optional_quorum("w", w), "pw": optional_quorum("pw", pw), "dw": optional_quorum("dw", dw)}
    with session.client() as client:
        door = Door(client, bucket)
        written = door.delete(wanted, _after(door, wanted, context, blind=False), **how)
    _print_written(session, wanted, written, "deleted")


@app.command()
def where(ctx: typer.Context, bucket: BUCKET, key: KEY, sort_key: SORT_KEY = None, key_hex: KEY_HEX = False) -> None:
    """Show where a key lives: its place on the ring, and which replica holds which version.

    Example: leafdb kv where carts alice
    """
    from leafdb_cli.where import show_where

    session = session_of(ctx, watch=True)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    session.watching(lambda: show_where(session, bucket, wanted))


@app.command()
def outcome(
    ctx: typer.Context,
    op_id: Annotated[str, typer.Argument(metavar="OP_ID", help="32 hex digits: what an error calls operation id.")],
) -> None:
    """Ask all nodes what became of a write. Exit code 9: nobody who could be asked knows of it.

    Example: leafdb kv outcome 3f9c2a17d04be8f1a2b3c4d5e6f70812
    """
    from leafdb_cli.outcome import parse_op_id, show_outcome

    show_outcome(session_of(ctx), parse_op_id(op_id))


@app.command()
def history(ctx: typer.Context, bucket: BUCKET, key: KEY, sort_key: SORT_KEY = None, key_hex: KEY_HEX = False) -> None:
    """Show what can be known of a key's past: every write that some replica still has or knows to be replaced.

    Example: leafdb kv history carts alice
    """
    from leafdb_cli.past import show_history

    session = session_of(ctx, watch=True)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    session.watching(lambda: show_history(session, bucket, wanted))


@app.command("why-kept")
def why_kept(ctx: typer.Context, bucket: BUCKET, key: KEY, sort_key: SORT_KEY = None, key_hex: KEY_HEX = False) -> None:
    """Say why the record of a deleted or expired key is still stored, and what holds it back.

    Example: leafdb kv why-kept carts alice
    """
    from leafdb_cli.past import show_why_kept

    session = session_of(ctx, watch=True)
    wanted = parse_key(key, sort_key, hexadecimal=key_hex)
    session.watching(lambda: show_why_kept(session, bucket, wanted))


@app.command()
def scan(
    ctx: typer.Context,
    bucket: BUCKET,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many keys.")] = None,
    cursor: Annotated[str, typer.Option("--cursor", metavar="HEX", help="Go on where a scan ended.")] = "",
    page_size: Annotated[int, typer.Option("--page-size", min=1, max=4096, help="Keys in a request.")] = 256,
    r: R = "",
) -> None:
    """Print every key, in token order, as it comes.

    Example: leafdb kv scan carts --limit 100 -o jsonl
    """
    from leafdb_cli.door import Door

    session = session_of(ctx)
    try:
        start = bytes.fromhex(cursor) or None
    except ValueError:
        raise typer.BadParameter(f"{cursor!r} is not hex", param_hint="--cursor") from None
    with session.client() as client:
        found = Door(client, bucket).scan(cursor=start, limit=limit, page_size=page_size, r=optional_quorum("r", r))
        stream = ItemStream(session.output, "KeyList")
        count = 0
        for item in found:
            count += 1
            stream.write(answer_item(item.key, item.answer), partial(item_line, item.key, item.answer))
        reached = found.cursor.hex() if limit is not None and count >= limit and found.cursor else None
        stream.close({"cursor": reached} if reached else None)
    if reached and session.options.output != "json":
        session.note(f"more with --cursor {reached}")


app.command("range")(kv_range.range_)


@app.command("import")
def import_(
    ctx: typer.Context,
    bucket: BUCKET,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The directory or file; - reads JSON lines from stdin.")],
    form: FORMAT = "",
    checkpoint: CHECKPOINT = None,
) -> None:
    """Put a whole data set into a bucket. Interrupted, it goes on where it was when it is run again.

    A key that is there is replaced; one that has siblings is left alone and reported: exit code 4.

    Examples: leafdb kv import carts ./carts --dry-run, leafdb kv import carts carts.jsonl
    """
    from leafdb_cli.importing import import_into
    from leafdb_cli.sources import source_of

    session = session_of(ctx, dry_run=True)
    source = source_of(form, path)
    with session.client(timeout_s=BULK_TIMEOUT_S) as client:
        import_into(session, client, bucket, source, checkpoint)


@app.command("export")
def export(
    ctx: typer.Context,
    bucket: BUCKET,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The directory or file; - writes JSON lines to stdout.")],
    form: FORMAT = "",
    checkpoint: CHECKPOINT = None,
    r: R = "",
) -> None:
    """Write every key of a bucket to files or JSON lines. Interrupted, it goes on where it was when it is run again.

    Examples: leafdb kv export carts carts.jsonl, leafdb kv export carts - --format jsonl
    """
    from leafdb_cli.exporting import export_from
    from leafdb_cli.targets import target_of

    session = session_of(ctx)
    target = target_of(form, path)
    with session.client(timeout_s=BULK_TIMEOUT_S) as client:
        export_from(session, client, bucket, target, checkpoint, optional_quorum("r", r))
