"""Keys, values and contexts between the command line, JSON and the client.

What a shell passes is bytes, so a key that is not UTF-8 arrives whole. In JSON a key is `key` (`key_base64`), its sort
key, where it has one, `sort_key` (`sort_key_base64`); a context is URL-safe base64.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import typer

from leafdb.types import Key
from leafdb_cli.render import bytes_fields, bytes_from_fields, human_bytes

if TYPE_CHECKING:
    from leafdb.client.context import Context
    from leafdb.client.results import Conflict, Found, Missing

PREVIEW_CHARS: Final = 60
NO_KEY: Final = "leafdb kv scan lists the keys that are there; pairs want --sort-key"
"""What to do when a key is not there."""


def parse_key(key: str, sort_key: str | None, *, hexadecimal: bool) -> bytes | tuple[bytes, bytes]:
    """The key that was typed. BadParameter for hex that is none."""
    first = parse_part(key, "KEY", hexadecimal=hexadecimal)
    return first if sort_key is None else (first, parse_part(sort_key, "--sort-key", hexadecimal=hexadecimal))


def parse_part(text: str, name: str, *, hexadecimal: bool) -> bytes:
    """A key, or one half of a pair. BadParameter, about `name`, for hex that is none."""
    if not hexadecimal:
        return os.fsencode(text)
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not hex", param_hint=name) from None


def key_fields(key: Key) -> dict[str, str]:
    """A key in JSON."""
    if isinstance(key, tuple):
        return {**bytes_fields("key", as_bytes(key[0])), **bytes_fields("sort_key", as_bytes(key[1]))}
    return bytes_fields("key", as_bytes(key))


def key_from_fields(fields: Mapping[str, Any]) -> bytes | tuple[bytes, bytes]:
    """A key from JSON. ValueError."""
    key = bytes_from_fields(fields, "key")
    if "sort_key" in fields or "sort_key_base64" in fields:
        return key, bytes_from_fields(fields, "sort_key")
    return key


def as_bytes(part: str | bytes) -> bytes:
    """A key's part as bytes."""
    return part.encode("utf-8") if isinstance(part, str) else part


def key_text(key: Key) -> str:
    """A key in a message or a table."""
    parts = key if isinstance(key, tuple) else (key,)
    return " / ".join(preview(as_bytes(part), PREVIEW_CHARS) for part in parts)


def preview(value: bytes, chars_max: int = PREVIEW_CHARS) -> str:
    """A value on one line: text as it is, anything else as hex, cut at `chars_max`."""
    try:
        text = value[: 4 * chars_max].decode("utf-8")
    except UnicodeDecodeError as error:
        # A character cut in two at the end is no reason to show a text as hex.
        if len(value) <= 4 * chars_max or error.start < 4 * chars_max - 4:
            text = "0x" + value[:chars_max].hex()
        else:
            text = value[: error.start].decode("utf-8")
    if not text.isprintable():
        text = repr(text)[1:-1]
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"


def item_line(key: Key, answer: Any) -> str:
    """A key with what is there, on a line of a scan."""
    if len(siblings := getattr(answer, "siblings", ())) > 1:
        return f"{key_text(key)}\t{len(siblings)} siblings"
    return f"{key_text(key)}\t{human_bytes(len(answer.value))}\t{preview(answer.value)}"


def context_text(context: Context) -> str:
    """A context in JSON, and what --after takes."""
    return base64.urlsafe_b64encode(bytes(context)).decode("ascii").rstrip("=")


def parse_context(text: str) -> Context:
    """The context of `context_text`; ordinary base64 will do as well. BadParameter for what is none."""
    from leafdb.client.context import Context
    from leafdb.errors import DataError

    plain = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
    try:
        data = base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))
        return Context.from_bytes(data)
    except (binascii.Error, ValueError, DataError):
        raise typer.BadParameter("this is not a context", param_hint="--after") from None


def answer_item(key: Key, answer: Found[bytes] | Missing | Conflict[bytes]) -> dict[str, Any]:
    """The JSON item of a key: its siblings and the context that covers them."""
    from leafdb.client.results import Conflict, Found

    siblings: list[dict[str, Any]] = []
    match answer:
        case Found():
            when = answer.written_at.isoformat() if answer.written_at else None
            siblings = [{**bytes_fields("value", answer.value), "dot": answer.dot, "written_at": when}]
        case Conflict():
            siblings = [
                {**bytes_fields("value", each.value), "dot": each.dot, "written_at": each.written_at.isoformat()}
                for each in answer.siblings
            ]
    return {**key_fields(key), "siblings": siblings, "context": context_text(answer.context)}
