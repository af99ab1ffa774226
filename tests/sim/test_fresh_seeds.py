"""Seeds nobody has run before: four minutes of them for every commit, of every tier.

Where they begin is drawn from the commit's tree. So each change of anything is tried with other seeds than all before
it, and one commit with the same seeds everywhere: it passes on every machine or on none (a slower one runs fewer of
them), and who submits it can know before. Campaigns (`leafdb sim run --minutes M`) begin somewhere by chance.

What was run is printed, passed or failed, so that a seed can be run again: `leafdb sim run --tier T --seed S --ops N`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LEAFDB = [sys.executable, "-c", "from leafdb_cli.entry import main; main()"]
CAMPAIGNS = (
    # tier, operations of a seed, minutes
    ("cluster", 150, 0.75),
    ("hunt", 150, 0.5),
    ("ring", 150, 1.0),
    ("store", 600, 0.5),
    ("record", 500, 0.5),
    ("register", 500, 0.5),
    ("membership", 2_000, 0.25),
)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("tier", "operations", "minutes"), CAMPAIGNS, ids=[tier for tier, *_ in CAMPAIGNS])
def test_fresh_seeds_keep_every_promise(
    tier: str, operations: int, minutes: float, tell: Callable[[str], None]
) -> None:
    command = [
        "sim",
        "run",
        "--tier",
        tier,
        "--ops",
        str(operations),
        "--minutes",
        str(minutes),
        "--jobs",
        "1",
        "-o",
        "json",
    ]
    if tree := committed_tree():
        command += ["--first-seed", str(first_seed(tree, tier))]
    ended = subprocess.run([*LEAFDB, *command], capture_output=True, text=True, timeout=800)
    assert ended.stdout, ended.stderr
    (campaign,) = json.loads(ended.stdout)["items"]
    tell(summary(campaign))
    found = "\n".join(
        f"{problem['replay']}\n  {problem['invariant']}: {problem['message']}" for problem in campaign["problems"]
    )
    assert ended.returncode == 0, f"a seed nobody ran before found something:\n{found}"
    assert campaign["seeds"] > 0


def committed_tree() -> str:
    """The id of the last commit's tree; empty outside of a repository, where seeds begin by chance."""
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD^{tree}"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    except FileNotFoundError:
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""


def first_seed(tree: str, tier: str) -> int:
    """Of 32 bits, as those of a campaign."""
    return int.from_bytes(hashlib.sha256(f"{tree} {tier}".encode()).digest()[:4], "big")


def summary(campaign: dict[str, object]) -> str:
    """One line."""
    never = campaign["never_hit"]
    assert isinstance(never, list)
    return (
        f"{campaign['seeds']} seeds, {campaign['first_seed']} to {campaign['last_seed']}, {campaign['operations']} "
        f"operations, {campaign['virtual_hours']} virtual hours, {campaign['faults_total']} faults, "
        f"{campaign['violations']} violations; probes never hit: {', '.join(never) or 'none'}"
    )
