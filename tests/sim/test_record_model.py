"""Promises (I1, I2, I5, I6, I7, I15 and the laws of the merge): one key on nodes that crash, forget, and hear of things
late, twice or never keeps every write that nobody saw and overwrote, and replicas that met hold the same bytes.

The histories are those of leafdb.sim.record_run: real replicas, hints and leases; the truth is kept outside. Then the
rules are broken one by one from outside, and the same histories must show it: a model that could not would prove
nothing. tests/property/test_amnesia.py has the same rules on bare records.
"""

from __future__ import annotations

from collections.abc import Callable
from random import SystemRandom

import pytest

from leafdb.hints.hint import Hint, Kind, decode, encode
from leafdb.model import record
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.record_format import Header
from leafdb.node import hint_keeper
from leafdb.sim.record_run import PROBES, count_histories, run
from leafdb.sim.record_world import Node

Patch = pytest.MonkeyPatch
HISTORIES = 500
"""In every run of the suite; a campaign of the tier makes of them as many as one wants."""


def test_small_histories_keep_every_promise() -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    outcome = count_histories(seed, HISTORIES)
    assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
    assert outcome.operations >= 4 * HISTORIES


def test_a_record_does_not_rot_under_the_hand_that_reads_it() -> None:
    """A merge queued behind a fetch was given what had rotted meanwhile, and confirmed it: the store's fault."""
    assert count_histories(3473391330, 170).broken is None


def test_who_knows_of_a_put_by_its_context_alone_may_hold_the_twin_that_it_dropped() -> None:
    """The judge took the dropped twin for covered wherever the put was heard of."""
    assert run(308751372, operations=500).broken is None


def test_long_histories_with_fallbacks_keep_every_promise() -> None:
    first = SystemRandom().randrange(1 << 32)
    print(f"seeds from {first}")
    hit = dict.fromkeys(PROBES, 0)
    for seed in range(first, first + 4):
        outcome = run(seed, operations=600)
        assert outcome.broken is None, f"seed {seed}: {outcome.broken}"
        assert outcome.operations == 600
        for name, count in outcome.probes.items():
            hit[name] += count
    assert sum(1 for count in hit.values() if count) >= len(PROBES) - 4, hit


def test_the_same_seed_goes_the_same_way_and_fewer_operations_are_a_prefix() -> None:
    long = run(7, operations=200, keep=True)
    assert run(7, operations=200).trace == long.trace
    assert run(8, operations=200).trace != long.trace
    short = run(7, operations=100, keep=True)
    last_history = max(at for at, line in enumerate(short.lines) if line.who == "runner")
    assert short.lines[:last_history] == long.lines[:last_history]


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 7])
def test_any_number_of_nodes_will_do(nodes: int) -> None:
    assert run(3, nodes=nodes, operations=100).broken is None


def no_adoption(patch: Patch) -> None:
    """A replica that is told of dots it forgot goes on under the old epoch (kv679 on the replica path)."""
    patch.setattr(record, "adopt", lambda merged, incoming, local, identity, epochs: merged)


def no_floor(patch: Patch) -> None:
    """After an unclean stop old entries are incremented."""
    recovered = EpochLease.recovered
    patch.setattr(
        EpochLease,
        "recovered",
        classmethod(lambda cls, *, ceiling, floor, clean: recovered(ceiling=ceiling, floor=floor, clean=True)),
    )


def no_fresh_epochs(patch: Patch) -> None:
    """A coordinator without the record begins with the same epoch again (kv679)."""
    patch.setattr(EpochLease, "next", lambda self: 1)


def same_incarnation_after_a_wipe(patch: Patch) -> None:
    """The actor of the lost store is used again."""
    patch.setattr(Node, "_forgot", lambda self: self.held.clear())


def every_hint_is_minted(patch: Patch) -> None:
    """A fallback mints from a copy without asking whether it is all that it ever minted."""

    def with_record(old: bytes | None, kind: Kind, now_ms: int, merged: bytes) -> bytes:
        created_ms = now_ms if old is None else decode(old).created_ms
        return encode(Hint(Kind.MINTED, created_ms, merged))

    patch.setattr(hint_keeper, "with_record", with_record)


def hint_removed_though_it_changed(patch: Patch) -> None:
    patch.setattr("leafdb.node.hinted_handoff.version_of", lambda value: 0)
    patch.setattr("leafdb.sim.record_run.version_of", lambda value: 0)


def merge_keeps_what_is_covered(patch: Patch) -> None:
    def union(ours: Header, theirs: Header) -> list[Dot]:
        return [*ours.heads, *(dot for dot in theirs.heads if dot not in ours.heads)]

    patch.setattr(record, "_uncovered", union)


def merge_drops_single_dots(patch: Patch) -> None:
    """The clock of the union is a vector alone."""
    union = CausalClock.merge
    patch.setattr(CausalClock, "merge", lambda self, other: CausalClock(union(self, other).vector))


@pytest.mark.parametrize(
    "break_rule",
    [
        no_adoption,
        no_floor,
        no_fresh_epochs,
        same_incarnation_after_a_wipe,
        every_hint_is_minted,
        hint_removed_though_it_changed,
        merge_keeps_what_is_covered,
        merge_drops_single_dots,
    ],
)
def test_a_broken_rule_is_noticed(break_rule: Callable[[Patch], None], monkeypatch: Patch) -> None:
    break_rule(monkeypatch)
    for seed in range(1, 41):
        if run(seed, operations=1_000).broken is not None:
            return
    pytest.fail("no history showed the broken rule")
