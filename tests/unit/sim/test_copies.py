"""What a hint may say, after deaths of the node that keeps it; and when one may go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from leafdb.hints.hint import Hint, Kind, encode, encode_key
from leafdb.model.actor import Actor
from leafdb.model.clock import CausalClock
from leafdb.model.key import encode_key as encode_user_key
from leafdb.model.record import clock_of, dots_of
from leafdb.node.boot import CHECKPOINTS_TREE
from leafdb.node.debts import owed_key
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join, Leave
from leafdb.ring.token import split_storage_key, storage_key
from leafdb.sim.copies import Copies, Said
from leafdb.testing.cluster_process import Process
from leafdb.testing.violation import Violation
from leafdb.types import BucketId, NodeId, TreeId
from support.clusters import cluster, proposed
from support.repairs import WRITER, record_of
from support.ring_changes import committed

FIRST_RUN, SECOND_RUN = (cast(Process, object()) for _ in range(2))


def clock(counter: int) -> CausalClock:
    return CausalClock({Actor(bytes(14)): counter})


def process(node: NodeId, ring: Ring, hint_bytes: int = 0) -> SimpleNamespace:
    view, metrics = SimpleNamespace(self_id=node, ring=ring), SimpleNamespace(hints_overflowed_total=0)
    hints = SimpleNamespace(ledger=SimpleNamespace(bytes=hint_bytes, bytes_max=100))
    return SimpleNamespace(node=SimpleNamespace(view=view, metrics=metrics, hints=hints))


def test_a_run_of_a_node_knows_what_it_wrote_last() -> None:
    said = Said()
    said.write(FIRST_RUN, clock(1))
    said.write(FIRST_RUN, clock(2))
    assert said.now(FIRST_RUN) == [clock(2)]


def test_after_a_death_a_hint_says_what_any_write_before_said() -> None:
    """Seed 466157980: killed before its second write was synced, a node came back with the first one, delivered that,
    and was accused of having thrown the second away."""
    said = Said()
    said.write(FIRST_RUN, clock(1))
    said.write(FIRST_RUN, clock(2))
    assert said.now(SECOND_RUN) == [clock(1), clock(2)]
    said.write(SECOND_RUN, clock(3))
    assert said.now(SECOND_RUN) == [clock(3)]


@pytest.mark.parametrize("kept", [True, False])
def test_a_leaver_may_give_an_orphan_to_an_heir_for_a_holder_that_is_away(kept: bool) -> None:
    """Tier ring, seed 9 with another mutation: the target was gone, a newcomer held its range and could not be reached,
    and the leaver that kept the hint gave it to a node that keeps it for the newcomer."""
    leaver, newcomer, heir, gone = NodeId(2), NodeId(5), NodeId(1), NodeId(9)
    ring = Ring(committed(cluster(4), Join(proposed(5)), Leave(leaver)))
    bucket = BucketId(256)
    keys = (storage_key(bucket, encode_user_key(f"key-{number}")) for number in range(1000))
    placed = ((key, ring.holders(ring.partition_of(split_storage_key(key)[0]), 3)) for key in keys)
    stored, holders = next((key, nodes) for key, nodes in placed if newcomer in nodes and heir not in nodes)
    watchers: list[Any] = []
    processes = {node: process(node, ring) for node in (*ring.metadata.members, gone)}
    copies = Copies(cast(Any, SimpleNamespace(processes=processes, observe_writes=watchers.append)), bucket, 3, 64)
    (written,) = watchers
    record, value = record_of(1), encode(Hint(Kind.FALLBACK, 0, record_of(1)))
    for holder in holders:
        if holder != newcomer:
            written(holder, TreeId(bucket), stored, record)
    written(leaver, HINTS_TREE, encode_key(gone, bucket, stored), value)
    if kept:
        written(heir, HINTS_TREE, encode_key(newcomer, bucket, stored), value)
    written(leaver, HINTS_TREE, encode_key(gone, bucket, stored), None)
    if kept:
        copies.check_hints()
    else:
        with pytest.raises(Violation, match="so has n5 not"):
            copies.check_hints()


@pytest.mark.parametrize(
    ("before", "last", "died", "broken"),
    [
        (None, Kind.COORDINATOR, False, False),
        (None, Kind.FALLBACK, False, True),
        (None, Kind.MINTED, False, True),
        (Kind.COORDINATOR, Kind.FALLBACK, False, True),
        (Kind.COORDINATOR, Kind.FALLBACK, True, False),
        (Kind.MINTED, Kind.FALLBACK, True, True),
    ],
)
def test_a_debt_makes_good_a_note_and_no_copy_that_counted(
    before: Kind | None, last: Kind, died: bool, broken: bool
) -> None:
    """After a death the store may hold the hint as it was before its last write: a note may go then."""
    keeper, bucket, ring = NodeId(1), BucketId(256), Ring(cluster(4))
    stored = storage_key(bucket, encode_user_key("key"))
    partition = ring.partition_of(split_storage_key(stored)[0])
    target = next(node for node in ring.holders(partition, 3) if node != keeper)
    processes = {node: process(node, ring) for node in ring.metadata.members}
    watchers: list[Any] = []
    copies = Copies(cast(Any, SimpleNamespace(processes=processes, observe_writes=watchers.append)), bucket, 3, 64)
    (written,) = watchers
    key = encode_key(target, bucket, stored)
    for kind in (last,) if before is None else (before, last):
        written(keeper, HINTS_TREE, key, encode(Hint(kind, 0, record_of(1))))
    if died:
        processes[keeper] = process(keeper, ring)
    written(keeper, CHECKPOINTS_TREE, owed_key(target, bucket), (1 << partition).to_bytes(8, "little"))
    written(keeper, HINTS_TREE, key, None)
    if broken:
        with pytest.raises(Violation, match=f"I11: n1 removed a hint for n{target}"):
            copies.check_hints()
    else:
        copies.check_hints()


def test_of_each_key_is_told_what_a_member_has_and_what_all_others_have() -> None:
    alone, other, bucket = NodeId(1), NodeId(2), BucketId(256)
    ring = Ring(cluster(4))
    processes = {node: process(node, ring) for node in ring.metadata.members}
    watchers: list[Any] = []
    copies = Copies(cast(Any, SimpleNamespace(processes=processes, observe_writes=watchers.append)), bucket, 3, 64)
    stored = storage_key(bucket, encode_user_key("key"))
    first, second = record_of(1), record_of(2)
    watchers[0](alone, TreeId(bucket), stored, first)
    watchers[0](other, TreeId(bucket), stored, first)
    watchers[0](alone, TreeId(bucket), stored, second)
    assert list(copies.held_by(alone)) == [(stored, clock_of(second).merge(clock_of(first)), clock_of(first))]
    assert list(copies.held_by(NodeId(3))) == []


def test_a_copy_given_away_before_the_client_hears_of_it_was_one() -> None:
    """Tier cluster, seed 78637458, 150 operations: n1 no longer held the range, and dropped its copy a second after it
    had acknowledged it; the answer took longer."""
    bucket, ring = BucketId(256), Ring(cluster(4))
    stored = storage_key(bucket, encode_user_key("key"))
    holders = ring.holders(ring.partition_of(split_storage_key(stored)[0]), 3)
    (former,) = set(ring.metadata.members) - set(holders)
    processes = {node: process(node, ring) for node in ring.metadata.members}
    for each in processes.values():
        each.node.horizons = SimpleNamespace(vouches=lambda partition: True)
    watchers: list[Any] = []
    copies = Copies(cast(Any, SimpleNamespace(processes=processes, observe_writes=watchers.append)), bucket, 3, 64)
    record = record_of(1)
    for node in (*holders, former):
        watchers[0](node, TreeId(bucket), stored, record)
    watchers[0](former, TreeId(bucket), stored, None)
    (dot,) = dots_of(record, (1).to_bytes(16, "big"))
    copies.check(stored, dot, 4, "write 1", "key")
    with pytest.raises(Violation, match="I7: write 1 is acknowledged by 5"):
        copies.check(stored, dot, 5, "write 1", "key")
    with pytest.raises(Violation, match="I7: write 2 is acknowledged by 1, and nobody"):
        copies.check(stored, (WRITER.actor(9), 1), 1, "write 2", "key")


@pytest.mark.parametrize("size", [100, 101])
def test_nobody_keeps_more_hints_than_its_bound(size: int) -> None:
    keeper, target, bucket = NodeId(1), NodeId(2), BucketId(256)
    processes = {keeper: process(keeper, Ring(cluster(4)), size)}
    watchers: list[Any] = []
    copies = Copies(cast(Any, SimpleNamespace(processes=processes, observe_writes=watchers.append)), bucket, 3, 64)
    key = encode_key(target, bucket, storage_key(bucket, encode_user_key("key")))
    watchers[0](keeper, HINTS_TREE, key, encode(Hint(Kind.FALLBACK, 0, record_of(1))))
    if size <= 100:
        copies.check_hints()
    else:
        with pytest.raises(Violation, match="I12: n1 keeps 101 bytes of hints"):
            copies.check_hints()
