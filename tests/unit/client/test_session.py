"""What a client remembers of what it has seen: never less than it promised, never more than its bounds."""

from __future__ import annotations

import random
import threading

import pytest

from leafdb import DataError, SessionToken
from leafdb.client.session import NOT_ASKED, Asked, Count, Held, Session, held_by
from leafdb.client.session_token import parse
from leafdb.errors import ClientMisuse
from leafdb.limits import FLOOR_CONTEXTS_MAX, SESSION_KEYS_MAX, SESSION_TOKEN_BYTES_MAX
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.context import ContextSealer, past_in
from leafdb.model.key import encode_key
from leafdb.types import BucketId, NodeId

SEALER = ContextSealer(b"k" * 32)
A, B, C = (ActorIdentity(1, NodeId(number), 1).actor(1) for number in (1, 2, 3))
BUCKET = 256
K = encode_key("k")
CLUSTER = bytes(range(16))


def sealed(*dots: Dot, key: bytes = K) -> bytes:
    return SEALER.seal(CausalClock.from_dots(dots), sum(counter for _, counter in dots), BucketId(BUCKET), key)


EMPTY = sealed()


def wrote(session: Session, key: bytes, *dots: Dot, after: bytes = b"", held: Held = Held.MAJORITY) -> bytes:
    context = sealed(*dots, key=key)
    session.wrote(BUCKET, key, after, context, held)
    return context


def union(floor: tuple[bytes, ...]) -> CausalClock:
    clock = CausalClock({})
    for each in floor:
        clock = clock.merge(past_in(each).clock)
    return clock


def test_what_was_written_is_the_floor_of_the_next_read() -> None:
    session = Session()
    assert session.asks(BUCKET, K) == Asked((), Count.ANY, 0)
    one = wrote(session, K, (A, 1))
    assert session.asks(BUCKET, K).floor == (one,)
    assert session.asks(BUCKET + 1, K).floor == ()
    two = wrote(session, K, (A, 1), (A, 2), after=one)
    assert session.asks(BUCKET, K).floor == (two,)


def test_writes_that_were_blind_to_each_other_are_all_remembered_until_a_read_has_shown_them() -> None:
    session = Session()
    one, two = wrote(session, K, (A, 1)), wrote(session, K, (B, 1))
    asked = session.asks(BUCKET, K)
    assert asked.floor == (one, two)
    both = sealed((A, 1), (B, 1), (C, 4))
    session.read(BUCKET, K, both, Held.MAJORITY, asked)
    assert session.asks(BUCKET, K).floor == (both,)


def test_a_read_without_a_session_that_goes_back_takes_nothing_away() -> None:
    session = Session()
    new = sealed((A, 1), (A, 2))
    session.read(BUCKET, K, new, Held.MAJORITY, NOT_ASKED)
    session.read(BUCKET, K, sealed((A, 1)), Held.MAJORITY, NOT_ASKED)
    session.read(BUCKET, K, EMPTY, Held.MAJORITY, NOT_ASKED)
    assert session.asks(BUCKET, K).floor == (new,)
    beside = sealed((B, 1))
    session.read(BUCKET, K, beside, Held.MAJORITY, NOT_ASKED)
    assert session.asks(BUCKET, K).floor == (new, beside)


def test_what_another_thread_wrote_while_a_read_was_under_way_stays() -> None:
    session = Session()
    wrote(session, K, (A, 1))
    asked = session.asks(BUCKET, K)
    two = wrote(session, K, (B, 1))
    read = sealed((A, 1))
    session.read(BUCKET, K, read, Held.MAJORITY, asked)
    assert union(session.asks(BUCKET, K).floor).covers((B, 1))
    assert two in session.asks(BUCKET, K).floor


def test_a_write_follows_nothing_when_its_context_is_all_that_was_seen() -> None:
    session = Session()
    one = wrote(session, K, (A, 1))
    assert session.follows(BUCKET, K, one) == ()
    assert session.follows(BUCKET, K, b"") == (one,)
    assert session.follows(BUCKET, K, EMPTY) == (one,)


def test_a_write_follows_what_was_seen_and_its_context_does_not_cover_and_a_context_from_elsewhere() -> None:
    session = Session()
    assert session.follows(BUCKET, K, sealed((C, 1))) == (sealed((C, 1)),)
    one, two = wrote(session, K, (A, 1)), wrote(session, K, (B, 1))
    assert session.follows(BUCKET, K, one) == (two,)
    unknown = sealed((A, 1), (B, 1), (C, 1))
    assert session.follows(BUCKET, K, unknown) == (unknown,)
    strange = sealed((A, 1), (C, 1))
    assert session.follows(BUCKET, K, strange) == (two, strange)


def test_what_came_from_elsewhere_is_followed_by_every_write_until_the_key_is_read() -> None:
    session = Session()
    strange = sealed((C, 2))
    assert session.follows(BUCKET, K, strange) == (strange,)
    first = wrote(session, K, (C, 2), (A, 1), after=strange)
    assert session.follows(BUCKET, K, first) == (first,)
    second = wrote(session, K, (C, 2), (A, 1), (A, 2), after=first)
    assert session.follows(BUCKET, K, second) == (second,)
    carried = Session()
    carried.observe(parse(session.token(CLUSTER)))
    assert carried.follows(BUCKET, K, second) == (second,)
    read = sealed((C, 1), (C, 2), (A, 1), (A, 2))
    session.read(BUCKET, K, read, Held.MAJORITY, session.asks(BUCKET, K))
    assert session.follows(BUCKET, K, read) == ()
    again = wrote(session, K, (C, 1), (C, 2), (A, 1), (A, 2), (B, 1), after=read)
    assert session.follows(BUCKET, K, again) == ()
    other = sealed((B, 1), (B, 2))
    wrote(session, K, (B, 1), (B, 2), (B, 3), after=other)
    assert session.follows(BUCKET, K, again)[-1] == again


def test_too_many_blind_writes_of_one_key_are_given_up_and_the_next_read_or_write_makes_up_for_it() -> None:
    session = Session()
    for number in range(FLOOR_CONTEXTS_MAX):
        wrote(session, K, (A, 2 * number + 1))
    assert len(session.asks(BUCKET, K).floor) == FLOOR_CONTEXTS_MAX
    assert not session.cold(BUCKET, K)
    last = wrote(session, K, (B, 70))
    asked = session.asks(BUCKET, K)
    assert asked.floor == (last,)
    assert asked.primaries is Count.MAJORITY
    assert session.cold(BUCKET, K)
    seen = sealed((B, 70), (A, 1))
    session.read(BUCKET, K, seen, Held.MAJORITY, asked)
    assert session.asks(BUCKET, K) == Asked((seen,), Count.ANY, asked.given_up)
    assert not session.cold(BUCKET, K)
    session.check()


def test_the_keys_touched_longest_ago_are_given_up_first_and_read_from_a_majority() -> None:
    session = Session(keys_max=3)
    keys = [encode_key(f"key{number}") for number in range(4)]
    for key in keys[:3]:
        wrote(session, key, (A, 1))
    session.read(BUCKET, keys[0], sealed((A, 1), key=keys[0]), Held.MAJORITY, NOT_ASKED)
    wrote(session, keys[3], (A, 1))
    assert session.asks(BUCKET, keys[1]).primaries is Count.MAJORITY
    assert [session.cold(BUCKET, key) for key in keys] == [False, True, False, False]
    session.check()


def test_what_only_some_primaries_have_is_kept_longer_and_read_from_all_when_it_is_given_up() -> None:
    session = Session(keys_max=4)
    keys = [encode_key(f"key{number}") for number in range(20)]
    wrote(session, keys[0], (A, 1), held=Held.NOBODY)
    wrote(session, keys[1], (A, 1), held=Held.SOME)
    for key in keys[2:]:
        wrote(session, key, (A, 1))
    assert session.asks(BUCKET, keys[0]).floor
    assert session.asks(BUCKET, keys[1]).floor
    for key in keys[2:5]:
        wrote(session, key, (A, 1), held=Held.SOME)
    assert session.asks(BUCKET, keys[1]).primaries is Count.ALL
    assert session.asks(BUCKET, keys[0]).floor
    session.check()


@pytest.mark.parametrize(
    ("primaries", "n", "held"), [(2, 3, Held.MAJORITY), (1, 3, Held.SOME), (0, 3, Held.NOBODY), (1, 1, Held.MAJORITY)]
)
def test_who_holds_it_is_a_matter_of_primaries(primaries: int, n: int, held: Held) -> None:
    assert held_by(primaries, n) is held


def test_a_key_that_was_missing_when_it_was_read_from_enough_is_not_cold_any_more() -> None:
    session = Session(keys_max=1)
    wrote(session, K, (A, 1))
    wrote(session, encode_key("other"), (A, 1))
    asked = session.asks(BUCKET, K)
    assert asked.primaries is Count.MAJORITY
    session.read(BUCKET, K, EMPTY, Held.MAJORITY, asked)
    assert session.asks(BUCKET, K).primaries is Count.ANY
    session.check()


def test_a_read_that_began_before_something_was_given_up_does_not_make_up_for_it() -> None:
    session = Session(keys_max=1)
    wrote(session, K, (A, 1))
    wrote(session, encode_key("other"), (A, 1))
    asked = session.asks(BUCKET, K)
    wrote(session, K, (B, 1))
    wrote(session, encode_key("other"), (A, 1))  # the second write of K is given up, too
    session.read(BUCKET, K, sealed((A, 1)), Held.MAJORITY, asked)
    assert session.asks(BUCKET, K).primaries is Count.MAJORITY


def test_a_token_carries_everything_to_who_observes_it_and_begins_the_session_of_both() -> None:
    giver, taker = Session(keys_max=2), Session()
    keys = [encode_key(f"key{number}") for number in range(4)]
    for key in keys[:3]:
        wrote(giver, key, (A, 1))
    own = wrote(taker, keys[2], (B, 1))
    token = SessionToken.from_bytes(bytes(giver.token(CLUSTER)))
    assert parse(token).cluster_id == CLUSTER
    taker.observe(parse(token))
    assert giver.begun
    assert taker.begun
    assert taker.asks(BUCKET, keys[0]).primaries is Count.MAJORITY
    assert taker.asks(BUCKET, keys[1]) == Asked((sealed((A, 1), key=keys[1]),), Count.ANY, 1)
    assert set(taker.asks(BUCKET, keys[2]).floor) == {own, sealed((A, 1), key=keys[2])}
    taker.check()


def test_what_either_of_two_sessions_has_given_up_is_given_up_when_they_meet() -> None:
    giver, taker = Session(keys_max=1), Session(keys_max=2)
    wrote(giver, K, (A, 1))
    wrote(giver, encode_key("other"), (A, 1))
    wrote(taker, K, (B, 1))
    taker.observe(parse(giver.token(CLUSTER)))
    asked = taker.asks(BUCKET, K)
    assert asked.floor == (sealed((B, 1)),)
    assert asked.primaries is Count.MAJORITY
    back = Session()
    back.observe(parse(taker.token(CLUSTER)))
    assert back.asks(BUCKET, K) == Asked(asked.floor, Count.MAJORITY, 1)


def test_a_token_is_bounded_and_what_does_not_fit_is_given_up_in_it() -> None:
    session = Session()
    keys = [encode_key(f"a rather long name for a key, number {number:06}") for number in range(SESSION_KEYS_MAX + 50)]
    for key in keys:
        wrote(session, key, (A, 1))
    session.check()
    token = session.token(CLUSTER)
    assert len(token) <= SESSION_TOKEN_BYTES_MAX
    other = Session()
    other.observe(parse(token))
    known = sum(1 for key in keys if other.asks(BUCKET, key).floor)
    assert 100 < known < SESSION_KEYS_MAX
    assert all(asked.floor or asked.primaries is Count.MAJORITY for asked in (other.asks(BUCKET, key) for key in keys))
    assert other.asks(BUCKET, keys[-1]).floor  # the newest are in it


def test_nothing_seen_is_ever_lost_from_floor_or_count() -> None:
    """After any writes, reads and tokens: what a session has seen of a key is in its floor, or is read from enough."""
    for seed in range(150):
        rng = random.Random(seed)
        keys = [encode_key(f"key{number}") for number in range(6)]
        sessions = [Session(keys_max=rng.choice((1, 2, 4, 100))) for _ in range(2)]
        seen: list[dict[bytes, set[Dot]]] = [{key: set() for key in keys} for _ in sessions]
        stored: dict[bytes, set[Dot]] = {key: set() for key in keys}
        for _ in range(120):
            at = rng.randrange(2)
            session, key = sessions[at], rng.choice(keys)
            match rng.randrange(4):
                case 0:
                    dot = (rng.choice((A, B, C)), len(stored[key]) + 1)
                    stored[key].add(dot)
                    after = rng.sample(sorted(seen[at][key]), rng.randint(0, min(2, len(seen[at][key]))))
                    context = sealed(*after, key=key) if after else b""
                    session.wrote(BUCKET, key, context, sealed(*after, dot, key=key), Held.MAJORITY)
                    seen[at][key] |= {*after, dot}
                case 1 | 2:
                    begun = rng.random() < 0.7
                    asked = session.asks(BUCKET, key) if begun else NOT_ASKED
                    full = begun and asked.primaries is not Count.ANY
                    shown = stored[key] if full else set(rng.sample(sorted(stored[key]), len(stored[key]) // 2))
                    if begun:
                        shown = shown | {dot for dot in stored[key] if union(asked.floor).covers(dot)}
                    session.read(BUCKET, key, sealed(*shown, key=key), Held.MAJORITY, asked)
                    seen[at][key] |= shown
                case _:
                    other = 1 - at
                    sessions[other].observe(parse(session.token(CLUSTER)))
                    for each in keys:
                        seen[other][each] |= seen[at][each]
            for number, one in enumerate(sessions):
                one.check()
                for name in keys:
                    asked = one.asks(BUCKET, name)
                    floor = union(asked.floor)
                    assert asked.primaries is not Count.ANY or all(floor.covers(dot) for dot in seen[number][name])


def test_threads_may_share_it() -> None:
    session = Session(keys_max=20)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in range(400):
                key = encode_key(f"key{count % 30}")
                asked = session.asks(BUCKET, key)
                session.read(BUCKET, key, sealed((A, count + 1), key=key), Held.MAJORITY, asked)
                session.wrote(BUCKET, key, b"", sealed((B, 400 * number + count + 1), key=key), Held.MAJORITY)
                if count % 50 == 0:
                    session.observe(parse(session.token(CLUSTER)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    session.check()


def test_garbage_is_no_token() -> None:
    session = Session()
    for number in range(20):
        wrote(session, encode_key(f"key{number}"), (A, 1), (B, 2))
    token = bytes(session.token(CLUSTER))
    assert SessionToken.from_bytes(token) == token
    for cut in range(len(token)):
        with pytest.raises(DataError):
            SessionToken.from_bytes(token[:cut])
    for wrong in (token + b"x", b"\x02" + token[1:], bytes(SESSION_TOKEN_BYTES_MAX + 1)):
        with pytest.raises(DataError):
            SessionToken.from_bytes(wrong)
    rng = random.Random(5)
    for _ in range(300):
        damaged = bytearray(token)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        try:
            parts = parse(bytes(damaged))
        except DataError:
            continue
        other = Session()
        other.observe(parts)
        other.check()
    with pytest.raises(ClientMisuse):
        SessionToken.from_bytes("text")  # type: ignore[arg-type]


def test_the_newest_that_was_seen_is_known_whatever_was_given_up() -> None:
    session = Session()
    assert session.newest(BUCKET, K) == b""
    high = wrote(session, K, (A, 99))
    assert session.newest(BUCKET, K) == high
    for number in range(2, 2 + 2 * FLOOR_CONTEXTS_MAX):
        session.read(BUCKET, K, sealed((B, 2 * number)), Held.MAJORITY, NOT_ASKED)  # of replicas that are behind
        assert session.newest(BUCKET, K) == high
    higher = wrote(session, K, (C, 100))
    assert session.newest(BUCKET, K) == higher
    session.check()


def test_a_token_on_paper() -> None:
    session = Session()
    wrote(session, K, (A, 1))
    assert bytes(session.token(CLUSTER)) == bytes.fromhex(
        "01 10 000102030405060708090a0b0c0d0e0f" + "00" * 64 + "0001"
        "00000100 0003 03 01 6b0001 0031"
    ) + sealed((A, 1))  # fmt: skip
