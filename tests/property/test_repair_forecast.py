"""Promises: a forecast from what differs now counts what exchanges, one after the other, then find and move."""

from __future__ import annotations

from random import Random

from leafdb.model.actor import ActorIdentity
from leafdb.model.outline import outline_of, told
from leafdb.model.record import first, merge
from leafdb.node.repair_forecast import RangeForecast
from leafdb.types import Conflict, NodeId

WRITER = ActorIdentity(1, NodeId(900), 1)
Store = dict[bytes, bytes]


def some_record(rng: Random, conflict: Conflict) -> bytes:
    """One write, or the merge of some; few of them, so that stores have records in common."""
    numbers = rng.sample(range(1, 6), rng.choice((1, 1, 1, 2, 3)))
    record = written(numbers[0])
    for number in numbers[1:]:
        record = merge(record, written(number), conflict)
    return record


def written(number: int) -> bytes:
    return first(WRITER.actor(number), 100 - number, 0, number.to_bytes(16, "big"), b"v" * number or None)


def exchange(ours: Store, theirs: Store, conflict: Conflict) -> tuple[int, int, int]:
    """What an exchange does (merkle/exchange.py): keys that differ, records sent, received."""
    keys = sent = received = 0
    for key in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(key), theirs.get(key)
        if mine == other:
            continue
        keys += 1
        if other is not None:
            received += 1
            ours[key] = other if mine is None else merge(mine, other, conflict)
        if ours[key] != other:
            sent += 1
            theirs[key] = ours[key]
    return keys, sent, received


def forecast_of(ours: Store, peers: list[Store], conflict: Conflict) -> list[tuple[int, int, int]]:
    forecast = RangeForecast(conflict)
    figures = []
    for theirs in peers:
        for _ in range(2):  # the first try is given up in its middle
            forecast.begin()
            for key in sorted(theirs):
                if ours.get(key) != theirs[key]:
                    forecast.theirs(key, outline_of(ours[key]) if key in ours else None, outline_of(theirs[key]))
            for key in sorted(ours.keys() - theirs.keys()):
                forecast.ours(key, outline_of(ours[key]))
        found = forecast.end()
        figures.append((found.keys_differing, found.keys_sent, found.keys_received))
    return figures


def test_a_forecast_comes_true() -> None:
    rng = Random(5)
    differing = 0
    for _ in range(400):
        conflict = rng.choice(list(Conflict))
        stores: list[Store] = [
            {b"k%d" % key: some_record(rng, conflict) for key in range(6) if rng.random() < 0.6} for _ in range(4)
        ]
        ours, *peers = stores
        predicted = forecast_of(ours, peers, conflict)
        happened = [exchange(ours, theirs, conflict) for theirs in peers]
        assert predicted == happened
        differing += sum(keys for keys, _, _ in happened)
    assert differing > 1_000


def test_equal_stores_have_nothing_coming() -> None:
    store = {b"k": written(1)}
    assert forecast_of(store, [dict(store), dict(store)], Conflict.SIBLINGS) == [(0, 0, 0)] * 2


def test_an_outline_says_what_a_person_wants_to_know_of_a_version() -> None:
    record = merge(written(1), written(2), Conflict.SIBLINGS)
    line = told(outline_of(record))
    assert line is not None
    assert (line["bytes"], line["siblings"], line["tombstones"]) == (len(record), 2, 0)
    assert told(None) is None
