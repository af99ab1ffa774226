"""How far a ring change is: one line, a table, and waiting until it is over.

A plan is over when a node that knows of the commit's epoch has it no more. A node that is behind shows no plan either,
so the epoch is looked at first. What became of it is read off the members: a plan that is done has those
who came and not those who went, one that was given up has them the other way round; no plan leaves both alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from leafdb.errors import LeafdbError, NotApplied
from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.plan_view import PlanView, phase_text
from leafdb_cli.render import human_bytes, human_seconds, joined
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leafdb.client.sync_client import Client

POLL_S: Final = 1.0
REQUEST_S: Final = 5.0
PATIENCE_S: Final = 60.0
"""For so long nobody may answer: a node that is restarted meanwhile is no reason to stop waiting."""
BAR_CELLS: Final = 12
NO_PLAN: Final = "no ring change is in progress"

Reply = Mapping[str, Any]


def items_of(reply: Reply) -> list[dict[str, Any]]:
    """The receivers, in the order of their names."""
    return [dict(item) for item in sorted(reply["items"], key=lambda item: str(item["name"]))]


def plan_of(reply: Reply) -> str:
    """The id of the plan in progress, in hexadecimal; empty when there is none."""
    return bytes(reply.get("plan_id") or b"").hex()


def share_done(item: Mapping[str, Any]) -> float:
    """How much of a receiver's copies is there, 0 to 1: by exchanges, for bytes are an estimate."""
    total = int(item["total"])
    if total == 0:
        return 1.0 if item.get("settled", True) else 0.0
    return max(0.0, min(1.0, 1 - int(item["left"]) / total))


def waiting_for(reply: Reply) -> list[str]:
    """Everybody for whom some receiver waits."""
    return sorted({str(name) for item in reply["items"] for name in item.get("waiting_for") or ()})


def reasons_of(reply: Reply) -> list[str]:
    """What the next step waits for besides copies, in the words of the node that drives the plan."""
    copying = any(int(item["left"]) for item in reply["items"])
    return [] if copying else [str(said) for said in reply.get("waiting") or ()]


def line_of(reply: Reply) -> str:
    """The whole of it on one line, for logs."""
    if not plan_of(reply):
        return NO_PLAN
    items = reply["items"]
    left, total = sum(int(item["left"]) for item in items), sum(int(item["total"]) for item in items)
    done_bytes = sum(int(item["bytes_done"]) for item in items)
    left_bytes = [_left_bytes(item) for item in items]
    parts = [f"{phase_text(reply.get('phase'))}: {total - left} of {total} exchanges"]
    known = [size for size in left_bytes if size is not None]
    parts.append(_share(done_bytes, "of about", sum(known) if len(known) == len(left_bytes) else None))
    if rate := sum(float(item.get("bytes_per_s") or 0) for item in items):
        parts.append(f"{human_bytes(rate)}/s")
    etas = [float(item["eta_s"]) for item in items if item.get("eta_s") is not None and int(item["left"])]
    if etas:
        parts.append(f"{human_seconds(max(etas))} left")
    if names := waiting_for(reply):
        parts.append(f"waits for {joined(names)}")
    return "; ".join([", ".join(parts), *reasons_of(reply)])


def _left_bytes(item: Mapping[str, Any]) -> int | None:
    """None while nobody can say."""
    return None if item["bytes_left"] is None else int(item["bytes_left"])


def _share(done: int, of: str, left: int | None) -> str:
    return human_bytes(done) if left is None else f"{human_bytes(done)} {of} {human_bytes(done + left)}"


def view_of(reply: Reply) -> RenderableType:
    """A bar for each receiver, and for whom is waited; within 80 columns while names are short."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not plan_of(reply):
        return Text(NO_PLAN, style="dim")
    head = Text.assemble(
        (f"plan {plan_of(reply)[:12]}", "bold"), "  ", (phase_text(reply.get("phase")), "yellow"), "\n"
    )
    table = Table.grid(padding=(0, 2))
    for item in items_of(reply):
        share = share_done(item)
        filled = round(BAR_CELLS * share)
        done, left = int(item["bytes_done"]), _left_bytes(item)
        rate, eta = item.get("bytes_per_s"), item.get("eta_s")
        table.add_row(
            Text(str(item["name"]), style="bold"),
            Text.assemble(("█" * filled, "green"), ("·" * (BAR_CELLS - filled), "dim")),
            Text(f"{100 * share:.0f} %", justify="right"),
            Text(_share(done, "of", left), justify="right"),
            Text(f"{human_bytes(rate)}/s" if rate else "", justify="right"),
            Text(f"{human_seconds(float(eta))} left" if eta is not None and item["left"] else ""),
        )
    lines = [Text(f"! waits for {name}, which cannot be reached", style="yellow") for name in waiting_for(reply)]
    lines += [Text(f"! {said}", style="yellow") for said in reasons_of(reply)]
    return Group(head, table, *lines)


def wait_for_end(session: Session, plan: PlanView, epoch: int) -> bool:
    """Follow the plan on stderr until it is over. Whether it was done, not given up.

    `epoch` is that of the change that was asked for. Raises Quit when --timeout is over first: the plan goes on without
    anybody watching.
    """
    limit = session.options.timeout_s
    deadline = None if limit is None else time.monotonic() + limit
    with session.client(routing="listed", timeout_s=REQUEST_S) as client, _screen(session) as show:
        for ring in _polls(client, plan.plan_id, show):
            if ring is not None and int(ring["epoch"]) >= epoch and _plan_id_of(ring) != plan.plan_id:
                there = {int(member["id"]) for member in ring["members"]}
                return plan.staying() <= there and not plan.going() & there
            if deadline is not None and time.monotonic() >= deadline:
                raise Quit(
                    exits.UNAVAILABLE,
                    "the plan goes on without anybody watching",
                    "leafdb transfer list --watch follows it",
                )
            time.sleep(POLL_S)
    raise AssertionError("unreachable")


def _plan_id_of(ring: Reply) -> str:
    plan = ring.get("change") or {}
    return bytes(plan.get("id") or b"").hex()


def _polls(client: Client, plan_id: str, show: Callable[[Reply], None]) -> Iterator[Reply | None]:
    """Show how far it is, again and again; the ring where it may be over. Nobody's answer is waited out for a while."""
    heard = time.monotonic()
    while True:
        try:
            reply = client.admin("transfer.list", timeout=REQUEST_S)
            ring = None if plan_of(reply) == plan_id else client.admin("ring.show", timeout=REQUEST_S)
        except LeafdbError as error:
            passing = error.retryable or not isinstance(error, NotApplied)
            if not passing or time.monotonic() - heard > PATIENCE_S:
                raise
            yield None
            continue
        heard = time.monotonic()
        if ring is None:
            show(reply)
        yield ring


@contextmanager
def _screen(session: Session) -> Iterator[Callable[[Reply], None]]:
    """What draws progress on stderr: in place on a terminal, elsewhere a line when something has changed."""
    if session.output.err.isatty():
        from rich.live import Live

        with Live(console=session.output.console(session.output.err), auto_refresh=False) as live:
            yield lambda reply: live.update(view_of(reply), refresh=True)
        return
    said: list[str] = [""]

    def say(reply: Reply) -> None:
        line = line_of(reply)
        if line != said[0]:
            said[0] = line
            session.note(line)

    yield say


def close(session: Session, plan: PlanView, *, done: bool, wanted: Sequence[bool] = (True,)) -> None:
    """Say how a plan ended. Raises Quit when it is not how it was to end."""
    text = f"plan {plan.plan_id} is done" if done else f"plan {plan.plan_id} was given up; the ring is as it was"
    if done not in wanted:
        raise Quit(exits.FAILED, text, "leafdb ring history says how it came to that")
    session.note(text)
