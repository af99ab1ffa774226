"""How repairs look to a person: each task in a few lines, when everything was last compared, what may be lost.

Within 80 columns while names are short; reasons and errors are in the words of the node that has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from leafdb_cli.purge_view import purge_text
from leafdb_cli.render import Column, human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

Line = Mapping[str, Any]

BAR_CELLS: Final = 12
STATE_STYLES: Final = {"done": "green", "failed": "bold red", "cancelled": "dim"}


def state_style(state: object) -> str:
    """How a task's state looks."""
    return STATE_STYLES.get(str(state), "yellow")


def waiting_text(waiting: Mapping[str, str] | None) -> str:
    """For whom a task waits, and why."""
    return "; ".join(f"{name}: {why}" for name, why in sorted((waiting or {}).items())) or "-"


COLUMNS: Final = [
    Column("node"), Column("task"), Column("state", style=state_style), Column("reason", spare=1),
    Column("partitions_done", "done", right=True), Column("partitions_total", "of", right=True),
    Column("keys_differing", "differing", right=True), Column("keys_sent", "sent", right=True),
    Column("keys_received", "received", right=True), Column("bytes", "size", human_bytes, right=True),
    Column("bytes_per_s", "per second", human_bytes, right=True, spare=4),
    Column("eta_s", "eta", human_seconds, right=True, spare=5),
    Column("waiting_for", "waits for", waiting_text, spare=2), Column("last_error", spare=3),
]  # fmt: skip
STARTED_COLUMNS: Final = COLUMNS[:2]
SCHEDULE_COLUMNS: Final = [
    Column("node"), Column("age_max_s", "promised", human_seconds, right=True), Column("set"), Column("paused"),
    Column("oldest_s", "oldest", human_seconds, right=True), Column("ranges", right=True), Column("due", right=True),
    Column("over_age", "too old", show=lambda lines: over_text(lines or ()), spare=1),
]  # fmt: skip


def over_text(lines: Sequence[Line]) -> str:
    """Ranges past the promised age, by peer."""
    return "; ".join(f"{line['ranges']} with {line['peer']}: {line['why']}" for line in lines) or "-"


def when(at_ms: int) -> str:
    """A moment, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def name_of(line: Line) -> str:
    """What `repair cancel` takes."""
    return f"{line['node']}/{line['task']}"


def progress_of(lines: Sequence[Line]) -> str:
    """All of some tasks on one line, for logs."""
    total = sum(int(line["partitions_total"]) for line in lines)
    done = sum(int(line["partitions_done"]) for line in lines)
    parts = [f"{done} of {total} ranges", human_bytes(sum(int(line["bytes"]) for line in lines))]
    etas = [float(line["eta_s"]) for line in lines if line.get("eta_s") is not None]
    if etas:
        parts.append(f"about {human_seconds(max(etas))} left")
    waiting = {name: why for line in lines for name, why in (line.get("waiting_for") or {}).items()}
    return ", ".join(parts) + (f"; waits for {waiting_text(waiting)}" if waiting else "")


def schedule_text(lines: Sequence[Line]) -> list[str]:
    """When everything was last compared, in a line; and what is not as it should be."""
    if not lines:
        return []
    oldest = max(float(line["oldest_s"]) for line in lines)
    promised = sorted({float(line["age_max_s"]) for line in lines})
    within = " or ".join(human_seconds(age) for age in promised)
    found = [f"every range was compared within {human_seconds(oldest)}; promised is {within}"]
    if any(line["over_age"] for line in lines):
        found = [f"the oldest comparison is {human_seconds(oldest)} old; promised is {within}"]
    for line in lines:
        if line["paused"]:
            found.append(f"! {line['node']} begins none by itself: its schedule is paused")
        found += [
            f"! {line['node']}: {over['ranges']} ranges with {over['peer']} not compared for "
            f"{human_seconds(float(over['oldest_s']))}: {over['why']}"
            for over in line["over_age"]
        ]
    return found


def losses_text(lines: Sequence[Line]) -> list[str]:
    """What may be lost, the acknowledged too."""
    return [
        f"{'-' if line['acknowledged_ms'] else '!'} {line['node']}: since {when(line['at_ms'])} "
        f"{'deleted values may be back' if line.get('returned') else 'writes may be lost'} in "
        f"{len(line['partitions'])} partitions"
        + (f"; acknowledged {when(line['acknowledged_ms'])}" if line["acknowledged_ms"] else "")
        for line in lines
    ]


def unsure_text(lines: Sequence[Line]) -> list[str]:
    """Where whose copies cannot say what is absent, and why."""
    return [f"! {line['node']}: {line['why']}, in {len(line['partitions'])} partitions" for line in lines]


def view_of(
    tasks: Sequence[Line],
    schedules: Sequence[Line],
    losses: Sequence[Line],
    purges: Sequence[Line] = (),
    unsure: Sequence[Line] = (),
) -> RenderableType:
    """All of it for a terminal."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for task in tasks:
        parts += _task(task)
    if not tasks:
        parts.append(Text("no repairs", style="dim"))
    for said in (*schedule_text(schedules), *losses_text(losses), *purge_text(purges), *unsure_text(unsure)):
        parts.append(Text(said, style="yellow" if said.startswith("!") else ""))
    return Group(*parts)


def _task(task: Line) -> list[RenderableType]:
    from rich.text import Text

    done, total = int(task["partitions_done"]), int(task["partitions_total"])
    share = done / total if total else 1.0
    filled = round(BAR_CELLS * share)
    state = str(task["state"])
    lines: list[RenderableType] = [
        Text.assemble((name_of(task), "bold"), "  ", (state, state_style(state)), f"  {task['reason']}")
    ]
    figures = f"  {done} of {total} ranges  {human_bytes(task['bytes'])}"
    if state == "running" and task.get("bytes_per_s"):
        figures += f"  {human_bytes(task['bytes_per_s'])}/s"
    if task.get("eta_s") is not None:
        figures += f"  {human_seconds(task['eta_s'])} left"
    lines.append(Text.assemble("  ", ("█" * filled, "green"), ("·" * (BAR_CELLS - filled), "dim"), figures))
    differing, sent, received = task["keys_differing"], task["keys_sent"], task["keys_received"]
    lines.append(Text(f"  {differing} keys differed, {sent} sent, {received} received", style="dim"))
    for name, why in sorted((task.get("waiting_for") or {}).items()):
        lines.append(Text(f"  ! waits for {name}: {why}", style="yellow"))
    if task["last_error"] and state not in ("done", "cancelled"):
        lines.append(Text(f"  ! last error: {task['last_error']}", style="yellow"))
    return lines
