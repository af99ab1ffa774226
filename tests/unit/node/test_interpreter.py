"""What a node's interpreter does beside the loop it does in short pieces: set in a process of its own, seen here."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys
from leafdb.node.interpreter import calm_interpreter

calm_interpreter()
walked = []
gc.callbacks.append(lambda phase, told: walked.append(told["generation"]) if phase == "start" else None)
made = [[] for _ in range(20_000)]
print(gc.get_freeze_count() > 1_000, len(walked), set(walked))
print(sys.getswitchinterval() < 0.001)
"""


def test_young_objects_are_walked_in_small_numbers_and_old_ones_not_at_all() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    frozen, short = done.stdout.splitlines()
    head, walks, generations = frozen.split(maxsplit=2)
    assert head == "True", "modules are not walked again"
    assert int(walks) >= 5, "no walk is of more than a few thousand objects"
    assert generations == "{0}"
    assert short == "True", "a thread that computes gives way to the loop"
