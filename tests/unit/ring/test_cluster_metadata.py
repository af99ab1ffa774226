"""Cluster metadata: one history of sound values, ids never given twice, bytes that are canonical or refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.errors import ConfigError, NotApplied, Reason
from leafdb.limits import BUCKETS_MAX, METADATA_BYTES_MAX, METADATA_RECENT_MAX
from leafdb.ring.control_set import begin_control, finish_control
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode, found
from leafdb.ring.ring import Ring
from leafdb.ring.staging import Join
from leafdb.ring.transitions import clear_staged
from leafdb.types import BucketId, Epoch, NodeId
from support.clusters import CLUSTER_ID, bucket, cluster, proposed
from support.ring_changes import committed, finished, staged


def test_founding_numbers_members_and_chooses_the_control_set() -> None:
    made = cluster(5)
    assert made.epoch == 1
    assert list(made.members) == [1, 2, 3, 4, 5]
    assert made.members[NodeId(1)].name == "node-0"
    assert made.control == (1, 2, 3)
    assert made.acceptors() == ((1, 1), (2, 1), (3, 1))
    assert set(made.range_epochs) == {1}
    assert not made.check()


@pytest.mark.parametrize(("count", "control"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_the_control_set_is_one_or_three(count: int, control: int) -> None:
    assert len(cluster(count).control) == control


def test_the_first_control_set_is_apart_though_the_list_is_not() -> None:
    shards = [proposed(at, host=f"h{at // 2}") for at in range(6)]
    assert found("c", CLUSTER_ID, shards).control == (1, 3, 5)
    zoned = [proposed(at, host=f"h{at // 2}", zone=f"z{at // 4}") for at in range(8)]
    assert found("c", CLUSTER_ID, zoned).control == (1, 3, 5), "a zone for each, then hosts, then the order of the list"
    idle = [proposed(0, weight=0), *(proposed(at) for at in range(1, 4))]
    assert found("c", CLUSTER_ID, idle).control == (2, 3, 4), "who owns nothing is the last resort"


def test_who_owns_nothing_is_a_member_and_no_owner() -> None:
    made = found("c", CLUSTER_ID, [proposed(0), proposed(1, weight=0), proposed(2)], partitions=64)
    assert set(made.owners) == {1, 3}
    assert decode(made.encode()) == made
    assert Ring(made).effective_n(3) == 2
    assert Ring(made).warnings(2) == [], "it was meant to"


def test_equal_proposals_found_equal_bytes() -> None:
    assert cluster(4).encode() == cluster(4).encode()


@pytest.mark.parametrize(
    ("found_it", "problem"),
    [
        (lambda: found("c", CLUSTER_ID, []), "at least one"),
        (lambda: found("c", CLUSTER_ID, [proposed(0), proposed(0)]), "twice"),
        (lambda: found("c", CLUSTER_ID, [proposed(0)], partitions=100), "power of two"),
        (lambda: found("", CLUSTER_ID, [proposed(0)]), "cluster name"),
        (lambda: found("c", b"short", [proposed(0)]), "cluster id"),
        (lambda: found("c", CLUSTER_ID, [proposed(0, weight=0)]), "weight"),
        (lambda: found("c", CLUSTER_ID, [replace(proposed(0), name=" x")]), "name"),
        (lambda: found("c", CLUSTER_ID, [replace(proposed(0), host="\ud800")]), "host"),
    ],
)
def test_founding_says_what_is_wrong(found_it: Callable[[], ClusterMetadata], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as raised:
        found_it()
    assert raised.value.problems


def test_a_bucket_is_the_next_epoch_and_changes_no_range() -> None:
    before = cluster()
    after = before.create_bucket(bucket())
    created = after.bucket_named("carts")
    assert created is not None
    assert (created.id, created.generation) == (256, 2)
    assert after.epoch == 2
    assert after.range_epochs == before.range_epochs
    assert after.owners == before.owners
    assert not before.buckets, "the old value is as it was"


def test_bucket_ids_are_never_given_twice() -> None:
    first = cluster().create_bucket(bucket())
    dropped = first.drop_bucket(BucketId(256))
    again = dropped.create_bucket(bucket()).bucket_named("carts")
    assert again is not None
    assert (again.id, again.generation) == (257, 4)


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(NotApplied) as raised:
        call()
    return raised.value.reason


def test_refusals_name_their_reason() -> None:
    made = cluster().create_bucket(bucket())
    assert reason_of(lambda: made.create_bucket(bucket())) is Reason.BUCKET_EXISTS
    assert reason_of(lambda: made.create_bucket(bucket(n=2), exist_ok=True)) is Reason.BUCKET_EXISTS
    assert reason_of(lambda: made.drop_bucket(BucketId(300))) is Reason.NO_SUCH_BUCKET
    assert reason_of(lambda: made.create_bucket(bucket("a b"))) is Reason.BAD_REQUEST
    assert reason_of(lambda: made.create_bucket(replace(bucket("x"), r=4))) is Reason.BAD_REQUEST


def test_exist_ok_accepts_equal_properties_only_and_makes_no_epoch() -> None:
    made = cluster().create_bucket(bucket())
    assert made.create_bucket(bucket(), exist_ok=True) is made


def test_a_change_run_again_is_in_already() -> None:
    create, drop = b"c" * 16, b"d" * 16
    made = cluster().create_bucket(bucket(), change_id=create)
    assert made.create_bucket(bucket(), change_id=create) is made
    gone = made.drop_bucket(BucketId(256), change_id=drop)
    assert gone.drop_bucket(BucketId(256), change_id=drop) is gone
    assert gone.create_bucket(bucket(), change_id=create) is gone, "in already, though dropped since"
    assert gone.epoch_of_change(drop) == 3


def test_remembered_changes_are_bounded_and_the_oldest_go_first() -> None:
    made = cluster()
    for turn in range(METADATA_RECENT_MAX + 3):
        made = made.create_bucket(bucket(f"b{turn}"), change_id=turn.to_bytes(16, "big"))
    assert len(made.recent) == METADATA_RECENT_MAX
    assert made.epoch_of_change((2).to_bytes(16, "big")) is None
    assert made.epoch_of_change((3).to_bytes(16, "big")) == 5


def test_buckets_are_bounded() -> None:
    one = cluster().create_bucket(bucket())
    created = one.buckets[BucketId(256)]
    many = {BucketId(256 + i): replace(created, id=BucketId(256 + i), name=f"b{i}") for i in range(BUCKETS_MAX)}
    full = replace(one, buckets=many, next_bucket_id=BucketId(256 + BUCKETS_MAX))
    assert not full.check()
    assert reason_of(lambda: full.create_bucket(bucket("more"))) is Reason.TOO_LARGE
    assert decode(full.encode()) == full
    assert len(full.encode()) < METADATA_BYTES_MAX


def test_the_encoding_is_canonical_and_comes_back() -> None:
    made = cluster(5, partitions=256).create_bucket(bucket(), change_id=b"x" * 16)
    data = made.encode()
    again = decode(data)
    assert again == made
    assert again.encode() == data
    assert again.digest() == made.digest()
    assert made.digest() != made.drop_bucket(BucketId(256)).digest()


def test_what_may_change_of_a_bucket_changes_and_the_rest_stays() -> None:
    made = cluster().create_bucket(bucket())
    changed = made.set_bucket(BucketId(256), {"r": 1, "w": 3, "ttl_ms": 5_000, "sloppy": False}, change_id=b"s" * 16)
    expected = replace(made.buckets[BucketId(256)], r=1, w=3, ttl_ms=5_000, sloppy=False)
    assert changed.buckets[BucketId(256)] == expected
    assert (changed.epoch, changed.range_epochs) == (3, made.range_epochs)
    assert changed.set_bucket(BucketId(256), {"r": 2}, change_id=b"s" * 16) is changed, "in already"
    assert changed.set_bucket(BucketId(256), {"r": 1}) is changed, "nothing changes"


@pytest.mark.parametrize("name", ["n", "conflict", "id", "name", "generation", "durability", "surprise"])
def test_what_decides_where_and_what_bytes_are_does_not_change(name: str) -> None:
    made = cluster().create_bucket(bucket())
    assert reason_of(lambda: made.set_bucket(BucketId(256), {name: 1})) is Reason.BAD_REQUEST


def test_a_bucket_is_set_to_what_can_work() -> None:
    made = cluster().create_bucket(bucket())
    assert reason_of(lambda: made.set_bucket(BucketId(256), {"w": 9})) is Reason.BAD_REQUEST
    assert reason_of(lambda: made.set_bucket(BucketId(256), {"sloppy": "yes"})) is Reason.BAD_REQUEST
    assert reason_of(lambda: made.set_bucket(BucketId(300), {"w": 1})) is Reason.NO_SUCH_BUCKET


def example() -> ClusterMetadata:
    """The value whose bytes docs/formats/metadata.md shows."""
    member = ProposedMember(name="a", host="h", client_address="c:1", peer_address="p:1")
    return found("demo", CLUSTER_ID, [member], partitions=4)


def test_format_1_has_the_bytes_it_always_had() -> None:
    encoded = example().encode()
    assert (len(encoded), example().digest().hex()) == (311, "598cd634af8fb240")
    assert encoded[:12].hex() == "b36462616e738064706c616e"


def test_format_2_has_the_bytes_it_was_given() -> None:
    other = ProposedMember(name="b", host="i", client_address="c:2", peer_address="p:2")
    made = committed(example(), Join(other, b"s" * 16))
    assert made.plan is not None
    assert made.plan.id.hex() == "f4fd53598e16f64bc6c08a268bf80eba"
    assert (len(made.encode()), made.digest().hex()) == (533, "e5db02c37fc77d1e")


def test_only_values_that_say_something_new_are_of_format_2() -> None:
    made = cluster(4)
    assert made.format == made.create_bucket(bucket()).format == 1
    ready = staged(made, Join(proposed(7)))
    assert ready.format == 2
    assert clear_staged(ready).format == 1
    assert finished(made, Join(proposed(7))).format == 1
    joint = begin_control(made, [NodeId(1), NodeId(2), NodeId(4)])
    assert joint.format == finish_control(joint).format == 2


def test_a_value_in_a_newer_format_than_it_needs_is_not_the_value() -> None:
    wire = {**cluster().to_wire(), "format": 2, "staged": [], "control_next": [], "control_epoch": 1}
    with pytest.raises(MetadataError, match="canonical"):
        decode(cbor.dumps(wire))
    older = {**committed(cluster(), Join(proposed(7))).to_wire(), "format": 1}
    with pytest.raises(MetadataError, match="unknown"):
        decode(cbor.dumps(older))


@pytest.mark.parametrize(
    "changes",
    [
        {"plan": 5},
        {"plan": {}},
        {"staged": 5},
        {"staged": [{"kind": "leave", "node": 1}]},
        {"control_next": [1, 9]},
        {"control_epoch": 0},
        {"control_epoch": 99},
    ],
)
def test_unsound_bytes_of_format_2_are_refused(changes: dict[str, Any]) -> None:
    wire = committed(cluster(), Join(proposed(7))).to_wire()
    with pytest.raises(MetadataError):
        decode(cbor.dumps({**wire, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": b"short"},
        {"phase": 4},
        {"epoch": 0},
        {"owners": b"\x00\x01"},
        {"joining": [0]},
        {"stores": [b"x" * 17]},
        {"replaced": [[1]]},
        {"surprise": 1},
    ],
)
def test_unsound_bytes_of_a_plan_are_refused(changes: dict[str, Any]) -> None:
    wire = committed(cluster(), Join(proposed(7))).to_wire()
    with pytest.raises(MetadataError):
        decode(cbor.dumps({**wire, "plan": {**wire["plan"], **changes}}))


def test_the_largest_ring_fits_the_decoder() -> None:
    made = cluster(3, partitions=65_536)
    mixed = replace(made, epoch=Epoch(9), range_epochs=tuple(Epoch(1 + p % 9) for p in range(65_536)))
    assert decode(mixed.encode()) == mixed


def edited(**changes: Any) -> bytes:
    wire = cluster().create_bucket(bucket()).to_wire()
    return cbor.dumps({**wire, **changes})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        cbor.dumps([1]),
        edited(format=2),
        edited(extra=1),
        edited(epoch=-1),
        edited(epoch="2"),
        edited(epoch=True),
        edited(partitions=48),
        edited(partitions=128),
        edited(owners=b"\x00\x09" * 64),
        edited(range_epochs=b"\x40\x09"),
        edited(range_epochs=b"\x41\x01"),
        edited(range_epochs=b"\x40"),
        edited(range_epochs=b"\x20\x01\x20\x01"),
        edited(control=[1, 2]),
        edited(control=[1, 1, 2]),
        edited(control=[7]),
        edited(next_bucket_id=256),
        edited(next_node_id=3),
        edited(bans=[3]),
        edited(bans=[9, 8]),
        edited(horizons={"x": 1}),
        edited(plan={}),
        edited(members=[]),
        edited(members=[{"id": 1}]),
        edited(members=5),
        edited(buckets=[{}]),
        edited(recent=[[b"short", 1]]),
        edited(recent=[[b"x" * 16, 99]]),
        edited(cluster_number=0),
        edited(feature_level=99),
        edited(cluster_id=b"x"),
        cluster().encode() + b"\x00",
        b"x" * (METADATA_BYTES_MAX + 1),
    ],
)
def test_unsound_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(MetadataError):
        decode(data)


def test_bytes_in_another_order_are_not_the_value() -> None:
    wire = cluster().to_wire()
    members = list(reversed(wire["members"]))
    with pytest.raises(MetadataError, match="canonical"):
        decode(cbor.dumps({**wire, "members": members}))


def test_describe_names_members_and_buckets() -> None:
    text = cluster().create_bucket(bucket()).describe()
    assert "epoch 2" in text
    assert "node-2" in text
    assert "carts" in text
