"""`leafdb top`: what every node is doing just now. Live on a terminal; elsewhere a table, or a JSON document, once.

Counters and queues come over the client's connection, from any node, for all (`stats`). Latencies are histograms, and
those are on each node's page of metrics: where that cannot be read from here, they are left out and it is said.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import typer

from leafdb.errors import LeafdbError
from leafdb_cli.node_pages import read_pages
from leafdb_cli.render import fitting, plain_table, rich_table
from leafdb_cli.session import WATCH_S, Session, session_of
from leafdb_cli.top_figures import COLUMNS, Sample, figures, histograms_of, rows_of, waiting_lines, whole

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leafdb.client.sync_client import Client

INTERVAL_S: Final = 1.0
"""Between the two looks of a single table."""
METRICS: Final = "/metrics"


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture."""

    items: Sequence[Mapping[str, Any]]
    total: Mapping[str, Any]
    errors: Mapping[str, str]
    unread: Mapping[str, str]
    """Nodes without latencies, and why."""


def top(ctx: typer.Context) -> None:
    """Show what every node does just now: requests a second, p50 and p99, what waits.

    Live on a terminal until control-C. Elsewhere one table of the last second; --watch: again and again.

    Examples: leafdb top, leafdb top -o json, leafdb --cluster prod top --watch
    """
    session = session_of(ctx, watch=True)
    with session.client(routing="listed") as client:
        watch = _Watch(client)
        if session.output.pretty:
            _live(session, watch)
        first = True
        while first or session.options.watch:
            time.sleep(INTERVAL_S if first else WATCH_S)
            _print(session, watch.look())
            first = False


class _Watch:
    """Looks, each compared with the one before."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._last = self._sample()[0]

    def look(self) -> Shown:
        """What has been since the last look. Raises LeafdbError when no node answers."""
        now, states, errors, unread = self._sample()
        items = figures(self._last, now, states)
        shown = Shown(items, whole(self._last, now, items), errors, unread)
        self._last = now
        return shown

    def _sample(self) -> tuple[Sample, dict[str, str], Mapping[str, str], Mapping[str, str]]:
        nodes = self._client.admin("node.list")["nodes"]
        stats = self._client.admin("stats")
        at_s = time.monotonic()
        there = {
            str(node["name"]): str(node["http"]) for node in nodes if node["name"] in stats["stats"] and node["http"]
        }
        pages, unread = read_pages(there, METRICS)
        latencies = {name: histograms_of(page) for name, page in pages.items()}
        states = {str(node["name"]): str(node["state"]) for node in nodes}
        return Sample(at_s, stats["stats"], latencies), states, stats.get("errors") or {}, unread


def _print(session: Session, shown: Shown) -> None:
    rows = rows_of(shown.items, shown.total)
    session.output.items(
        "TopList",
        shown.items,
        COLUMNS,
        errors=shown.errors,
        extra={"total": dict(shown.total), "without_latencies": dict(shown.unread)},
        plain=lambda: plain_table(COLUMNS, rows),
    )
    if session.options.output == "table":
        for line in _lines(shown):
            session.note(line)


def _lines(shown: Shown) -> list[str]:
    """What stands below the table."""
    lines = waiting_lines(shown.items)
    return lines + [f"no latencies of {name}: {why}" for name, why in shown.unread.items()]


def _live(session: Session, watch: _Watch) -> None:
    """Draw in place until interrupted."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    console = session.output.console(session.output.out)
    with Live(Text("looking"), console=console, auto_refresh=False) as live:
        drawn: RenderableType = Text("")
        wait_s = INTERVAL_S
        while True:
            time.sleep(wait_s)
            wait_s = WATCH_S
            try:
                drawn = _drawn(watch.look(), console.width)
                live.update(drawn, refresh=True)
            except LeafdbError as error:
                live.update(Group(drawn, Text(f"! no answer: {error.message}", style="red")), refresh=True)


def _drawn(shown: Shown, width: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    rows = rows_of(shown.items, shown.total)
    away = [Text(f"! {name} could not be asked: {why}", style="red") for name, why in shown.errors.items()]
    lines = [Text(line, style="yellow") for line in _lines(shown)]
    hint = Text(f"the last {WATCH_S:.0f} s; control-C ends it", style="dim")
    return Group(rich_table(fitting(COLUMNS, rows, width), rows), *away, *lines, hint)
