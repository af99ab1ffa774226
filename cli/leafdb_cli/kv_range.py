"""`leafdb kv range`: the pairs of one partition key, by sort key. They live on the same replicas, so it is one request
for each page, however many there are."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from leafdb_cli.keys import answer_item, item_line, parse_part
from leafdb_cli.quorums import optional_quorum
from leafdb_cli.render import ItemStream
from leafdb_cli.session import session_of


def range_(
    ctx: typer.Context,
    bucket: Annotated[str, typer.Argument(metavar="BUCKET")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="The partition key: the first part of the pairs.")],
    start: Annotated[
        str | None, typer.Option("--start", metavar="KEY", help="From this sort key, it included.")
    ] = None,
    stop: Annotated[str | None, typer.Option("--stop", metavar="KEY", help="Up to this sort key, without it.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="The last one first.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many pairs.")] = None,
    key_hex: Annotated[bool, typer.Option("--key-hex", help="KEY, --start and --stop are hex.")] = False,
    r: Annotated[str, typer.Option("--r", help="Replicas to wait for: a number, quorum or all.")] = "",
) -> None:
    """Print the pairs of one partition key in the order of their sort keys, as they come.

    Examples: leafdb kv range carts alice, leafdb kv range carts alice --start 2026-11 --reverse --limit 10
    """
    from leafdb_cli.door import Door

    session = session_of(ctx)
    bounds = {
        name: None if text is None else parse_part(text, f"--{name}", hexadecimal=key_hex)
        for name, text in (("start", start), ("stop", stop))
    }
    with session.client() as client:
        found = Door(client, bucket).range(
            parse_part(key, "KEY", hexadecimal=key_hex),
            **bounds,
            reverse=reverse,
            limit=limit,
            r=optional_quorum("r", r),
        )
        stream = ItemStream(session.output, "KeyList")
        for item in found:
            stream.write(answer_item(item.key, item.answer), partial(item_line, item.key, item.answer))
        stream.close()
