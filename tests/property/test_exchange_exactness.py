"""Invariants I15 and I16: an exchange finds exactly the keys that differ, repairs both sides, and costs accordingly."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.merkle.effects import Counts, ExchangeConfig
from leafdb.merkle.tree import Tree
from support.exchange_pair import Pair, Store, tree_of, union

CONFIG = ExchangeConfig()
TIGHT = ExchangeConfig(keys_max=3, bytes_max=80, window_keys=2)


def a_key(number: int) -> bytes:
    return (number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "big") + b"key%d\x00\x01" % number


RECORDS = st.binary(min_size=1, max_size=4).map(lambda data: bytes(sorted(set(data))))
STORES = st.dictionaries(st.integers(0, 300).map(a_key), RECORDS, max_size=60)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(common=STORES, mine=STORES, theirs=STORES, config=st.sampled_from([CONFIG, TIGHT]), settle=st.booleans())
def test_exactly_the_differing_keys_are_repaired_and_both_sides_hold_the_merge(
    common: Store, mine: Store, theirs: Store, config: ExchangeConfig, settle: bool
) -> None:
    mine, theirs = {**common, **mine}, {**common, **theirs}
    only_mine, only_theirs = set(mine) - set(theirs), set(theirs) - set(mine)
    both = {key for key in set(mine) & set(theirs) if mine[key] != theirs[key]}
    ahead = {key for key in both if union(mine[key], theirs[key]) == theirs[key]} if settle else set()
    merged = {key: union(mine.get(key, b""), theirs.get(key, b"")) for key in mine | theirs}

    pair = Pair(mine, theirs, config, settle=settle)
    counts, other = pair.run()
    assert sorted(pair.fetched) == sorted(only_theirs | both)
    assert sorted(pair.offered) == sorted((only_mine | both) - ahead)
    assert mine == theirs == merged
    assert counts.keys == len(only_mine | only_theirs | both)
    assert (counts.sent, counts.received) == (len(pair.offered), len(pair.fetched))
    assert (other.keys, other.sent, other.received) == (counts.keys, counts.received, counts.sent)
    assert (other.branches, other.leaves, other.compared_bytes) == (
        counts.branches,
        counts.leaves,
        counts.compared_bytes,
    )
    again, _ = Pair(mine, theirs, config).run()
    assert again == Counts(compared_bytes=again.compared_bytes), "nothing is left to repair"


def stores(count: int, differing: int, seed: int) -> tuple[Store, Store]:
    rng = Random(seed)
    mine = {a_key(number): b"\x01" for number in range(count)}
    theirs = dict(mine)
    for key in rng.sample(sorted(mine), differing):
        rng.choice([mine, theirs])[key] = b"\x01\x02"
    return mine, theirs


@pytest.mark.parametrize("differing", [0, 1, 10, 300])
def test_cost_follows_the_difference_and_not_the_size(differing: int) -> None:
    count = 8_000
    pair = Pair(*stores(count, differing, seed=differing), CONFIG)
    counts, _ = pair.run()
    assert counts.keys == differing
    assert counts.leaves <= differing
    keys_per_leaf = count / 1024 * 2
    bound = 64 + 300 * min(33, 1 + differing) + differing * keys_per_leaf * 32
    assert counts.compared_bytes <= (16 if differing == 0 else bound)
    if differing == 0:
        assert [message["kind"] for _, message in pair.wire] == ["compare", "equal"]
        assert pair.scans == 0


def test_messages_and_repairs_keep_within_their_bounds() -> None:
    mine: Store = {a_key(number): b"\x01" for number in range(400)}
    theirs: Store = {a_key(number): b"\x02" for number in range(200, 600)}
    config = ExchangeConfig(keys_max=16, bytes_max=300, window_keys=64)
    pair = Pair(mine, theirs, config)
    pair.run()
    assert mine == theirs
    lists = [message["lists"] for _, message in pair.wire if message["kind"] == "keys"]
    assert len(lists) > 20
    for each in lists:
        keys = [key for _, _, keys, _ in each for key in keys]
        assert len(keys) <= 16
        assert sum(len(key) + 8 for key in keys) <= 300


@settings(max_examples=60, deadline=None, derandomize=True)
@given(store=STORES, changes=st.lists(st.tuples(st.integers(0, 300).map(a_key), st.none() | RECORDS), max_size=40))
def test_updated_tree_equals_its_rebuild_byte_for_byte(store: Store, changes: list[tuple[bytes, bytes | None]]) -> None:
    tree = tree_of(store)
    for place, (key, new) in enumerate(changes):
        tree.update(key, store.get(key), new)
        if new is None:
            store.pop(key, None)
        else:
            store[key] = new
        if place % 7 == 0:
            tree.root()
            tree.check()
    rebuilt = tree_of(store)
    assert (tree.root(), tree.keys) == (rebuilt.root(), rebuilt.keys)
    assert tree.encode() == rebuilt.encode()
    assert Tree.decode(tree.encode()).encode() == tree.encode()
    tree.check()
