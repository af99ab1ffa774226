"""What a node believes: who can be used, which buckets there are, what a request's counts come to."""

from __future__ import annotations

from contextlib import suppress

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import Liveness, NodeId
from leafdb.wire.requests import FLAG_SLOPPY, FLAG_STRICT
from support.clusters import bucket, cluster

N1, N2, N3 = NodeId(1), NodeId(2), NodeId(3)
CHANGE = bytes(16)


def with_bucket(metadata: ClusterMetadata, name: str, n: int = 3) -> ClusterMetadata:
    """The next epoch, with one more bucket."""
    return metadata.create_bucket(bucket(name, n=n), change_id=name.encode().ljust(16), exist_ok=False)


@pytest.fixture
def view() -> ClusterView:
    made = ClusterView()
    made.install(N1, cluster(3))
    return made


def test_before_it_is_founded_a_node_is_not_ready() -> None:
    assert ClusterView().readiness() == (False, Reason.NOT_READY)
    assert ClusterView().bucket_named("any") is None


def test_a_peer_is_usable_while_its_lane_is_up_and_it_is_not_held_for_dead(view: ClusterView) -> None:
    assert view.usable == set()
    view.connected(N2)
    assert view.usable == {N2}
    for liveness, usable in (
        (Liveness.SUSPECT, {N2}),
        (Liveness.DEAD, set()),
        (Liveness.ALIVE, {N2}),
        (Liveness.DEAD, set()),
    ):
        view.judged(N2, liveness)
        assert view.usable == usable
    view.disconnected(N2)
    view.judged(N2, Liveness.ALIVE)
    assert view.usable == set()
    view.connected(N2)
    assert view.usable == {N2}


def test_the_set_of_the_usable_is_one_object_for_all_its_readers(view: ClusterView) -> None:
    usable = view.usable
    view.connected(N3)
    assert usable == {N3}


def test_newer_metadata_replaces_buckets_and_tells_its_readers_whether_it_is_the_first() -> None:
    view = ClusterView()
    seen: list[tuple[int, bool]] = []
    view.on_install.append(lambda metadata: seen.append((int(metadata.epoch), view.first)))
    first = cluster(3)
    second = with_bucket(first, "carts")
    view.install(N1, first)
    assert view.bucket_named("carts") is None
    view.install(N1, second)
    found = view.bucket_named("carts")
    assert found is not None
    assert view.buckets[int(found.id)] is found
    assert found.generation == view.epoch == 2
    assert seen == [(1, True), (2, False)]


def test_older_metadata_is_a_bug_of_whoever_brings_it(view: ClusterView) -> None:
    with pytest.raises(AssertionError):
        view.install(N1, cluster(3))


def test_policies_are_worked_out_once_for_each_set_of_counts() -> None:
    view = ClusterView()
    view.install(N1, with_bucket(cluster(3), "carts"))
    carts = view.bucket_named("carts")
    assert carts is not None
    plain = carts.write_policy(0, 0, 0, 0)
    assert (plain.w, plain.pw, plain.sloppy) == (2, 0, True)
    assert carts.write_policy(0, 0, 0, 0) is plain
    assert not carts.write_policy(0, 0, 0, FLAG_STRICT).sloppy
    assert carts.write_policy(0, 0, 0, FLAG_SLOPPY).sloppy
    assert carts.write_policy(3, 2, 1, 0) == (3, 3, 2, True, True)
    assert carts.read_policy(1, 0) == (3, 1, 0)
    with pytest.raises(NotApplied) as refused:
        carts.read_policy(1, 2)
    assert refused.value.reason is Reason.IMPOSSIBLE_QUORUM
    for count in range(256):
        with suppress(NotApplied):
            carts.write_policy(count, 0, 0, 0)
    assert len(carts.write_policies) < 16, "what is refused is not kept"


def test_a_member_is_called_by_its_name_and_a_stranger_by_its_number(view: ClusterView) -> None:
    assert view.name_of(N1) == "node-0"
    assert view.name_of(NodeId(77)) == "node-77"
