"""One seed in this process: its verdict, its counters, its fingerprint; and when it fails, why, as short as it gets.

In this very process, so that a debugger, a profiler and PYTHONHASHSEED are the caller's.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from leafdb_cli import exits
from leafdb_cli.render import human_seconds
from leafdb_cli.session import Session
from leafdb_cli.sim_report import count_items, print_counts, run_item

if TYPE_CHECKING:
    from leafdb.sim.outcome import Outcome, Runner
    from leafdb.sim.shrink import Shrunk
    from leafdb_cli.sim_pool import Job


def run_single(session: Session, job: Job, runner: Runner, *, shorten: bool) -> bool:
    """Run it and print what came of it; True when nothing was broken."""
    with _interruptible():
        return _run(session, job, runner, shorten=shorten)


def _run(session: Session, job: Job, runner: Runner, *, shorten: bool) -> bool:
    started = time.monotonic()
    outcome = runner(job.seed, nodes=job.nodes, operations=job.operations)
    item = run_item(outcome, time.monotonic() - started, job.replay)
    table = session.options.output == "table"
    if table:
        _print_verdict(session, item)
    if outcome.broken is not None and shorten:
        text = _shortened(session, job, runner, outcome, item)
        if table:
            session.output.out.write(text + "\n")
    if table:
        session.output.out.write(f"trace {outcome.trace}\n")
        session.output.out.flush()
    else:
        session.output.items("SimRun", [item], [])
    return outcome.broken is None


def _print_verdict(session: Session, item: dict[str, Any]) -> None:
    out = session.output.out
    verdict = "nothing was broken" if item["invariant"] is None else f"{item['invariant']} was broken"
    out.write(
        f"seed {item['seed']}, tier {item['tier']}, {item['nodes']} nodes, {item['operations']} operations, "
        f"{human_seconds(item['virtual_s'])} virtual in {human_seconds(item['wall_s'])}: {verdict}\n"
    )
    if item["message"]:
        out.write(f"  {item['message']}" + (f" (key {item['key']})\n" if item["key"] is not None else "\n"))
    out.write("\n")
    once = dict.fromkeys((*item["faults"], *item["probes"]), 1)
    print_counts(session, count_items(item["faults"], once), count_items(item["probes"], once), of_many=False)


def _shortened(session: Session, job: Job, runner: Runner, outcome: Outcome, item: dict[str, Any]) -> str:
    """The timeline of the shortest run that fails the same way; `item` gets it too."""
    from leafdb.sim.shrink import shrink
    from leafdb.sim.timeline import timeline

    def tell(run: int, operations: int, best: int) -> None:
        session.note(f"shrinking: run {run} with {operations} operations, {best} fail")

    shrunk: Shrunk = shrink(runner, outcome, job.operations, tell=tell)
    replay = dataclasses.replace(job, operations=shrunk.asked).replay
    if not shrunk.same:
        session.note("two runs of one seed differ: the run is not deterministic (leafdb sim determinism)")
    text = timeline(shrunk.outcome, replay)
    item["shrunk"] = {
        "operations": shrunk.asked,
        "runs": shrunk.runs,
        "deterministic": shrunk.same,
        "trace": shrunk.outcome.trace,
        "replay": replay,
        "timeline": text.splitlines(),
    }
    return text


@contextmanager
def _interruptible() -> Iterator[None]:
    """Control-C ends the process here and now: inside a simulated loop it would look like a failure of a node."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"leafdb: interrupted\n")
    os._exit(exits.INTERRUPTED)
