"""A process that runs seeds: one JSON object a line comes in, one goes out.

It is started for a campaign with at most one mutation, which is applied before anything of the simulation is imported.
What is printed by accident goes to stderr. When stdin ends the process does, even in the middle of a run, so that none
is left behind; on SIGABRT it says where it hangs.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leafdb.sim.outcome import Outcome, Runner, Tier


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """As JSON, without the story."""
    fields = dataclasses.asdict(dataclasses.replace(outcome, lines=()))
    del fields["lines"]
    return fields


def outcome_from(fields: dict[str, Any]) -> Outcome:
    """What `outcome_fields` wrote."""
    from leafdb.sim.outcome import Broken, Outcome, Tier

    broken = fields.pop("broken")
    return Outcome(**{**fields, "tier": Tier(fields["tier"])}, broken=None if broken is None else Broken(**broken))


def serve(runner_of: Callable[[Tier], Runner], jobs: Iterable[dict[str, Any]], answers: IO[str]) -> None:
    """Run every job and answer it."""
    from leafdb.sim.outcome import Tier

    for job in jobs:
        started = time.monotonic()
        run = runner_of(Tier(job["tier"]))
        outcome = run(job["seed"], nodes=job["nodes"], operations=job["operations"])
        answer = {"outcome": outcome_fields(outcome), "wall_s": time.monotonic() - started}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def jobs_from(lines: IO[str]) -> Iterable[dict[str, Any]]:
    """The jobs that come in. They are read by a thread, which ends the process when the other side is gone."""
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in lines:
            waiting.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def answers_to_stdout() -> IO[str]:
    """The stdout this process was started with, for answers alone: what else is printed goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def with_mutation(name: str) -> Callable[[Tier], Runner]:
    """Runners with a mutation. A module of it that no run imports ends the process: nothing was tried."""
    from leafdb.sim.museum import BY_NAME
    from leafdb.sim.mutation import activate
    from leafdb.sim.outcome import NODES, OPERATIONS
    from leafdb.sim.tiers import runner

    activation = activate(BY_NAME[name])

    def runner_of(tier: Tier) -> Runner:
        inner = runner(tier)

        def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
            outcome = inner(seed, nodes=nodes, operations=operations, keep=keep)
            if activation.pending:
                raise SystemExit(f"mutation {name}: no run of tier {tier} imports {sorted(activation.pending)}")
            return outcome

        return run

    return runner_of


def main(arguments: list[str]) -> None:
    """`python -m leafdb_cli.sim_worker [MUTATION]`."""
    from leafdb.sim.tiers import runner

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # control-C is for who started us; it ends us
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGABRT is for the stack, not for a core file
    answers = answers_to_stdout()
    serve(with_mutation(arguments[0]) if arguments else runner, jobs_from(sys.stdin), answers)


if __name__ == "__main__":
    main(sys.argv[1:])
