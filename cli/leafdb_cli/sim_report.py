"""What many seeds of one tier came to: the sums, how they read on a terminal, as an item of JSON and as a page."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import leafdb
from leafdb.errors import ConfigError
from leafdb_cli.render import Column
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from leafdb.sim.outcome import Outcome
    from leafdb_cli.sim_pool import Result

WITHOUT_VERDICT_MAX: Final = 10
PROBLEMS_MAX: Final = 100

COUNT_COLUMNS: Final = [Column("name"), Column("count", right=True), Column("seeds", right=True)]
FAULT_COLUMNS: Final = [Column("name", "fault"), *COUNT_COLUMNS[1:]]
PROBE_COLUMNS: Final = [Column("name", "probe"), *COUNT_COLUMNS[1:]]
PROBLEM_COLUMNS: Final = [
    Column("seed", right=True), Column("invariant"), Column("key"), Column("message"), Column("replay"),
]  # fmt: skip


class Tally:
    """The sums of a campaign."""

    def __init__(self) -> None:
        self.seeds: list[int] = []
        """Those that came to an end, whatever their verdict."""
        self.operations = 0
        self.virtual_s = 0.0
        self.run_s = 0.0
        self.faults: Counter[str] = Counter()
        self.fault_seeds: Counter[str] = Counter()
        self.probes: Counter[str] = Counter()
        """With a zero for every probe that was never hit."""
        self.probe_seeds: Counter[str] = Counter()
        self.problems: list[dict[str, Any]] = []
        """Violations, and runs without a verdict."""

    def add(self, result: Result) -> dict[str, Any] | None:
        """Count one; the answer is the problem it is, if it is one."""
        self.run_s += result.wall_s
        problem = problem_of(result)
        if problem is not None:
            self.problems.append(problem)
        if result.outcome is None:
            return problem
        outcome = result.outcome
        self.seeds.append(outcome.seed)
        self.operations += outcome.operations
        self.virtual_s += outcome.virtual_s
        for counts, total, seeds in (
            (outcome.faults, self.faults, self.fault_seeds),
            (outcome.probes, self.probes, self.probe_seeds),
        ):
            for name, count in counts.items():
                total[name] += count
                seeds[name] += bool(count)
        return problem

    @property
    def hopeless(self) -> bool:
        """More seeds would tell nothing new, as when a worker dies before it runs anything."""
        without = sum(problem["invariant"] is None for problem in self.problems)
        return without >= WITHOUT_VERDICT_MAX or len(self.problems) >= PROBLEMS_MAX

    @property
    def never_hit(self) -> list[str]:
        """The probes no seed hit: what the campaign did not try."""
        return sorted(name for name, count in self.probes.items() if not count)


def problem_of(result: Result) -> dict[str, Any] | None:
    """A violation, or a run without a verdict, as an item."""
    head = {"seed": result.job.seed, "replay": result.job.replay}
    if result.outcome is None:
        return {**head, "invariant": None, "key": None, "message": result.trouble}
    broken = result.outcome.broken
    if broken is None:
        return None
    return {**head, "invariant": broken.invariant, "key": broken.key, "message": broken.message}


def problem_text(problem: Mapping[str, Any]) -> str:
    """A problem as it is told when it is found."""
    about = f" (key {problem['key']})" if problem["key"] is not None else ""
    what = f"broke {problem['invariant']}: " if problem["invariant"] else "has no verdict: "
    return f"seed {problem['seed']} {what}{problem['message']}{about}\n  again: {problem['replay']}"


def count_items(counts: Mapping[str, int], seeds: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows of a table of faults or probes: the most frequent first."""
    return [
        {"name": name, "count": count, "seeds": seeds[name]}
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def run_item(outcome: Outcome, wall_s: float, replay: str) -> dict[str, Any]:
    """One run as an item."""
    broken = outcome.broken
    return {
        "seed": outcome.seed,
        "tier": str(outcome.tier),
        "nodes": outcome.nodes,
        "operations": outcome.operations,
        "verdict": "held" if broken is None else "broken",
        "invariant": None if broken is None else broken.invariant,
        "key": None if broken is None else broken.key,
        "message": None if broken is None else broken.message,
        "virtual_s": round(outcome.virtual_s, 6),
        "wall_s": round(wall_s, 3),
        "faults": dict(outcome.faults),
        "probes": dict(outcome.probes),
        "trace": outcome.trace,
        "replay": replay,
    }


def campaign_item(tally: Tally, asked: Mapping[str, Any], elapsed_s: float, jobs: int) -> dict[str, Any]:
    """A campaign as an item; `asked` is what every seed was asked: tier, nodes, operations of each."""
    done = len(tally.seeds)
    return {
        **asked,
        "seeds": done,
        "first_seed": min(tally.seeds, default=None),
        "last_seed": max(tally.seeds, default=None),
        "violations": sum(problem["invariant"] is not None for problem in tally.problems),
        "without_verdict": sum(problem["invariant"] is None for problem in tally.problems),
        "wall_s": round(elapsed_s, 1),
        "jobs": jobs,
        "seeds_per_minute": round(60 * done / elapsed_s, 1) if elapsed_s > 0 else 0.0,
        "operations": tally.operations,
        "virtual_hours": round(tally.virtual_s / 3600, 2),
        "faults_total": tally.faults.total(),
        "faults": count_items(tally.faults, tally.fault_seeds),
        "probes": count_items(tally.probes, tally.probe_seeds),
        "never_hit": tally.never_hit,
        "problems": tally.problems,
    }


def campaign_lines(item: Mapping[str, Any]) -> list[str]:
    """The sums in two sentences."""
    span = f" {item['first_seed']} to {item['last_seed']}" if item["seeds"] else ""
    lost = f", {item['without_verdict']} without a verdict" if item["without_verdict"] else ""
    return [
        f"tier {item['tier']}, {item['nodes']} nodes, {item['operations_each']} operations: "
        f"{item['seeds']} seeds{span}, {item['violations']} violations{lost}",
        f"{item['wall_s'] / 60:.1f} minutes on {item['jobs']} workers: {item['seeds_per_minute']} seeds a minute, "
        f"{item['operations']:,} operations, {item['virtual_hours']} virtual hours, {item['faults_total']:,} faults",
    ]


def print_campaign(session: Session, item: dict[str, Any]) -> None:
    """The whole of it, as the options want it."""
    if session.options.output != "table":
        session.output.items("SimCampaign", [item], [])
        return
    out = session.output.out
    out.write("\n".join(campaign_lines(item)) + "\n\n")
    print_counts(session, item["faults"], item["probes"])
    if item["never_hit"]:
        out.write(f"never hit: {', '.join(item['never_hit'])}\n")
    elif item["probes"]:
        out.write("every probe was hit\n")
    for problem in item["problems"]:
        out.write(problem_text(problem) + "\n")
    out.flush()


def print_counts(
    session: Session,
    faults: Sequence[Mapping[str, Any]],
    probes: Sequence[Mapping[str, Any]],
    *,
    of_many: bool = True,
) -> None:
    """Two tables with a free line behind each; `of_many` seeds, or of one."""
    for items, columns in ((faults, FAULT_COLUMNS), (probes, PROBE_COLUMNS)):
        if items:
            session.output.items("SimCountList", items, columns if of_many else columns[:2])
            session.output.out.write("\n")


def check_record(path: Path) -> None:
    """Refuse what cannot be written before an hour is spent on it."""
    if path.suffix not in (".md", ".json"):
        raise ConfigError(f"{path}: a record is a page (.md) or a document (.json)")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no such directory")


def write_record(path: Path, item: Mapping[str, Any]) -> None:
    """Keep a campaign: the figures with the version, the commit and the machine they belong to."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    machine = f"CPython {platform.python_version()}, {os.cpu_count()} processors, {platform.system()}"
    about = {"when": when, "version": leafdb.__version__, "commit": commit(), "machine": machine}
    if path.suffix == ".json":
        path.write_text(json.dumps({**about, **item}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    lines = [f"# Simulation campaign, {when}", ""]
    lines += [f"leafdb {about['version']}, commit {about['commit'] or 'unknown'}; {machine}.", ""]
    lines += [*(f"- {line}" for line in campaign_lines(item)), ""]
    if item["never_hit"]:
        lines += [f"Probes that were never hit: {', '.join(item['never_hit'])}.", ""]
    for title, key in (("Fault", "faults"), ("Probe", "probes")):
        if item[key]:
            rows = [f"| {row['name']} | {row['count']:,} | {row['seeds']} |" for row in item[key]]
            lines += [f"| {title} | Times | Seeds |", "|---|---:|---:|", *rows, ""]
    if item["problems"]:
        lines += ["## Problems", "", "```", *(problem_text(problem) for problem in item["problems"]), "```", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def commit() -> str | None:
    """The commit this code is, where it runs from a checkout; with a mark when files differ from it."""
    folder = Path(leafdb.__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(leafdb.__file__).name)  # not some repository that happens to be around
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
