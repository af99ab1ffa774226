"""Promises: a story that is kept tells what every node stored of a key, and keeping it changes nothing of the run."""

from __future__ import annotations

from leafdb.sim.outcome import Tier
from leafdb.sim.tiers import runner


def test_a_kept_story_shows_the_replicas_and_leaves_the_fingerprint_alone() -> None:
    run = runner(Tier.CLUSTER)
    kept, bare = run(1, nodes=3, operations=40, keep=True), run(1, nodes=3, operations=40)
    assert kept.trace == bare.trace
    assert not bare.lines
    stores = [line for line in kept.lines if line.who in ("n1", "n2", "n3") and line.text.startswith("stores ")]
    assert {line.who for line in stores} == {"n1", "n2", "n3"}
    assert all(line.key for line in stores)
