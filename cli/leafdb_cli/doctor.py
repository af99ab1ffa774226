"""`leafdb doctor`: look at everything that can be seen from here, and say what is wrong and what to do about it.

It asks the nodes what they say of themselves, tries every address as a client would, and compares. Nothing is changed.
"""

from __future__ import annotations

import os
import socket
import stat
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import typer

import leafdb
from leafdb.config import parse_address
from leafdb.errors import ConnectFailed, NotApplied, Reason
from leafdb_cli import exits
from leafdb_cli.doctor_rules import RULES, Finding, Level, Seen, findings, unreachable
from leafdb_cli.exits import Quit
from leafdb_cli.node_pages import PageFailed, read_page
from leafdb_cli.saved import saved_clusters_path
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leafdb.client.sync_client import Client

DOCTOR_S: Final = 10.0
REACH_S: Final = 2.0
REACHERS: Final = 16
SCREEN_CELLS: Final = 80
STYLES: Final = {Level.PROBLEM: "bold red", Level.WARNING: "yellow", Level.HINT: "cyan"}


def doctor(ctx: typer.Context) -> None:
    """Look for what is wrong, from here and from each node: addresses, clocks, disks, versions, settings, and more.

    Each finding says what to do. The exit code is 7 when there is a problem; warnings and hints are none.

    Examples: leafdb doctor, leafdb --cluster prod doctor -o json
    """
    session = session_of(ctx, watch=True)
    found = session.watching(lambda: _examine(session))
    if problems := sum(finding.level is Level.PROBLEM for finding in found):
        what = "1 problem" if problems == 1 else f"{problems} problems"
        raise Quit(exits.UNHEALTHY, f"{what} found", "each is told above, with what to do about it")


def _examine(session: Session) -> list[Finding]:
    """Look, print, and answer what was found."""
    names: list[str] = []
    try:
        with session.client(routing="listed", timeout_s=DOCTOR_S) as client:
            seen, here = _look(client), _here()
        names = [str(member["name"]) for member in seen.members]
        found = [*findings(seen), *here]
    except ConnectFailed as error:
        found = unreachable(error.attempts or {"the address given": error.message})
    session.output.items(
        "FindingList",
        [finding.item() for finding in found],
        [],
        extra={"nodes": names, "checks": list(RULES)},
        pretty=(lambda: _pretty(found)) if found else None,
        plain=lambda: _plain(found),
        empty="nothing is wrong that could be seen from here",
    )
    return found


def _look(client: Client) -> Seen:
    """Ask, and try the addresses. Raises LeafdbError."""
    members: Sequence[Mapping[str, Any]] = client.admin("node.list")["nodes"]
    status = client.admin("status")
    asked_ms = _now_ms()
    try:
        reply = client.admin("doctor")
    except NotApplied as error:
        if error.reason is not Reason.UNSUPPORTED:
            raise
        reply = {"nodes": {}, "errors": status.get("errors") or {}}
    answered_ms = _now_ms()
    return Seen(
        asked_ms,
        answered_ms,
        leafdb.__version__,
        reply["nodes"],
        reply.get("errors") or {},
        members,
        status["problems"],
        client.admin("ring.show").get("warnings") or (),
        _unreached(members),
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _unreached(members: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Why addresses cannot be reached from here; those that can are left out. All are tried at the same time."""
    tried = {
        (str(member["name"]), kind): str(member[kind])
        for member in members
        for kind in ("client", "peer", "http")
        if member[kind]
    }
    with ThreadPoolExecutor(REACHERS) as reachers:
        reasons = dict(zip(tried, reachers.map(lambda where: _reach(where[1], tried[where]), tried), strict=True))
    return {where: why for where, why in reasons.items() if why}


def _reach(kind: str, address: str) -> str:
    """Why it cannot be reached; empty when it can."""
    try:
        if kind == "http":
            status, _ = read_page(address, "/livez", REACH_S)
            return "" if status == 200 else f"/livez answers {status}"
        with socket.create_connection(parse_address(address), REACH_S):
            return ""
    except PageFailed as failed:
        return str(failed)
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)


def _here() -> list[Finding]:
    """What is wrong with this machine's own files."""
    path = saved_clusters_path(os.environ)
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return []
    if not mode & 0o077:
        return []
    what = f"{path} can be read or changed by others (mode {mode:o})"
    return [Finding(Level.WARNING, "this machine", "", what, f"chmod 600 {path}")]


def _words(finding: Finding) -> str:
    return f"{finding.level}: {f'{finding.node}: ' if finding.node else ''}{finding.found}"


def _plain(found: Sequence[Finding]) -> str:
    """Two lines each: what is, and what to do."""
    return "".join(f"{_words(finding)}\n    {finding.advice}\n" for finding in found)


def _pretty(found: Sequence[Finding]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    return Group(
        *(
            Text.assemble((_folded(_words(finding), ""), STYLES[finding.level]), "\n", _folded(finding.advice, "    "))
            for finding in found
        )
    )


def _folded(text: str, indent: str) -> str:
    """Between words, for a terminal: a command in it can still be copied."""
    return textwrap.fill(
        text,
        SCREEN_CELLS,
        initial_indent=indent,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
