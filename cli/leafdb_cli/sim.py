"""`leafdb sim`: whole clusters, and parts of one, simulated from a seed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from leafdb_cli import exits
from leafdb_cli.exits import Quit
from leafdb_cli.options import parse_duration_s
from leafdb_cli.session import Session, session_of

if TYPE_CHECKING:
    from leafdb.sim.outcome import Runner
    from leafdb_cli.sim_pool import Job, Pool

app = typer.Typer(help="Simulations from one seed.", no_args_is_help=True, rich_markup_mode=None)

LIMIT: Final = "10m"

NODES = Annotated[int, typer.Option("--nodes", min=1, help="Nodes of the simulated cluster.")]
OPERATIONS = Annotated[int, typer.Option("--ops", min=1, help="Client operations of a run.")]
TIER = Annotated[
    str,
    typer.Option(
        "--tier",
        metavar="TIER",
        help="cluster, ring, hunt, rot, or a part: store, crash, failing, damage, record, membership, purge, register.",
    ),
]
JOBS = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes at a time; one per processor unless said.")]
LIMITED = Annotated[
    str, typer.Option("--seed-timeout", metavar="TIME", help="A run that takes longer is ended and reported.")
]
FIRST = Annotated[int | None, typer.Option("--first-seed", metavar="SEED", help="Where fresh seeds begin.")]


@app.callback()
def noun() -> None:
    """Simulations from one seed."""


@app.command()
def run(
    ctx: typer.Context,
    seed: Annotated[int | None, typer.Option("--seed", help="Run this one.")] = None,
    nodes: NODES = 5,
    operations: OPERATIONS = 1_000,
    tier: TIER = "cluster",
    no_shrink: Annotated[bool, typer.Option("--no-shrink", help="Do not look for a shorter failing run.")] = False,
    mutation: Annotated[str, typer.Option("--mutation", metavar="NAME", help="With this bug of the museum.")] = "",
    minutes: Annotated[float | None, typer.Option("--minutes", help="Run fresh seeds for so long.")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Run so many fresh seeds.")] = None,
    first_seed: FIRST = None,
    jobs: JOBS = None,
    seed_timeout: LIMITED = LIMIT,
    record: Annotated[
        Path | None, typer.Option("--record", metavar="FILE", help="Keep the result of a campaign, .md or .json.")
    ] = None,
) -> None:
    """Run one seed (--seed), or a campaign of fresh ones (--minutes, --seeds). Ends with 1 when something is broken.

    A seed that fails is run again with fewer operations, and the timeline of the shortest failing run is printed.

    Examples: leafdb sim run --seed 7, leafdb sim run --minutes 10 --record result.md
    """
    from leafdb_cli.sim_pool import Job

    session = session_of(ctx)
    if (seed is None) == (minutes is None and seeds is None):
        raise typer.BadParameter("give --seed, or for a campaign --minutes or --seeds")
    if seed is not None and (first_seed is not None or record is not None):
        raise typer.BadParameter("--first-seed and --record belong to a campaign (--minutes, --seeds)")
    asked = Job(_tier(tier), seed or 0, nodes, operations, mutation=_mutation(mutation))
    if seed is not None:
        from leafdb_cli.sim_single import run_single

        if not run_single(session, asked, _runner(asked), shorten=not no_shrink):
            raise Quit(exits.FAILED)
        return
    _campaign(session, asked, minutes, seeds, first_seed, jobs, seed_timeout, record)


def _campaign(
    session: Session,
    asked: Job,
    minutes: float | None,
    seeds: int | None,
    first_seed: int | None,
    jobs: int | None,
    seed_timeout: str,
    record: Path | None,
) -> None:
    from dataclasses import replace

    from leafdb_cli.sim_campaign import Bounds, fresh_seed, run_campaign
    from leafdb_cli.sim_report import check_record

    if record is not None:
        check_record(record)
    first = replace(asked, seed=fresh_seed() if first_seed is None else first_seed)
    bounds = Bounds(None if minutes is None else minutes * 60, seeds)
    with _pool(jobs, seed_timeout) as pool:
        fine = run_campaign(session, pool, first, bounds, jobs=_jobs(jobs), record=record)
    if not fine:
        raise Quit(exits.FAILED)


@app.command()
def determinism(
    ctx: typer.Context,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="So many of them.")] = 10,
    first_seed: Annotated[int, typer.Option("--first-seed", metavar="SEED", help="The first of them.")] = 1,
    nodes: NODES = 5,
    operations: OPERATIONS = 1_000,
    tier: TIER = "cluster",
    jobs: JOBS = None,
    seed_timeout: LIMITED = LIMIT,
) -> None:
    """Run seeds twice, in two fresh processes with different hash seeds, and compare their traces.

    Example: leafdb sim determinism --seeds 100
    """
    from leafdb_cli.sim_campaign import run_determinism
    from leafdb_cli.sim_pool import Job

    session = session_of(ctx)
    with _pool(jobs, seed_timeout) as pool:
        fine = run_determinism(session, pool, Job(_tier(tier), first_seed, nodes, operations), seeds)
    if not fine:
        raise Quit(
            exits.FAILED,
            "not every seed gives the same run",
            "something reads a clock, a dict of ids or a real random number: docs/simulation.md",
        )


@app.command()
def museum(
    ctx: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="These only.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what is there and run nothing.")] = False,
    jobs: JOBS = None,
    seed_timeout: LIMITED = LIMIT,
) -> None:
    """Put known bugs into the code, one at a time, and see that each is caught. Ends with 1 when one is not.

    Example: leafdb sim museum --list
    """
    from leafdb.sim.museum import BY_NAME
    from leafdb_cli.sim_museum import print_list, run_museum

    session = session_of(ctx)
    chosen = [BY_NAME[_mutation(name)] for name in names] if names else list(BY_NAME.values())
    if listed:
        print_list(session, chosen)
        return
    with _pool(jobs, seed_timeout) as pool:
        fine = run_museum(session, pool, chosen)
    if not fine:
        raise Quit(exits.FAILED)


@app.command()
def detector(
    ctx: typer.Context,
    nodes: Annotated[int, typer.Option("--nodes", min=2, help="Nodes of the cluster.")] = 50,
    crashes: Annotated[int, typer.Option("--crashes", min=0, help="Nodes that die, one after another.")] = 20,
    node_hours: Annotated[float, typer.Option("--node-hours", min=0, help="Watch so long, with nobody dying.")] = 5.0,
    loss: Annotated[float, typer.Option("--loss", min=0, max=0.9, help="Share of the messages that is lost.")] = 0.0,
    stalled: Annotated[int, typer.Option("--stalled", min=0, help="Nodes that stand still again and again.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Everything is drawn from it.")] = 1,
) -> None:
    """Measure the failure detector: how soon a crash is known to all, how often a living node is called dead.

    Ends with 1 when a crash was not found, or a node called dead that was not standing still.

    Example: leafdb sim detector --loss 0.1 --stalled 5
    """
    from leafdb.sim.membership_measure import Setting
    from leafdb_cli.sim_detector import run_detector

    if stalled > nodes - 2:
        raise typer.BadParameter("two nodes at least must not stall", param_hint="--stalled")
    setting = Setting(nodes, loss, stalled, seed)
    if not run_detector(session_of(ctx), setting, crashes=crashes, node_hours=node_hours):
        raise Quit(exits.FAILED)


def _tier(name: str) -> str:
    from leafdb.sim.outcome import Tier

    if name not in tuple(Tier):
        raise typer.BadParameter(f"{name!r} is no tier: {', '.join(Tier)}", param_hint="--tier")
    return name


def _mutation(name: str) -> str:
    from leafdb.sim.museum import BY_NAME

    if name and name not in BY_NAME:
        raise Quit(exits.NOT_FOUND, f"there is no mutation {name!r}", "leafdb sim museum --list names them")
    return name


def _runner(job: Job) -> Runner:
    """The tier's runner in this process, with the mutation of the job."""
    from leafdb.sim.outcome import Tier
    from leafdb.sim.tiers import runner

    if job.mutation:
        from leafdb.sim.museum import BY_NAME
        from leafdb.sim.mutation import MutationError, activate

        try:
            activate(BY_NAME[job.mutation])
        except MutationError as error:
            raise Quit(
                exits.FAILED, str(error), "the code that it changes has changed: mend leafdb/sim/museum"
            ) from None
    return runner(Tier(job.tier))


def _pool(jobs: int | None, seed_timeout: str) -> Pool:
    from leafdb_cli.sim_pool import Pool

    try:
        limit_s = parse_duration_s(seed_timeout)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--seed-timeout") from None
    return Pool(_jobs(jobs), limit_s)


def _jobs(jobs: int | None) -> int:
    return jobs or len(os.sched_getaffinity(0))
