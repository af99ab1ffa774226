"""Promise: what admission makes of a record is that record as if it had never heard of what is left out, for any two
records and any horizon; and doing it again changes nothing."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.codec.checksum import xxh3_64
from leafdb.model.actor import ActorIdentity
from leafdb.model.admission import admitted, left_out
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.record import Record, Sibling, accept, accept_above, decode, encode, merge, restored
from leafdb.types import Conflict, NodeId

FAST = settings(derandomize=True, deadline=None, max_examples=150)
ACTORS: Final = tuple(ActorIdentity(1, NodeId(node), 1).actor(epoch) for node, epoch in ((1, 1), (1, 2), (2, 1)))
STRANGER: Final = ActorIdentity(1, NodeId(9), 1)

dots = st.tuples(st.sampled_from(ACTORS), st.integers(1, 6))
horizons = st.integers(0, 12)
conflicts = st.sampled_from((Conflict.SIBLINGS, Conflict.LWW))


def said(dot: Dot) -> Sibling:
    noise = xxh3_64(dot[0], dot[1])
    return Sibling(noise % 12, (noise >> 8) % 3, noise.to_bytes(16, "big"), None if noise % 4 == 0 else b"v")


@st.composite
def records(draw: st.DrawFn) -> bytes:
    clock = CausalClock.from_dots(draw(st.frozensets(dots, min_size=1, max_size=10)))
    known = sorted(all_dots(clock))
    live = draw(st.frozensets(st.sampled_from(known), max_size=4))
    return encode(Record(clock, {dot: said(dot) for dot in live}))


def all_dots(clock: CausalClock) -> set[Dot]:
    return {(actor, n) for actor, top in clock.vector.items() for n in range(1, top + 1)} | set(clock.cloud)


@FAST
@given(st.none() | records(), records(), horizons)
def test_what_is_admitted_is_the_record_that_never_heard_of_the_rest(
    local: bytes | None, incoming: bytes, horizon: int
) -> None:
    gone = set(left_out(local, incoming, horizon))
    kept, whole = admitted(local, incoming, horizon), decode(incoming)
    assert gone <= {dot for dot, sibling in whole.siblings.items() if sibling.stamp < horizon}
    if kept is None:
        assert gone == set(whole.siblings) != set()
        return
    made = decode(kept)
    made.check()
    assert set(made.siblings) == set(whole.siblings) - gone
    assert all_dots(made.clock) == all_dots(whole.clock) - gone
    assert admitted(local, kept, horizon) is kept


@FAST
@given(st.none() | records(), records(), horizons, conflicts)
def test_taking_it_twice_is_taking_it_once(
    local: bytes | None, incoming: bytes, horizon: int, conflict: Conflict
) -> None:
    epochs = EpochLease(1, 100)

    def take(held: bytes | None) -> bytes | None:
        return accept_above(held, incoming, conflict, identity=STRANGER, epochs=epochs, horizon=horizon)

    once = take(local)
    assert take(once) == once
    if not left_out(local, incoming, horizon):
        assert once == accept(local, incoming, conflict, identity=STRANGER, epochs=epochs)


@FAST
@given(st.none() | records(), st.none() | records(), horizons, conflicts)
def test_who_was_made_whole_has_what_the_other_would_have_after_hearing_of_it(
    local: bytes | None, vouched: bytes | None, horizon: int, conflict: Conflict
) -> None:
    epochs = EpochLease(1, 100)
    whole = restored(local, vouched, conflict, identity=STRANGER, epochs=epochs, horizon=horizon)
    other = vouched
    if local is not None:
        other = accept_above(vouched, local, conflict, identity=STRANGER, epochs=epochs, horizon=horizon)
    assert whole == other
    if whole is not None and other is not None:
        assert merge(whole, other, conflict) is whole
