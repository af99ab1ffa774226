"""Promise: merge is a join, so replicas that saw the same records in any order hold the same bytes; and a put covers
exactly what its writer saw.

The model of a record is a set of dots with the subset that is live; per dot the states absent < live < covered form a
chain, and merging is the greater of two states for every dot. For `lww` the live dot is the greatest (stamp, dot). What
a dot says (stamp, value) is a function of the dot here, because no dot is ever minted twice: test_amnesia.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.codec.checksum import xxh3_64
from leafdb.model import record
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.live import NO_OPERATION
from leafdb.model.record import Record, Sibling
from leafdb.types import Conflict, NodeId

SIBLINGS, LWW = Conflict.SIBLINGS, Conflict.LWW
FAST = settings(derandomize=True, deadline=None, max_examples=100)

ACTORS: Final = tuple(
    ActorIdentity(1, NodeId(node), 1).actor(epoch) for node, epoch in ((1, 1), (1, 2), (2, 1), (300, 9))
)
OURS: Final = ActorIdentity(1, NodeId(7), 1)

dots = st.tuples(st.sampled_from(ACTORS), st.integers(1, 6))
clocks = st.frozensets(dots, max_size=12).map(CausalClock.from_dots)


def said(dot: Dot) -> Sibling:
    """What the write of this dot said, everywhere and for ever. Some share an operation, a stamp, or are deletions."""
    noise = xxh3_64(dot[0], dot[1])
    op_id = (noise % 5).to_bytes(16, "big") if noise % 3 else noise.to_bytes(16, "big")
    return Sibling(
        noise % 4, (noise >> 8) % 3, op_id, None if noise % 7 == 0 else noise.to_bytes(8, "big")[: noise % 9]
    )


def all_dots(clock: CausalClock, lowest: int = 0) -> set[Dot]:
    """The clock as a set; an entry at 0 is the dot 0, which every entry has."""
    return {(actor, n) for actor, top in clock.vector.items() for n in range(lowest, top + 1)} | set(clock.cloud)


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """Any record: any dots known, any of them live, any actors announced with an empty entry."""
    clock = draw(clocks)
    for actor in draw(st.frozensets(st.sampled_from(ACTORS), max_size=2)):
        clock = clock.add_entry(actor)
    known = sorted(all_dots(clock, 1))
    live = draw(st.frozensets(st.sampled_from(known))) if known else frozenset()
    return record.encode(Record(clock, {dot: said(dot) for dot in live}))


@st.composite
def lww_records(draw: st.DrawFn) -> bytes:
    """Any record of an lww bucket: as above with at most one live dot."""
    clock = draw(clocks)
    known = sorted(all_dots(clock, 1))
    empty = draw(st.booleans())
    live = [] if empty or not known else [draw(st.sampled_from(known))]
    return record.encode(Record(clock, {dot: said(dot) for dot in live}))


Model = tuple[set[Dot], set[Dot]]


def model_of(data: bytes) -> Model:
    decoded = record.decode(data)
    return all_dots(decoded.clock), set(decoded.siblings)


def model_merge(a: Model, b: Model) -> Model:
    return a[0] | b[0], {
        dot for dot in a[1] | b[1] if (dot in a[1] or dot not in a[0]) and (dot in b[1] or dot not in b[0])
    }


def model_lww(a: Model, b: Model) -> Model:
    ranked = sorted(a[1] | b[1], key=lambda dot: (said(dot).stamp, dot))
    return a[0] | b[0], set(ranked[-1:])


def assert_join(a: bytes, b: bytes, c: bytes, conflict: Conflict) -> None:
    def merge(x: bytes, y: bytes) -> bytes:
        merged = record.merge(x, y, conflict)
        record.decode(merged).check()
        return merged

    ab = merge(a, b)
    assert merge(b, a) == ab
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, bytes(bytearray(a))) is a
    assert merge(ab, b) is ab
    assert merge(ab, a) is ab
    assert merge(a, ab) in (a, ab)
    if ab == a:
        assert ab is a
    elif ab == b:
        assert ab is b


@FAST
@given(records(), records(), records())
def test_merge_is_a_join(a: bytes, b: bytes, c: bytes) -> None:
    assert_join(a, b, c, SIBLINGS)


@FAST
@given(lww_records(), lww_records(), lww_records())
def test_lww_merge_is_a_join(a: bytes, b: bytes, c: bytes) -> None:
    assert_join(a, b, c, LWW)


@FAST
@given(records(), records())
def test_merge_equals_the_model(a: bytes, b: bytes) -> None:
    assert model_of(record.merge(a, b, SIBLINGS)) == model_merge(model_of(a), model_of(b))


@FAST
@given(lww_records(), lww_records())
def test_lww_merge_equals_the_model(a: bytes, b: bytes) -> None:
    assert model_of(record.merge(a, b, LWW)) == model_lww(model_of(a), model_of(b))


@FAST
@given(records(), records())
def test_readers_of_merged_replicas_see_the_same(a: bytes, b: bytes) -> None:
    for conflict in Conflict:
        seen = record.live(record.decode(record.merge(a, b, conflict)), 1, conflict)
        assert seen == record.live(record.decode(record.merge(b, a, conflict)), 1, conflict)
        shown = [dot for dot, _ in seen]
        operations = [sibling.op_id for _, sibling in seen if sibling.op_id != NO_OPERATION]
        assert shown == sorted(shown)
        assert len(set(operations)) == len(operations)
        assert all(sibling.value is not None and sibling.expires_ms != 1 for _, sibling in seen)
        assert conflict is SIBLINGS or len(seen) < 2


def folding_merge(a: Model, b: Model) -> Model:
    """The merge that decision 0003 rejects: of one operation's dots it keeps the smallest. All dots are one's here."""
    known, live = model_merge(a, b)
    return known, set(sorted(live)[:1])


def test_folding_operations_in_merge_would_not_be_associative() -> None:
    d1, d2 = (ACTORS[0], 1), (ACTORS[2], 1)
    a: Model = ({d1}, {d1})
    b: Model = ({d2}, {d2})
    c: Model = ({d1}, set())
    assert folding_merge(folding_merge(a, b), c)[1] == set()
    assert folding_merge(a, folding_merge(b, c))[1] == {d2}


@FAST
@given(st.none() | records(), st.none() | clocks, st.sampled_from(Conflict))
def test_a_put_covers_exactly_what_its_writer_saw(
    local: bytes | None, context: CausalClock | None, conflict: Conflict
) -> None:
    epochs = EpochLease(5, 100)
    before = (set(), set()) if local is None else model_of(local)
    data, dot = record.put(
        local,
        context,
        identity=OURS,
        epochs=epochs,
        stamp=9,
        expires_ms=0,
        op_id=b"p" * 16,
        value=b"p",
        conflict=conflict,
    )
    saw = all_dots(context) if context is not None else set()
    known, live = model_of(data)
    assert dot not in before[0] | saw
    assert {each for each in known if each[1]} == {each for each in before[0] | saw | {dot} if each[1]}
    assert live == ({dot} if conflict is LWW else (before[1] - saw) | {dot})
    newest = record.decode(data).siblings[dot]
    assert all(newest.stamp > said(each).stamp for each in before[1])
    assert all_dots((context or EMPTY).add(dot)) - {(dot[0], 0)} == saw | {dot}
    if local is not None and conflict is SIBLINGS:
        # Nothing the writer had not seen is lost, whichever replica merges it with what was there before.
        merged = record.merge(local, data, SIBLINGS)
        assert merged is data


@FAST
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 2)), max_size=25))
def test_a_sequential_writer_who_chains_contexts_never_makes_a_sibling(steps: list[tuple[int, bool, int]]) -> None:
    # Each step: the replica that coordinates, whether it is told to forget the record first, the replica it reaches.
    identities = [ActorIdentity(1, NodeId(number), 1) for number in (1, 2, 3)]
    leases = [EpochLease(1, 1_000) for _ in identities]
    stores: list[bytes | None] = [None, None, None]
    everything: list[bytes] = []
    context, dot = EMPTY, None
    for count, (at, forget, to) in enumerate(steps):
        if forget:
            stores[at] = None
        result = record.put(
            stores[at], context, identity=identities[at], epochs=leases[at], stamp=count, expires_ms=0,
            op_id=count.to_bytes(16, "big"), value=b"v", conflict=SIBLINGS,
        )  # fmt: skip
        data, dot = result
        stores[at] = data
        stores[to] = record.accept(stores[to], data, SIBLINGS, identity=identities[to], epochs=leases[to])
        context = context.add(dot)
        everything.append(data)
    if dot is not None:
        assert set(record.decode(joined(everything)).siblings) == {dot}


def joined(versions: Iterable[bytes]) -> bytes:
    whole: bytes | None = None
    for version in versions:
        whole = version if whole is None else record.merge(whole, version, SIBLINGS)
    assert whole is not None
    return whole
