"""A store under writes, expiries and horizons as they come: every record that dies is noted, and after a sweep exactly
what lives or died after the horizon is left, with nothing else noted."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leafdb.model.purge import NEVER, record_death
from leafdb.node.deaths import split_note
from leafdb.types import Durability
from support.sweeping import MS, SweptStore, record
from support.tree_stores import BUCKET

KEYS = st.tuples(st.integers(0, 255), st.integers(0, 3)).map(lambda pair: bytes((pair[0] & 0xE0, 0)) + b"%d" % pair[1])
WRITE = st.tuples(st.just("write"), KEYS, st.sampled_from(("lives", "expires", "deleted")), st.integers(1, 60))
STEPS = st.lists(
    st.one_of(
        WRITE,
        WRITE,
        WRITE,
        st.tuples(st.just("learn"), st.integers(0, 30)),
        st.tuples(st.just("sweep"), st.none()),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("hold"), st.integers(0, 255)),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_sweep_leaves_what_lives_and_what_is_young_and_notes_find_the_rest(steps: list[tuple[object, ...]]) -> None:
    life, model, now, horizon = SweptStore(), dict[bytes, bytes](), 1_000, 0
    for step in steps:
        match step:
            case ("write", bytes(key), str(kind), int(ttl_ms)):
                now += 1
                expires_ms = now + ttl_ms if kind == "expires" else 0
                model[key] = record(now * MS, expires_ms, None if kind == "deleted" else b"v")
                life.write(key, model[key], Durability.PERIODIC)
            case ("learn", int(back)):
                horizon = max(horizon, (now - back) * MS)
                life.learn(horizon)
                life.settle()
            case ("sweep", _):
                life.sweep()
                held = {key: data for key, data in model.items() if key[0] >> 5 in life.held}
                gone = [key for key, data in held.items() if record_death(data) < horizon]
                for key in gone:
                    del model[key]
                assert all(life.horizons.swept(at) == horizon for at in range(8))
            case ("restart", _):
                held_before = life.held
                life.settle()
                life.store.close()
                life = SweptStore(life.fs)
                life.held = held_before
            case ("hold", int(mask)):
                life.held = {at for at in range(8) if mask >> at & 1}
                for callback in life.view.on_install:
                    callback(None)
        assert dict(life.store_items()) == model
        assert life.unnoted() == []
    life.held = set(range(8))
    for callback in life.view.on_install:
        callback(None)
    life.sweep()
    left = {key: data for key, data in model.items() if record_death(data) >= horizon}
    assert dict(life.store_items()) == left
    assert life.unnoted() == []
    assert life.unknown() == []
    assert life.wrong() == []
    # What is still noted is a record that dies, or lies above the horizon and is found stale later.
    deaths = {key: record_death(data) for key, data in left.items()}
    for note in life.notes():
        _, death, tree, key = split_note(note)
        assert tree == BUCKET
        assert death >= horizon or deaths.get(key, NEVER) == death


def test_what_is_another_s_to_hold_stays_and_goes_when_it_is_ours_again() -> None:
    life, key = SweptStore(), b"\x20\0key"
    life.held = set()
    life.write(key, record(5 * MS, value=None))
    life.learn(9 * MS)
    life.settle()
    life.sweep()
    assert [found for found, _ in life.store_items()] == [key]
    assert life.sweeper.oldest_death(1) == 5 * MS
    life.held = {1}
    for callback in life.view.on_install:
        callback(None)
    assert not life.sweeper.quiet
    life.sweep()
    assert life.store_items() == []
    assert life.sweeper.oldest_death(1) is None
