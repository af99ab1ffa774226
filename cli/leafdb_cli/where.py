"""`leafdb kv where`: a key's place on the ring and the version each replica holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.types import Key
from leafdb_cli.keys import key_fields, key_text
from leafdb_cli.render import Column
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

VERSION_STYLES: Final = ("green", "yellow", "magenta", "cyan", "blue")
COLUMNS: Final = [
    Column("node"), Column("role"), Column("alive"), Column("version"), Column("siblings", right=True),
    Column("tombstone"),
]  # fmt: skip


def show_where(session: Session, bucket: str, key: Key) -> None:
    """Ask every member and print."""
    from leafdb.model.key import encode_key

    reply = session.ask("kv.where", {"bucket": bucket, "key": encode_key(key)})
    item = {
        "bucket": reply["bucket"],
        **key_fields(key),
        **{name: reply[name] for name in ("token", "partition", "epoch", "replicas")},
    }
    errors = reply.get("errors") or {}
    if session.options.output == "table":
        head = (
            f"{key_text(key)} in {bucket}: token {item['token']}, partition {item['partition']}, epoch {item['epoch']}"
        )
        if not session.output.pretty:
            session.note(head)
        session.output.items("WhereList", item["replicas"], COLUMNS, errors=errors, pretty=lambda: _pretty(head, item))
    else:
        session.output.items("WhereList", [item], [], errors=errors)


def _pretty(head: str, item: Mapping[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    # The version most replicas hold is the first colour; each other version has one of its own.
    held = [replica["version"] for replica in item["replicas"] if replica["version"] is not None]
    ranked = sorted(dict.fromkeys(held), key=held.count, reverse=True)
    lines = [Text(head, style="bold")]
    for replica in item["replicas"]:
        version = replica["version"]
        style = "dim" if version is None else VERSION_STYLES[ranked.index(version) % len(VERSION_STYLES)]
        what = "nothing" if version is None else f"version {version}"
        if replica["tombstone"]:
            what += ", deleted"
        elif replica["siblings"] > 1:
            what += f", {replica['siblings']} siblings"
        if not replica["alive"]:
            what = str(replica.get("error") or "cannot be reached")
        dot = ("● ", "green" if replica["alive"] else "red")
        name = (f"{replica['node']:<14}", "bold")
        lines.append(Text.assemble("  ", dot, name, f"{replica['role']:<10}", (what, style)))
    if len(ranked) > 1:
        lines.append(Text(f"  {len(ranked)} versions: reads and repair will bring them together", style="yellow"))
    elif held and len(held) == sum(replica["role"] != "fallback" for replica in item["replicas"]):
        lines.append(Text("  every owner holds the same", style="green"))
    return Group(*lines)
