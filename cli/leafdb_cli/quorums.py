"""Counts of replicas on the command line: a number, `quorum` or `all`."""

from __future__ import annotations

from typing import Literal

import typer


def parse_quorum(name: str, text: str) -> int | Literal["quorum", "all"]:
    """What the client takes for --r, --w and their kin."""
    if text == "quorum":
        return "quorum"
    if text == "all":
        return "all"
    if text.isascii() and text.isdigit() and len(text) < 4:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a number nor quorum nor all", param_hint=f"--{name}")


def optional_quorum(name: str, text: str) -> int | Literal["quorum", "all"] | None:
    """The same; an empty text is the bucket's own count."""
    return parse_quorum(name, text) if text else None
