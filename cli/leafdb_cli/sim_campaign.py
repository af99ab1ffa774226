"""Many fresh seeds of a tier, until the time or their number is up; and seeds run twice to see that they repeat.

What was found so far is printed whatever ends a campaign. A problem is told when it is found, with its replay.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, Final

from leafdb_cli import exits
from leafdb_cli.bench import CLEAR_LINE
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column, human_seconds
from leafdb_cli.session import Session
from leafdb_cli.sim_pool import Job, Result, Runs, results
from leafdb_cli.sim_report import Tally, campaign_item, print_campaign, problem_text, write_record

FIRST_SEED_MAX: Final = 10**9
NOTE_S: Final = 60.0
HASH_SEEDS: Final = (1, 4_242)

DETERMINISM_COLUMNS: Final = [Column("seed", right=True), Column("same"), Column("traces", show=" ".join)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a campaign goes on: until the first of the two."""

    seconds: float | None
    seeds: int | None


class Live:
    """What a campaign says while it runs: a line that is written over on a terminal, a line a minute elsewhere."""

    def __init__(self, session: Session, text: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._text = text
        self._clock = clock
        self._noted = clock()
        self._terminal = session.output.err.isatty()

    def tick(self) -> None:
        """Say how far it is, if it is time to."""
        if self._terminal:
            self._session.output.err.write(CLEAR_LINE + self._text())
            self._session.output.err.flush()
        elif self._clock() - self._noted >= NOTE_S:
            self._noted = self._clock()
            self._session.note(self._text())

    def note(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        self._session.note(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal:
            self._session.output.err.write(CLEAR_LINE)


def run_campaign(
    session: Session, pool: Runs, first: Job, bounds: Bounds, *, jobs: int, record: Path | None = None
) -> bool:
    """Run the seeds from `first` on; print, keep, and say whether nothing was broken. Quit when interrupted."""
    tally = Tally()
    started = time.monotonic()

    def elapsed_s() -> float:
        return time.monotonic() - started

    def text() -> str:
        left = f", {human_seconds(max(0.0, bounds.seconds - elapsed_s()))} left" if bounds.seconds is not None else ""
        of = f" of {bounds.seeds}" if bounds.seeds is not None else ""
        rate = 60 * len(tally.seeds) / max(elapsed_s(), 0.001)
        return f"seeds {len(tally.seeds)}{of}, {rate:.1f} a minute, {len(tally.problems)} problems{left}"

    seeds = islice(count(first.seed), bounds.seeds)

    def take() -> Job | None:
        if tally.hopeless or (bounds.seconds is not None and elapsed_s() >= bounds.seconds):
            return None
        seed = next(seeds, None)
        return None if seed is None else replace(first, seed=seed)

    live = Live(session, text)
    session.note(f"seeds from {first.seed}; tier {first.tier}, {first.nodes} nodes, {first.operations} operations each")
    with until_interrupted() as interrupted:
        for result in results(pool, take, live.tick):
            problem = tally.add(result)
            if problem is not None:
                live.note(problem_text(problem))
    live.clear()
    asked = {"tier": first.tier, "nodes": first.nodes, "operations_each": first.operations}
    item = campaign_item(tally, asked, elapsed_s(), jobs)
    print_campaign(session, item)
    if record is not None:
        write_record(record, item)
    if tally.hopeless:
        session.note("ended early: so many problems are one problem")
    if interrupted:
        raise Quit(exits.INTERRUPTED, "interrupted: that was the part that was done", "--first-seed goes on behind it")
    return not tally.problems


def run_determinism(session: Session, pool: Runs, first: Job, seeds: int) -> bool:
    """Run every seed in two fresh processes under different hash seeds; print those that differ; True for none."""
    waiting = deque(
        replace(first, seed=seed, hash_seed=hash_seed, fresh=True)
        for seed in range(first.seed, first.seed + seeds)
        for hash_seed in HASH_SEEDS
    )
    found: dict[int, list[Result]] = {}
    live = Live(session, lambda: f"{len(found)} of {seeds} seeds, {sum(map(_differ, found.values()))} differ")
    with until_interrupted() as interrupted:
        for result in results(pool, lambda: waiting.popleft() if waiting else None, live.tick):
            pair = found.setdefault(result.job.seed, [])
            pair.append(result)
            if len(pair) == len(HASH_SEEDS) and _differ(pair):
                live.note(f"seed {result.job.seed} differs")
    live.clear()
    pairs = {seed: pair for seed, pair in sorted(found.items()) if len(pair) == len(HASH_SEEDS)}
    items = [_pair_item(seed, pair) for seed, pair in pairs.items()]
    bad = [item for item in items if not item["same"]]
    shown = bad if session.options.output == "table" else items
    session.output.items("SimDeterminism", shown, DETERMINISM_COLUMNS)
    session.note(f"{len(items) - len(bad)} of {len(items)} seeds gave the same trace in two processes")
    if interrupted:
        raise Quit(exits.INTERRUPTED, "interrupted: that was the part that was done", "--first-seed goes on behind it")
    return not bad


def traces_of(pair: list[Result]) -> list[str]:
    """The fingerprints of one seed, in the order of the hash seeds; trouble stands for itself."""
    ordered = sorted(pair, key=lambda result: result.job.hash_seed or 0)
    return [result.outcome.trace if result.outcome is not None else result.trouble for result in ordered]


def fresh_seed() -> int:
    """Where a campaign begins when nobody says: never twice at the same place."""
    return 1 + secrets.randbelow(FIRST_SEED_MAX)


def _differ(pair: list[Result]) -> bool:
    return len(set(traces_of(pair))) > 1 or any(result.outcome is None for result in pair)


def _pair_item(seed: int, pair: list[Result]) -> dict[str, Any]:
    return {"seed": seed, "same": not _differ(pair), "traces": traces_of(pair), "replay": pair[0].job.replay}


@contextmanager
def until_interrupted() -> Iterator[list[bool]]:
    """Control-C ends the block, not the command; the list then holds something."""
    interrupted: list[bool] = []
    try:
        yield interrupted
    except KeyboardInterrupt:
        interrupted.append(True)
