"""What stands for worker processes and for the people at a terminal in tests of `leafdb sim`."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from leafdb.sim.outcome import Broken, Outcome, Tier
from leafdb_cli.options import Format, Options
from leafdb_cli.render import Output
from leafdb_cli.session import Session
from leafdb_cli.sim_pool import Job, Result

Verdict = Callable[[Job], Outcome | str]
"""What a job comes to: an outcome, or the trouble its worker had."""


class FakePool:
    """Runs jobs at once, in this process; what has ended is given out in the order it was begun, one at a time."""

    def __init__(self, verdict: Verdict, size: int = 2) -> None:
        self._verdict = verdict
        self._size = size
        self._waiting: list[Result] = []
        self.jobs: list[Job] = []

    @property
    def free(self) -> int:
        return self._size - len(self._waiting)

    def submit(self, job: Job) -> None:
        assert self.free > 0
        self.jobs.append(job)
        found = self._verdict(job)
        trouble = isinstance(found, str)
        self._waiting.append(Result(job, None if trouble else found, 0.5, found if trouble else ""))  # type: ignore[arg-type]  # told apart by `trouble`

    def wait(self, timeout_s: float) -> list[Result]:
        return [self._waiting.pop(0)]


def held(
    job: Job, *, trace: str = "", faults: Mapping[str, int] | None = None, probes: Mapping[str, int] | None = None
) -> Outcome:
    """A run that broke nothing."""
    trace = trace or f"{job.seed:032x}"
    return Outcome(
        Tier(job.tier), job.seed, job.nodes, job.operations, 36.0, trace, None, dict(faults or {}), dict(probes or {})
    )


def broke(job: Job, invariant: str, key: str | None = "k1") -> Outcome:
    """A run that broke something."""
    return Outcome(
        Tier(job.tier), job.seed, job.nodes, job.operations, 36.0, "ff" * 16, Broken(invariant, "it is gone", key)
    )


class Screen:
    """A session whose output is kept."""

    def __init__(self, form: Format = Format.TABLE) -> None:
        self.out = io.StringIO()
        self.err = io.StringIO()
        output = Output(form, no_color=True, out=self.out, err=self.err)
        self.session = Session(Options(output=form), output)
