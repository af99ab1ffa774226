"""A store's "absent" is believed only where it has forgotten nothing, and a restart changes nothing of that."""

from __future__ import annotations

from random import Random

from leafdb.node.completeness import KEY, Completeness, encode_partitions
from leafdb.node.view import BucketView, ClusterView
from leafdb.types import PartitionId, TreeId
from support.clusters import bucket
from support.store import Store

META = TreeId(1)
BUCKET = BucketView(bucket(), 3)


def opened(store: Store) -> Completeness:
    """What a store remembers."""
    store.engine.create_tree(META)
    completeness = Completeness(store.engine, META, ClusterView())
    completeness.load(store.get(KEY, META))
    return completeness


def test_a_store_that_never_forgot_is_complete_everywhere() -> None:
    completeness = opened(Store())
    assert completeness.incomplete == ()
    assert all(completeness.definitive(BUCKET, PartitionId(partition)) for partition in range(64))
    assert not completeness.definitive_in(BUCKET.id, PartitionId(0)), "of which nobody has heard"


def test_what_is_in_doubt_and_what_is_proved_survives_restarts() -> None:
    store = Store()
    completeness = opened(store)
    completeness.doubt(range(64))
    for partition in (0, 5, 63):
        completeness.proved(partition)
    store.commit()
    again = opened(Store(store.fs.power_cut(Random(0), keep=0.0)))
    assert again.incomplete == completeness.incomplete
    assert again.definitive(BUCKET, PartitionId(5))
    assert not again.definitive(BUCKET, PartitionId(6))


def test_proving_what_is_complete_writes_nothing() -> None:
    store = Store()
    completeness = opened(store)
    completeness.proved(3)
    store.commit()
    assert store.get(KEY, META) is None


def test_the_stored_form_is_what_a_start_may_write_for_it() -> None:
    store = Store()
    store.engine.create_tree(META)
    store.put(KEY, encode_partitions(range(16)), tree=META)
    store.commit()
    assert opened(store).incomplete == tuple(range(16))
