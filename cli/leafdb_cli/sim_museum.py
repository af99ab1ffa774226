"""The bug museum: every mutation is hunted with seeds 1, 2, 3, ... of its tier until one breaks something.

The seed that caught a bug is then run without it: a seed that fails anyway has caught nothing. Each mutation has a
process of its own, since it changes what is imported; a mutation that shows only as an order (`compare_hash_seeds`)
runs each seed in two, and is caught when the fingerprints differ.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.render import Column, joined
from leafdb_cli.session import Session
from leafdb_cli.sim_campaign import HASH_SEEDS, Live, traces_of, until_interrupted
from leafdb_cli.sim_pool import Job, Result, Runs, results

if TYPE_CHECKING:
    from leafdb.sim.mutation import Mutation

CAUGHT: Final = "caught"
OTHERWISE: Final = "caught otherwise"
"""By an invariant that nobody expected."""
NOT_CAUGHT: Final = "NOT CAUGHT"
FAILS_ANYWAY: Final = "FAILS ANYWAY"
"""The seed fails without the mutation as well."""
TROUBLE: Final = "TROUBLE"
"""A run without a verdict, or a mutation that cannot be applied."""
NOT_FINISHED: Final = "not finished"
GOOD: Final = (CAUGHT, OTHERWISE)


def _style(verdict: Any) -> str:
    return {CAUGHT: "green", OTHERWISE: "yellow"}.get(str(verdict), "bold red")


COLUMNS: Final = [
    Column("mutation"), Column("tier"), Column("verdict", style=_style), Column("invariant"),
    Column("seed", right=True), Column("runs", right=True), Column("seconds", right=True),
    Column("expected", show=joined),
]  # fmt: skip
LIST_COLUMNS: Final = [
    Column("mutation"), Column("tier"), Column("expected", show=joined), Column("seeds_max", "seeds", right=True),
    Column("title"),
]  # fmt: skip


class Hunt:
    """One mutation, seed by seed."""

    def __init__(self, mutation: Mutation) -> None:
        self.mutation = mutation
        self.verdict = ""
        """Empty while it is hunted."""
        self.invariant: str | None = None
        self.message = ""
        self.seed = 0
        self.runs = 0
        self.wall_s = 0.0
        self._results: list[Result] = []

    def next(self) -> Job:
        """What to run next: the same seed under another hash seed, or another seed."""
        if not self._results:
            self.seed += 1
        hash_seed = HASH_SEEDS[len(self._results)] if self.mutation.compare_hash_seeds else None
        return replace(self.control, mutation=self.mutation.name, hash_seed=hash_seed)

    @property
    def control(self) -> Job:
        """The seed that was run last, without the mutation."""
        mutation = self.mutation
        return Job(mutation.tier.value, self.seed, mutation.nodes, mutation.operations)

    def take(self, result: Result) -> None:
        """What came of `next`."""
        self.runs += 1
        self.wall_s += result.wall_s
        self._results.append(result)
        if result.outcome is None:
            self.verdict, self.message = TROUBLE, result.trouble
        elif result.outcome.broken is not None:
            self._catch(result.outcome.broken.invariant, result.outcome.broken.message)
        elif self.mutation.compare_hash_seeds and len(self._results) < len(HASH_SEEDS):
            return
        elif self.mutation.compare_hash_seeds and len(set(traces_of(self._results))) > 1:
            self._catch("I39", "two processes gave two traces")
        elif self.seed >= self.mutation.seeds_max:
            self.verdict = NOT_CAUGHT
        self._results = []

    def take_control(self, result: Result) -> None:
        """What came of `control`."""
        self.wall_s += result.wall_s
        if result.outcome is None:
            self.verdict, self.message = TROUBLE, f"without the mutation: {result.trouble}"
        elif result.outcome.broken is not None:
            broken = result.outcome.broken
            self.verdict, self.message = FAILS_ANYWAY, f"without the mutation: {broken.invariant}: {broken.message}"

    def _catch(self, invariant: str, message: str) -> None:
        expected = {one.value for one in self.mutation.caught_by}
        self.verdict = CAUGHT if invariant in expected else OTHERWISE
        self.invariant, self.message = invariant, message

    def item(self) -> dict[str, Any]:
        """As an item."""
        return {
            **mutation_item(self.mutation),
            "verdict": self.verdict or NOT_FINISHED,
            "invariant": self.invariant,
            "message": self.message,
            "seed": self.seed if self.invariant else None,
            "runs": self.runs,
            "seconds": round(self.wall_s, 1),
            "replay": replace(self.control, mutation=self.mutation.name).replay if self.invariant else None,
        }


def mutation_item(mutation: Mutation) -> dict[str, Any]:
    """A mutation as an item."""
    return {
        "mutation": mutation.name,
        "title": mutation.title,
        "tier": mutation.tier.value,
        "expected": [invariant.value for invariant in mutation.caught_by],
        "seeds_max": mutation.seeds_max,
    }


def print_list(session: Session, mutations: Sequence[Mutation]) -> None:
    """The exhibits."""
    session.output.items(
        "SimMutationList", [mutation_item(one) for one in mutations], LIST_COLUMNS, empty="no exhibits"
    )


def run_museum(session: Session, pool: Runs, mutations: Sequence[Mutation]) -> bool:
    """Hunt every mutation and print the table; True when each is caught."""
    hunts = {mutation.name: Hunt(mutation) for mutation in mutations}

    def text() -> str:
        done = sum(bool(hunt.verdict) for hunt in hunts.values())
        return f"{done} of {len(hunts)} mutations, {sum(hunt.runs for hunt in hunts.values())} runs"

    live = Live(session, text)
    for hunt in hunts.values():
        hunt.verdict, hunt.message = _stale(hunt.mutation)
    waiting = deque(hunt for hunt in hunts.values() if not hunt.verdict)

    def take() -> Job | None:
        return waiting.popleft().next() if waiting else None

    with until_interrupted() as interrupted:
        for result in results(pool, take, live.tick):
            hunt = hunts[result.job.mutation]
            hunt.take(result)
            if hunt.verdict:
                live.note(f"{hunt.mutation.name}: {hunt.verdict} {hunt.invariant or ''} (seed {hunt.seed})")
            else:
                waiting.appendleft(hunt)  # in front: its process is there already
        _run_controls(pool, hunts, live)
    live.clear()
    items = [hunt.item() for hunt in hunts.values()]
    session.output.items("SimMuseum", items, COLUMNS, empty="no exhibits")
    bad = [item for item in items if item["verdict"] not in GOOD]
    for item in bad:
        session.note(f"{item['mutation']}: {item['verdict']}: {item['message'] or item['title']}")
    session.note(f"{len(items) - len(bad)} of {len(items)} mutations are caught")
    if interrupted:
        raise Quit(exits.INTERRUPTED, "interrupted: that was the part that was done", "run it again for the rest")
    return not bad


def _stale(mutation: Mutation) -> tuple[str, str]:
    """The verdict on a mutation that does not fit the source any more, and why; two empty texts for one that does."""
    from leafdb.sim.mutation import MutationError, mutated_sources

    try:
        mutated_sources(mutation)
    except MutationError as error:
        return TROUBLE, str(error)
    return "", ""


def _run_controls(pool: Runs, hunts: dict[str, Hunt], live: Live) -> None:
    """Each seed that caught something, once without a mutation."""
    by_control: dict[Job, list[Hunt]] = {}
    for hunt in hunts.values():
        if hunt.verdict in GOOD:
            by_control.setdefault(hunt.control, []).append(hunt)
    waiting = deque(by_control)
    for result in results(pool, lambda: waiting.popleft() if waiting else None, live.tick):
        for hunt in by_control[result.job]:
            hunt.take_control(result)
