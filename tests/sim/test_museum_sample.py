"""Some of the museum's bugs are caught, each in a process of its own. `leafdb sim museum` hunts all of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HUNT = """
import sys
from leafdb.sim.museum import BY_NAME
from leafdb.sim.mutation import activate
from leafdb.sim.tiers import runner

mutation = BY_NAME[sys.argv[1]]
activation = activate(mutation)
run = runner(mutation.tier)
assert not activation.pending, activation.pending
for seed in range(1, mutation.seeds_max + 1):
    broken = run(seed, nodes=mutation.nodes, operations=mutation.operations).broken
    if broken is not None:
        print(broken.invariant)
        sys.exit(broken.invariant not in mutation.caught_by)
sys.exit("not caught")
"""


@pytest.mark.parametrize(
    "name",
    [
        "missing-directory-sync",
        "fsync-retried",
        "tombstones-never-dropped",
        "value-files-not-scrubbed",
        "loss-acknowledged-before-noted",
        "coordinator-amnesia",
        "merge-acknowledged-before-commit",
        "read-without-accept",
        "accept-without-promise",
        "no-refutation",
        "pending-not-counted",
        "older-metadata-believed",
        "xor-double-delta",
        "reap-admission-per-key",
        "window-over-nothing",
    ],
)
def test_the_bug_is_caught(name: str) -> None:
    hunt = subprocess.run([sys.executable, "-c", HUNT, name], capture_output=True, text=True, timeout=120, check=False)
    assert hunt.returncode == 0, hunt.stdout + hunt.stderr
