"""`leafdb kv where`: a key's place on the ring, the version each replica holds, and who is behind whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from leafdb.types import Key
from leafdb_cli.keys import key_fields, key_text
from leafdb_cli.render import Column, human_bytes, stamp_text
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

VERSION_STYLES: Final = ("green", "yellow", "magenta", "cyan", "blue")
COLUMNS: Final = [
    Column("node"), Column("role"), Column("alive"), Column("version"), Column("siblings", right=True),
    Column("tombstone"), Column("behind", right=True), Column("complete"), Column("synced"),
]  # fmt: skip


def show_where(session: Session, bucket: str, key: Key) -> None:
    """Ask every member and print."""
    from leafdb.model.key import encode_key

    reply = session.ask("kv.where", {"bucket": bucket, "key": encode_key(key)})
    item = {
        "bucket": reply["bucket"],
        **key_fields(key),
        **{name: reply[name] for name in ("token", "partition", "epoch", "replicas")},
        "key_hash": reply.get("key_hash", ""),
    }
    errors = reply.get("errors") or {}
    summary = reply["summary"]
    if session.options.output == "table":
        head = (
            f"{key_text(key)} in {bucket}: token {item['token']}, partition {item['partition']}, epoch {item['epoch']}"
        )
        if not session.output.pretty:
            session.note(head)
        session.output.items("WhereList", item["replicas"], COLUMNS, pretty=lambda: _pretty(head, item, summary))
        if not session.output.pretty:
            for line in summary:
                session.note(line)
    else:
        session.output.items("WhereList", [item], [], errors=errors, extra={"summary": summary})


def _pretty(head: str, item: Mapping[str, Any], summary: Sequence[str]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    # The version most replicas hold is the first colour; each other version has one of its own.
    held = [replica["version"] for replica in item["replicas"] if replica["version"] is not None]
    ranked = sorted(dict.fromkeys(held), key=held.count, reverse=True)
    styles = {version: VERSION_STYLES[index % len(VERSION_STYLES)] for index, version in enumerate(ranked)}
    lines = [Text(head, style="bold")]
    for replica in item["replicas"]:
        dot = ("● ", "green" if replica["alive"] else "red")
        name = (f"{replica['node']:<14} ", "bold")
        what = (_holding(replica), styles.get(replica["version"], "dim"))
        lines.append(Text.assemble("  ", dot, name, f"{replica['role']:<10}", what))
    for version in ranked:
        lines.append(Text(f"  version {version}", style=styles[version]))
        held_by = next(replica for replica in item["replicas"] if replica["version"] == version)
        lines += [Text(f"    {_written(write)}") for write in held_by["writes"]]
        if held_by["more_writes"]:
            lines.append(Text(f"    and {held_by['more_writes']} more"))
    lines += [Text(f"  {line}", style="green" if line.startswith("the same") else "yellow") for line in summary]
    return Group(*lines)


def _holding(replica: Mapping[str, Any]) -> str:
    if not replica["alive"]:
        return "cannot be asked"
    version = replica["version"]
    what = "nothing" if version is None else f"version {version}"
    if replica["tombstone"]:
        what += ", deleted"
    elif replica["siblings"] > 1:
        what += f", {replica['siblings']} siblings"
    return what + (f", lacks {replica['behind']}" if replica["behind"] else "")


def _written(write: Mapping[str, Any]) -> str:
    size = "" if write["state"] == "tombstone" else f", {human_bytes(write['bytes'])}"
    expiry = f", expires {stamp_text(write['expires_ms'] << 16)}" if write["expires_ms"] else ""
    return f"{stamp_text(write['stamp'])} by {write['node']}: {write['state']}{size}{expiry}"
