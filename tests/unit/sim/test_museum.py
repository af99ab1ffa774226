"""Every mutation of the museum fits the source as it is, and says who is to catch it."""

from __future__ import annotations

from collections import Counter

import pytest

from leafdb.sim.museum import BY_NAME, MUTATIONS
from leafdb.sim.mutation import Mutation, mutated_sources
from leafdb.sim.outcome import Tier


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_snippets_are_found_once_and_what_comes_out_compiles(mutation: Mutation) -> None:
    assert mutated_sources(mutation)


def test_names_are_unique_and_every_bug_has_its_judges() -> None:
    assert len(BY_NAME) == len(MUTATIONS) >= 40
    for mutation in MUTATIONS:
        assert mutation.caught_by, mutation.name
        assert mutation.title.endswith((".", ")")), mutation.title
        assert 1 <= mutation.seeds_max <= 100, mutation.name


def test_every_tier_has_bugs_to_find() -> None:
    tiers = Counter(mutation.tier for mutation in MUTATIONS)
    # The bugs of purging are made by hand: tests/sim/test_purge_model.py breaks its rules one by one. Those of a store
    # are found by random programs; the three that go through all of a short history are for what these leave out, and
    # the fourth for what replicas heal.
    others = (Tier.PURGE, Tier.CRASH, Tier.FAILING, Tier.DAMAGE, Tier.ROT)
    assert all(tiers[tier] >= 3 for tier in Tier if tier not in others), tiers
