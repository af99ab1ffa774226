"""What is told of a record from a glance at its bytes is what its parsed header says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.purge import NEVER, death_of, record_death
from leafdb.model.record_format import Record, Sibling, any_below, encode, header, lives_on
from leafdb.types import NodeId

ACTORS = [ActorIdentity(1, NodeId(number), 1).actor(1) for number in (1, 2, 3)]
SIBLINGS = st.builds(
    lambda stamp, expires, value: Sibling(stamp, expires, b"o" * 16, value),
    st.integers(1, 5),
    st.sampled_from((0, 0, 7)),
    st.sampled_from((None, b"", b"value")),
)
DOTS = st.tuples(st.sampled_from(ACTORS), st.integers(1, 3))


@given(st.dictionaries(DOTS, SIBLINGS, max_size=4), st.integers(0, 6), st.booleans())
def test_a_glance_agrees_with_a_look(siblings: dict[Dot, Sibling], stamp: int, more: bool) -> None:
    clock = CausalClock.from_dots([*siblings, *([(ACTORS[2], 9)] if more else [])])
    data = encode(Record(clock, siblings))
    heads = header(data).heads
    assert any_below(data, stamp) == any(head.stamp < stamp for head in heads.values())
    death = max(map(death_of, heads.values()), default=0)
    assert record_death(data) == death
    if lives_on(data):
        assert death == NEVER
    first = next(iter(heads.values()), None)
    assert lives_on(data) == (first is not None and death_of(first) == NEVER)


@given(st.binary(max_size=120), st.integers(0, 1 << 63))
def test_a_glance_at_other_bytes_raises_nothing(data: bytes, stamp: int) -> None:
    assert lives_on(data) in (True, False)
    assert any_below(data, stamp) in (True, False)
