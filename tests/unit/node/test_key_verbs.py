"""What verbs about a key make of the copies there are: who is behind, what has been, why something is kept."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from leafdb.codec import cbor
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.record import Record, Sibling, encode
from leafdb.node.key_facts import NOTHING, Facts, facts_of, lacking
from leafdb.node.key_history import history
from leafdb.node.key_standing import Copy, behind_of, sentences
from leafdb.node.why_kept import horizon_of, why_kept
from leafdb.ring.horizons import UNPROVED, Horizon
from leafdb.types import Conflict, NodeId, PartitionId
from support.clusters import cluster

NOW_MS = 1_000_000
A1, A2 = (ActorIdentity(1, NodeId(node), 1).actor(1) for node in (1, 2))


def facts(*dots: Dot, gone: tuple[Dot, ...] = (), value: bytes | None = b"v", expires_ms: int = 0) -> Facts:
    """Of a record that holds these writes and knows that others were replaced."""
    siblings = {dot: Sibling(dot[1] << 16, expires_ms, bytes([dot[1]]) * 16, value) for dot in dots}
    return facts_of(encode(Record(CausalClock.from_dots((*dots, *gone)), siblings)), NOW_MS, Conflict.SIBLINGS)


DOTS = st.sets(st.tuples(st.sampled_from((A1, A2)), st.integers(1, 6)))


@given(DOTS, DOTS)
def test_what_one_copy_lacks_is_counted_exactly(one: set[Dot], other: set[Dot]) -> None:
    assert lacking(CausalClock.from_dots(one), CausalClock.from_dots(other)) == len(other - one)


def test_facts_cross_the_wire_whole() -> None:
    for found in (NOTHING, facts((A1, 1), (A2, 3), gone=((A2, 1),)), facts((A1, 1), value=None)):
        assert Facts.from_map(cbor.loads(cbor.dumps(found.to_map()))) == found
    assert facts((A1, 1), value=None).tombstone
    assert facts((A1, 1), expires_ms=NOW_MS).tombstone
    assert not facts((A1, 1), expires_ms=NOW_MS + 1).tombstone
    assert not NOTHING.tombstone


# -- who is behind


def test_equal_copies_are_said_to_be_equal() -> None:
    same = facts((A1, 1))
    assert sentences([Copy("a", same), Copy("b", same)], {}) == ["the same version on a, b"]
    assert sentences([Copy("a", NOTHING), Copy("b", NOTHING)], {}) == [
        "no replica that was asked has anything of this key"
    ]


def test_a_copy_that_missed_writes_is_said_to_be_behind() -> None:
    old, new = facts((A1, 1)), facts((A1, 3), gone=((A1, 1), (A1, 2)))
    copies = [Copy("a", new), Copy("b", old), Copy("c", NOTHING), Copy("d", new)]
    assert sentences(copies, {"e": "no session"}) == [
        "b is behind a, d: 2 writes missing",
        "c has nothing, and is behind a, d: 3 writes missing",
        "e could not be asked: no session",
    ]
    assert behind_of(copies) == {"a": 0, "b": 2, "c": 3, "d": 0}


def test_copies_with_writes_the_others_have_not_seen_have_diverged() -> None:
    copies = [Copy("a", facts((A1, 1))), Copy("b", facts((A2, 1), (A2, 2)))]
    assert sentences(copies, {}) == ["a and b have diverged: a lacks 2 writes, b lacks 1 write"]
    assert behind_of(copies) == {"a": 2, "b": 1}


def test_equal_knowledge_in_different_bytes_is_not_hidden() -> None:
    copies = [Copy("a", facts((A1, 1), value=b"x")), Copy("b", facts((A1, 1), value=b"y"))]
    (line,) = sentences(copies, {})
    assert "ought not to be" in line


def test_a_fresh_entry_is_no_missing_write() -> None:
    plain = facts((A1, 1))
    marked = Facts("0" * 16, 1, plain.clock.add_entry(A2), plain.writes, 0, plain.size)
    (line,) = sentences([Copy("a", marked), Copy("b", plain)], {})
    assert line == "b is behind a by a mark that readers do not see; no write is missing"


def test_doubts_are_told() -> None:
    same = facts((A1, 1))
    lines = sentences(
        [Copy("a", same, complete=False), Copy("b", same, synced=False), Copy("d", same, kept_for="c")], {}
    )
    assert lines == [
        "the same version on a, b, d (for c)",
        "a may have forgotten something of this range: what it lacks proves nothing",
        "b has not synced its copy to the disk yet",
        "d keeps a copy for c until that takes it",
    ]


# -- what has been


def test_a_write_that_one_copy_knows_to_be_replaced_is_replaced() -> None:
    copies = [Copy("a", facts((A1, 3), gone=((A1, 1), (A1, 2)))), Copy("b", facts((A1, 2), gone=((A1, 1),)))]
    gone, replaced, live = history(copies, lambda node: f"node-{node}")
    assert (gone["count"], gone["state"], gone["stamp"], gone["replicas"]) == (
        1, "replaced", None, {"a": "replaced", "b": "replaced"},
    )  # fmt: skip
    assert (replaced["state"], replaced["replicas"]) == ("replaced", {"a": "replaced", "b": "live"})
    assert (live["state"], live["replicas"]) == ("live", {"a": "live", "b": "unseen"})
    assert (live["node"], live["counter"], live["op_id"]) == ("node-1", 3, "03" * 16)


def test_tombstones_and_expired_values_are_part_of_the_past() -> None:
    copies = [Copy("a", facts((A1, 1), value=None)), Copy("b", facts((A2, 1), expires_ms=5))]
    assert [line["state"] for line in history(copies, str)] == ["tombstone", "expired"]
    assert history([Copy("a", NOTHING)], str) == []


# -- why it is kept


def test_a_deleted_record_is_kept_until_a_horizon_is_proved() -> None:
    dead = [Copy("a", facts((A1, 1), value=None))]
    kept = why_kept(dead, {}, partition=7, horizon=None, pending=())
    assert kept.kept
    assert kept.verdict.startswith("no horizon has been proved for partition 7")
    assert [(each["state"], each["death"], each["below_horizon"]) for each in kept.writes] == [
        ("tombstone", 1 << 16, False)
    ]
    below = why_kept(dead, {}, partition=7, horizon=(1 << 16) + 1, pending=())
    assert "sweeper" in below.verdict
    above = why_kept(dead, {}, partition=7, horizon=1 << 16, pending=())
    assert "after the horizon" in above.verdict


def test_an_expiring_value_dies_at_its_expiry_and_a_plain_one_never() -> None:
    expired = why_kept([Copy("a", facts((A1, 1), expires_ms=5))], {}, partition=7, horizon=6 << 16, pending=())
    assert (expired.writes[0]["death"], expired.writes[0]["below_horizon"]) == (5 << 16, True)
    alive = why_kept([Copy("a", facts((A1, 1)))], {}, partition=7, horizon=1 << 60, pending=())
    assert (alive.writes[0]["death"], alive.verdict) == (
        None, "a value is alive: the key is neither deleted nor expired",
    )  # fmt: skip
    assert not why_kept([Copy("a", NOTHING)], {}, partition=7, horizon=None, pending=()).kept


def test_the_horizon_is_that_of_the_metadata_and_none_before_anything_is_proved() -> None:
    metadata = cluster(1)
    assert horizon_of(metadata, PartitionId(3)) is None
    horizons = [UNPROVED] * metadata.partitions
    horizons[3] = Horizon(77, metadata.range_epochs[3])
    proved = replace(metadata, horizons=tuple(horizons))
    assert horizon_of(proved, PartitionId(3)) == 77
    assert horizon_of(proved, PartitionId(4)) is None


def test_who_does_not_vouch_is_named() -> None:
    copy = Copy("a", facts((A1, 1)), vouches=False)
    assert "a cannot vouch for what lies below the horizon" in sentences([copy], {})[1]
    held = why_kept([copy], {}, partition=7, horizon=5, pending=()).held_back_by
    assert held == ("a cannot vouch for what lies below the horizon",)


def test_whoever_holds_the_horizon_back_is_named() -> None:
    dead = facts((A1, 1), value=None)
    copies = [Copy("a", dead), Copy("b", dead, complete=False), Copy("d", dead, kept_for="c")]
    assert why_kept(copies, {"c": "down"}, partition=7, horizon=None, pending=["e"]).held_back_by == (
        "c cannot be asked, and every member has to promise: down",
        "b is not complete for the range",
        "d keeps a hint of this key for c",
        "e is becoming an owner, and its copy is not made yet",
    )
