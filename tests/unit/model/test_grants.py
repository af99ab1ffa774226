"""Grants: what is not granted is denied, whatever the mixture; a permit decides as the plain rule does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.limits import GRANT_PREFIX_BYTES_MAX
from leafdb.model.grants import BUCKET_VERBS, DATA_VERBS, EVERY, WHOLE, Grant, Permit, Verb, covers, parse_grant
from leafdb.model.key import encode_key

BUCKETS = {"carts": 256, "prices": 257}
PREFIXES = st.sampled_from([b"", b"a", b"ab", b"b", b"\x00", b"a\x00", b"\xff"])
KEYS = st.sampled_from([b"a", b"ab", b"abc", b"b", b"\x00", b"\x00\x00", b"a\x00b", b"\xff\x01", b"c"])


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Any grant that can be kept, patterns and names of tomorrow among them."""
    verb = draw(st.sampled_from([*Verb, "*", "admin.*", "bucket.*", "read", "write", "stream.read"]))
    bucket = draw(st.sampled_from([EVERY, *BUCKETS, "later"]))
    return Grant(verb, bucket, draw(PREFIXES) if verb in DATA_VERBS else b"")


def plainly(granted: list[Grant], verb: Verb, bucket: str, partition: bytes) -> bool:
    """The rule as it is written in the docs, without any preparation."""
    return any(
        covers(grant.verb, verb) and grant.bucket in (EVERY, bucket) and partition.startswith(grant.prefix)
        for grant in granted
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(grants(), max_size=6), st.sampled_from(DATA_VERBS), st.sampled_from([*BUCKETS]), KEYS, st.booleans())
def test_a_permit_decides_as_the_rule_does(
    granted: list[Grant], verb: Verb, bucket: str, partition: bytes, paired: bool
) -> None:
    permit = Permit(granted, BUCKETS)
    permit.check()
    key = encode_key((partition, b"sort") if paired else partition)
    allowed = key.startswith(permit.scope(verb, BUCKETS[bucket])) if permit.scope(verb, BUCKETS[bucket]) else False
    assert allowed == plainly(granted, verb, bucket, partition)
    assert permit.scope(verb, BUCKETS[bucket]) == permit.scope_named(verb, bucket)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(grants(), max_size=6), st.sampled_from(list(Verb)))
def test_more_grants_never_allow_less_and_fewer_never_more(granted: list[Grant], verb: Verb) -> None:
    whole = Permit(granted, BUCKETS)
    for left_out in range(len(granted)):
        part = Permit(granted[:left_out] + granted[left_out + 1 :], BUCKETS)
        assert whole.has(verb) or not part.has(verb)
        if verb in BUCKET_VERBS:
            for number in (*BUCKETS.values(), 999):
                assert all(each.startswith(whole.scope(verb, number)) for each in part.scope(verb, number))


def test_nothing_is_granted_by_default() -> None:
    permit = Permit((), BUCKETS)
    assert not any(permit.has(verb) for verb in Verb)
    assert not any(permit.scope(verb, 256) for verb in BUCKET_VERBS)
    assert not permit.touches("carts")


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb not in BUCKET_VERBS])
def test_everything_in_one_bucket_is_no_verb_of_the_cluster(verb: Verb) -> None:
    for grant in (Grant("*", "carts"), Grant(verb, "carts"), Grant("admin.*", "carts")):
        assert not Permit([grant], BUCKETS).has(verb)
    assert Permit([Grant("*")], BUCKETS).has(verb)
    assert Permit([Grant("admin.*")], BUCKETS).has(verb)


def test_a_grant_goes_by_the_name_so_it_may_come_before_the_bucket_and_outlive_it() -> None:
    granted = [parse_grant("read:carts"), parse_grant("bucket.create:carts")]
    before = Permit(granted, {})
    assert before.scope_named(Verb.BUCKET_CREATE, "carts") == WHOLE
    assert before.scope(Verb.READ, 256) == ()
    assert Permit(granted, {"carts": 256}).scope(Verb.READ, 256) == WHOLE
    assert Permit(granted, {"carts": 999}).scope(Verb.READ, 999) == WHOLE
    assert Permit(granted, {"carts": 999}).scope(Verb.READ, 256) == ()


def test_a_name_of_a_newer_build_is_kept_and_grants_nothing() -> None:
    grant = Grant("stream.read", "carts")
    assert not grant.check()
    assert Grant.from_wire(grant.to_wire()) == grant
    permit = Permit([grant], BUCKETS)
    assert not any(permit.has(verb) for verb in Verb)


@pytest.mark.parametrize(
    ("text", "grant"),
    [
        ("*", Grant("*")),
        ("read", Grant("read")),
        ("read:*", Grant("read")),
        ("read:carts", Grant("read", "carts")),
        ("write:carts/user-", Grant("write", "carts", b"user-")),
        ("write:carts/a/b:c", Grant("write", "carts", b"a/b:c")),
        ("delete:*/tmp-", Grant("delete", "*", b"tmp-")),
        ("read:carts/hex:00ff", Grant("read", "carts", b"\x00\xff")),
        ("read:a:b", Grant("read", "a:b")),
        ("*:carts", Grant("*", "carts")),
        ("bucket.*:carts", Grant("bucket.*", "carts")),
        ("admin.*", Grant("admin.*")),
        ("admin.read", Grant("admin.read")),
    ],
)
def test_what_people_write(text: str, grant: Grant) -> None:
    assert parse_grant(text) == grant
    assert parse_grant(str(grant)) == grant


@settings(max_examples=300, deadline=None, derandomize=True)
@given(grants())
def test_every_grant_can_be_written_down_and_read_again(grant: Grant) -> None:
    if any(covers(grant.verb, verb) for verb in Verb):
        again = parse_grant(str(grant))
        same = [Permit([each], BUCKETS) for each in (grant, again)]
        for verb in Verb:
            if verb in BUCKET_VERBS:
                assert same[0].scope_named(verb, "carts") == same[1].scope_named(verb, "carts")
            elif grant.bucket == EVERY:
                assert same[0].has(verb) == same[1].has(verb)
    assert Grant.from_wire(grant.to_wire()) == grant


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("reed:carts", "no verb"),
        ("", "no verb"),
        ("admin", "no verb"),
        ("admin.read:carts", "not about buckets"),
        ("read:", "names no bucket"),
        ("read:/x", "names no bucket"),
        ("read:carts/", "empty prefix"),
        ("*:carts/x", "a prefix is for"),
        ("bucket.drop:carts/x", "a prefix is for"),
        ("read:two words", "space"),
        ("read:carts/hex:0g", "non-hexadecimal"),
        ("read:carts/" + "x" * (GRANT_PREFIX_BYTES_MAX + 1), "over"),
    ],
)
def test_what_is_no_grant_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_grant(text)
