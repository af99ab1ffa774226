"""The ring: primaries, fallbacks, roles and effective n as the request path reads them."""

from __future__ import annotations

from dataclasses import replace

from leafdb.ring.ring import Ring, Role
from leafdb.ring.token import partition_of
from leafdb.types import Epoch, NodeId, PartitionId, Token
from support.clusters import cluster

FIRST = PartitionId(0)


def test_three_nodes_and_256_partitions_give_every_list_three_hosts() -> None:
    made = cluster(3, partitions=256)
    ring = Ring(made)
    for partition in map(PartitionId, range(256)):
        assert len({made.members[node].host for node in ring.primaries(partition, 3)}) == 3
    ring.check()
    assert not ring.warnings()


def test_effective_n_counts_owners_only() -> None:
    made = cluster(3)
    assert Ring(made).effective_n(5) == 3
    assert Ring(made).effective_n(2) == 2
    lone = Ring(replace(made, owners=(NodeId(2),) * 64))
    assert lone.effective_n(3) == 1
    assert lone.primaries(FIRST, 3) == (2,)
    assert lone.fallbacks(FIRST, 3) == ()
    assert lone.role_of(NodeId(1), FIRST, 3) is Role.NONE
    assert any("own nothing" in warning for warning in lone.warnings())


def test_fallbacks_follow_the_primaries() -> None:
    ring = Ring(cluster(6))
    for partition in map(PartitionId, range(64)):
        primaries, fallbacks = ring.primaries(partition, 3), ring.fallbacks(partition, 3)
        assert len(primaries) == 3
        assert sorted(primaries + fallbacks) == [1, 2, 3, 4, 5, 6]
        assert ring.role_of(primaries[-1], partition, 3) is Role.PRIMARY
        assert ring.role_of(fallbacks[0], partition, 3) is Role.FALLBACK
        assert ring.is_primary(primaries[0], partition, 3)
        assert not ring.is_primary(fallbacks[0], partition, 3)


def test_partitions_are_found_as_by_the_definition() -> None:
    ring = Ring(cluster(3, partitions=128))
    for token in (0, 1, 2**57, 2**57 - 1, 2**63, 2**64 - 1):
        assert ring.partition_of(Token(token)) == partition_of(Token(token), 128)
    assert Ring(cluster(1, partitions=1)).partition_of(Token(2**64 - 1)) == 0


def test_every_copy_is_held_by_somebody() -> None:
    ring = Ring(cluster(5))
    held = sum(len(ring.partitions_held(node, 3)) for node in ring.loads)
    assert held == 3 * 64


def test_range_epochs_come_from_the_metadata() -> None:
    made = cluster(3)
    epochs = (Epoch(4), *made.range_epochs[1:])
    ring = Ring(replace(made, epoch=Epoch(5), range_epochs=epochs))
    assert ring.range_epoch(FIRST) == 4
    assert ring.range_epoch(PartitionId(1)) == 1
    assert ring.epoch == 5


def test_too_few_hosts_warn() -> None:
    ring = Ring(cluster(3, hosts=("a", "a", "b")))
    ring.check()
    assert any("only 2 hosts" in warning for warning in ring.warnings())
    assert any("2 copies" in warning for warning in Ring(cluster(2)).warnings())
    assert "only 2 hosts" in ring.describe()
