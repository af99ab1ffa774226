"""A change of the ring that is on its way, in a few lines: what status, lists and the ring say beside their own."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from leafdb_cli.options import Format
from leafdb_cli.plan_view import phase_text
from leafdb_cli.session import Session

SCREEN_CELLS: Final = 80

Reply = Mapping[str, Any]


def coming_and_going(reply: Reply) -> list[str]:
    """The plan in progress with who comes and goes, what is staged, who is banned; nothing when nothing is on."""
    lines = []
    if plan := reply.get("change"):
        lines.append(f"{plan_line(plan)}: leafdb transfer list --watch follows it")
    if staged := int(reply.get("staged") or 0):
        changes = "1 change is" if staged == 1 else f"{staged} changes are"
        lines.append(f"{changes} staged and nothing has moved: leafdb cluster plan shows what that comes to")
    if bans := reply.get("bans"):
        lines.append(f"gone for good: {_numbers(bans)}")
    return lines


def tell_changes(session: Session, reply: Reply) -> None:
    """Those lines as notes, below a table; JSON has them as fields."""
    if session.options.output is Format.TABLE:
        for line in coming_and_going(reply):
            session.note(_folded(line) if session.output.err.isatty() else line)


def _folded(line: str) -> str:
    """Between words, for a terminal: a command on it can still be copied."""
    return textwrap.fill(line, SCREEN_CELLS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def plan_line(plan: Reply) -> str:
    """One line about a plan in progress."""
    return f"plan {bytes(plan['id']).hex()[:12]} ({phase_text(plan['phase'])}): {', '.join(_moves(plan)) or 'nobody'}"


def change_item(reply: Reply) -> dict[str, Any]:
    """The same in JSON: `plan` null when none is in progress."""
    plan = reply.get("change")
    return {
        "plan": {**plan, "id": bytes(plan["id"]).hex()} if plan else None,
        "staged": int(reply.get("staged") or 0),
        "bans": [int(node) for node in reply.get("bans") or ()],
    }


def _moves(plan: Reply) -> Iterator[str]:
    for field, verb in (("joining", "joins"), ("leaving", "leaves"), ("removed", "is removed")):
        for name in plan.get(field) or ():
            yield f"{name} {verb}"
    for old, new in plan.get("replaced") or ():
        yield f"{new} replaces {old}"


def _numbers(bans: Any) -> str:
    told = [int(node) for node in bans]
    more = f" and {len(told) - 12} more" if len(told) > 12 else ""
    return ("node " if len(told) == 1 else "nodes ") + ", ".join(map(str, told[-12:])) + more
