"""`leafdb kv history` and `kv why-kept`: what is known of a key's past, and why what is dead of it is still stored."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from leafdb.types import Key
from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.keys import NO_KEY, key_fields, key_text
from leafdb_cli.render import Column, human_bytes, stamp_text
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

TEXT_COLUMNS: Final = 80


def _when(stamp: Any) -> str:
    return "not known" if stamp is None else stamp_text(stamp)


def _where(states: Any) -> str:
    """`live on b; replaced on a`: which replica makes what of a write."""
    if len(set(states.values())) == 1:
        return f"all of {len(states)}"
    return "; ".join(
        f"{state} on {', '.join(name for name, other in states.items() if other == state)}"
        for state in dict.fromkeys(states.values())
    )


HISTORY: Final = [
    Column("stamp", "written", _when), Column("state"), Column("count", "writes", right=True), Column("node", "by"),
    Column("bytes", "size", human_bytes, right=True, spare=1), Column("replicas", "known", _where),
    Column("actor", spare=2), Column("op_id", "operation", spare=3),
]  # fmt: skip


def show_history(session: Session, bucket: str, key: Key) -> None:
    """Ask every member and print, the oldest first."""
    reply = _ask(session, "kv.history", bucket, key)
    lines: Sequence[Mapping[str, Any]] = reply["history"]
    errors = reply.get("errors") or {}
    if not lines and not errors:
        raise Quit(exits.NOT_FOUND, f"no replica knows anything of {key_text(key)} in {bucket}", NO_KEY)
    extra = {"bucket": bucket, **key_fields(key), "partition": reply["partition"], "summary": reply["summary"]}
    shown_errors = errors if session.options.output != "table" else {}
    session.output.items("HistoryList", lines, HISTORY, errors=shown_errors, extra=extra)
    if session.options.output == "table":
        for line in reply["summary"]:
            session.note(line)


def show_why_kept(session: Session, bucket: str, key: Key) -> None:
    """Ask every member and print: first the reason, then what there is, then who holds it back."""
    reply = _ask(session, "kv.why_kept", bucket, key)
    errors = reply.get("errors") or {}
    if not reply["kept"] and not errors:
        raise Quit(exits.NOT_FOUND, f"nothing is stored of {key_text(key)} in {bucket}", NO_KEY)
    item = {
        "bucket": reply["bucket"],
        **key_fields(key),
        **{name: reply[name] for name in ("token", "partition", "epoch")},
        **{name: reply[name] for name in ("kept", "verdict", "horizon", "writes", "held_back_by")},
    }
    text = _told(key_text(key), item)
    shown_errors = errors if session.options.output != "table" else {}
    session.output.items(
        "WhyKeptList", [item], [], errors=shown_errors, pretty=lambda: _rich(text), plain=lambda: text + "\n"
    )


def _told(key: str, item: Mapping[str, Any]) -> str:
    lines = textwrap.wrap(f"{key}: {item['verdict']}", TEXT_COLUMNS)
    for write in item["writes"]:
        dies = "never dies" if write["death"] is None else f"dead from {stamp_text(write['death'])}"
        below = ", below the horizon" if write["below_horizon"] else ""
        line = (
            f"{write['state']}, written {stamp_text(write['stamp'])}, {dies}{below}; on {', '.join(write['replicas'])}"
        )
        lines += textwrap.wrap(line, TEXT_COLUMNS, initial_indent="  ", subsequent_indent="    ")
    if item["held_back_by"]:
        lines.append("what holds the horizon back:")
    for reason in item["held_back_by"]:
        lines += textwrap.wrap(reason, TEXT_COLUMNS, initial_indent="  ", subsequent_indent="    ")
    return "\n".join(lines)


def _rich(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text)


def _ask(session: Session, verb: str, bucket: str, key: Key) -> Mapping[str, Any]:
    from leafdb.model.key import encode_key

    return session.ask(verb, {"bucket": bucket, "key": encode_key(key)})
