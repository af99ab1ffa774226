"""Seeds nobody has run before: four minutes of them at every run of the suite, of every tier.

What was run is printed, passed or failed, so that a seed can be run again: `leafdb sim run --tier T --seed S --ops N`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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
    tier: str, operations: int, minutes: float, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sim", "run", "--tier", tier, "--ops", str(operations), "--minutes", str(minutes), "-o", "json"]
    ended = subprocess.run([*LEAFDB, *command], capture_output=True, text=True, timeout=800)
    assert ended.stdout, ended.stderr
    (campaign,) = json.loads(ended.stdout)["items"]
    with capsys.disabled():
        print(f"\n{tier}: {summary(campaign)}")
    found = "\n".join(
        f"{problem['replay']}\n  {problem['invariant']}: {problem['message']}" for problem in campaign["problems"]
    )
    assert ended.returncode == 0, f"a seed nobody ran before found something:\n{found}"
    assert campaign["seeds"] > 0


def summary(campaign: dict[str, object]) -> str:
    """One line."""
    never = campaign["never_hit"]
    assert isinstance(never, list)
    return (
        f"{campaign['seeds']} seeds, {campaign['first_seed']} to {campaign['last_seed']}, {campaign['operations']} "
        f"operations, {campaign['virtual_hours']} virtual hours, {campaign['faults_total']} faults, "
        f"{campaign['violations']} violations; probes never hit: {', '.join(never) or 'none'}"
    )
