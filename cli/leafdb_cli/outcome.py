"""`leafdb kv outcome`: what became of a write, by its operation id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.keys import context_text, key_fields, key_text
from leafdb_cli.render import Column
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from leafdb.client.results import Outcome

COLUMNS: Final = [
    Column("state"), Column("bucket"), Column("key"), Column("sort_key", "sort key"),
    Column("replicas", show=", ".join), Column("replaced"),
]  # fmt: skip


def parse_op_id(text: str) -> bytes:
    """The id that was typed. BadParameter for what is none."""
    try:
        op_id = bytes.fromhex(text)
    except ValueError:
        op_id = b""
    if len(op_id) != 16 or not any(op_id):
        raise typer.BadParameter("an operation id is 32 hex digits, as an error or `kv put -o json` shows it")
    return op_id


def show_outcome(session: Session, op_id: bytes) -> None:
    """Ask every member and print; ends with exit code 9 when nobody knows."""
    with session.client() as client:
        found = client.outcome(op_id)
    session.output.items("OutcomeList", [outcome_item(op_id, found)], COLUMNS, errors=dict(found.unasked))
    if found.state == "unknown":
        note = "nobody who could be asked knows of this write: it may still surface"
        raise Quit(exits.OUTCOME_UNKNOWN, note, "ask again when all nodes are back, or read the key")
    if session.options.output == "table" and found.key is not None:
        session.note(
            f"{key_text(found.key)} in {found.bucket}: "
            + ("written, and replaced since" if found.replaced else "written, and there")
        )


def outcome_item(op_id: bytes, found: Outcome) -> dict[str, Any]:
    """The JSON item."""
    item: dict[str, Any] = {"op_id": op_id.hex(), "state": found.state}
    if found.key is not None:
        item |= {"bucket": found.bucket, **key_fields(found.key)}
    item |= {"replicas": list(found.replicas), "replaced": found.replaced}
    if found.context is not None:
        item["context"] = context_text(found.context)
    return item
