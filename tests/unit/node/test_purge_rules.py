"""Rules of proofs: one partition that is held up stops no other, who is not asked stops all, and a proof rests on one
picture of members, owners and buckets."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from leafdb.model.hlc import LOGICAL_BITS
from leafdb.node.purge_rules import RANGES_MAX, Answer, Hold, Refusal, agreed, chosen, due, ground_of, led, refuse
from leafdb.ring.horizons import Horizon
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.ring import Ring
from leafdb.types import Epoch, NodeId
from support.clusters import cluster

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)


def no(partitions: int, hold: Hold = Hold.HINT) -> Refusal:
    return Refusal(hold, "it does not", partitions)


def test_what_nothing_speaks_against_is_agreed_to() -> None:
    answer = refuse(0b1111, no(0b0010), no(0b110000), no(0b0100, Hold.LEFTOVER))
    assert answer == Answer(0b1001, (no(0b0010), no(0b0100, Hold.LEFTOVER)))
    left, held_up = agreed(0b1011, {N2: answer, N1: refuse(0b1111, no(0b0001))})
    assert left == 0b1000
    assert [(each.member, each.refusal.partitions) for each in held_up] == [(N1, 0b0001), (N2, 0b0010)]


def test_an_answer_travels_whole_and_nonsense_is_none() -> None:
    answer = refuse((1 << 256) - 1, no(1 << 255), Refusal(Hold.CLOCK, "it is late " * 40, 1))
    there = Answer.from_wire(answer.to_wire())
    assert there.yes == answer.yes
    assert there.refusals[0] == answer.refusals[0]
    assert there.refusals[1].why.startswith("it is late")
    for broken in ({}, {"yes": b""}, {"yes": 1, "no": []}, {"yes": b"", "no": [["nothing", "", b""]]},
                   {"yes": b"", "no": [["hint", b"", b""]]}, {"yes": bytes(9_000), "no": []}):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            Answer.from_wire(broken)


def test_refusals_that_do_not_fit_still_refuse() -> None:
    many = [no(1 << at) for at in range(100)]
    there = Answer.from_wire(refuse((1 << 101) - 1, *many).to_wire())
    assert there.yes == 1 << 100
    assert agreed((1 << 101) - 1, {N1: there})[0] == 1 << 100


def test_each_partition_has_one_leader_among_those_that_are_up() -> None:
    ring = Ring(cluster(3))
    everything = (1 << ring.partitions) - 1
    masks = [led(ring, 3, node, {N1, N2, N3}) for node in (N1, N2, N3)]
    assert masks[0] | masks[1] | masks[2] == everything
    assert sum(mask.bit_count() for mask in masks) == ring.partitions
    assert led(ring, 3, N1, {N2}) | led(ring, 3, N2, {N1}) == everything, "n3 is down: others lead what it led"
    assert led(ring, 3, N1, ()) == everything, "who sees nobody leads all it owns"
    assert led(ring, 1, N1, ()) == masks[0]


def test_only_what_is_dead_and_above_the_horizon_waits_for_a_proof() -> None:
    now_ms = 1_000_000
    stamps = {0: now_ms - 5_000, 1: now_ms - 10, 2: now_ms + 60_000, 3: now_ms - 9_000, 4: now_ms - 5_000}
    deaths = {at: ms << LOGICAL_BITS for at, ms in stamps.items()}
    horizons = {3: (now_ms - 8_000) << LOGICAL_BITS, 4: deaths[4]}
    found = due(0b11101111, deaths.get, lambda at: horizons.get(at, 0), now_ms)
    assert found == {0: deaths[0]}, "4 was not asked about, 3 is the sweeper's, the others are not dead long enough"
    assert due(0b10000, deaths.get, lambda at: horizons.get(at, 0), now_ms) == {4: deaths[4]}


def test_one_proof_is_about_no_more_than_can_be_compared_in_time_and_the_oldest_come_first() -> None:
    waiting = {at: 1_000 - at for at in range(100)}
    assert chosen(waiting, 1) == (1 << 100) - 1
    assert chosen(waiting, RANGES_MAX // 10) == 0b1111111111 << 90
    assert chosen(waiting, 10 * RANGES_MAX) == 1 << 99
    assert chosen({}, 1) == 0


def changed(metadata: ClusterMetadata, rng: Random) -> ClusterMetadata:
    """Something that a proof rests on is another."""
    members = dict(metadata.members)
    epochs = list(metadata.range_epochs)
    match rng.randrange(4):
        case 0:
            node = rng.choice(list(members))
            members[node] = replace(members[node], incarnation=members[node].incarnation + 1)
        case 1:
            members.pop(rng.choice(list(members)))
        case 2:
            epochs[rng.randrange(len(epochs))] = Epoch(77)
        case _:
            return replace(metadata, generation=metadata.generation + 1)
    return replace(metadata, members=members, range_epochs=tuple(epochs))


def test_the_ground_of_a_proof_changes_with_all_it_rests_on_and_not_with_horizons() -> None:
    rng, metadata = Random(1), cluster(4)
    ground = ground_of(metadata)
    for _ in range(40):
        assert ground_of(changed(metadata, rng)) != ground
    raised = metadata.next_epoch(b"x" * 16, horizons=(Horizon(5, Epoch(1)),) * metadata.partitions)
    assert ground_of(raised) == ground
