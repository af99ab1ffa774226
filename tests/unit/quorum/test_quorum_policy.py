"""A plan refuses no write that worked before it or will work after it, and lets none be counted for less."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from leafdb.model.bucket import BucketProperties
from leafdb.quorum.policy import (
    ALL,
    DEFAULT,
    MAJORITY,
    NONE,
    ImpossibleQuorum,
    JointWritePolicy,
    TooFewMembers,
    WritePolicy,
    joint_read_policy,
    joint_write_policy,
    read_policy,
    write_policy,
)
from support.clusters import bucket

SIZES = [(old, new) for old in range(1, 6) for new in range(1, 6)]
COUNTS = (1, 2, 3, 5, MAJORITY, ALL)


def single(properties: BucketProperties, n: int, w: int, pw: int, dw: int) -> WritePolicy | Exception:
    try:
        return write_policy(properties, n, w=w, pw=pw, dw=dw, sloppy=None)
    except (ImpossibleQuorum, TooFewMembers) as error:
        return error


def joint(properties: BucketProperties, old: int, new: int, w: int, pw: int, dw: int) -> JointWritePolicy | Exception:
    try:
        return joint_write_policy(properties, old, new, w=w, pw=pw, dw=dw, sloppy=None)
    except (ImpossibleQuorum, TooFewMembers) as error:
        return error


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_write_is_refused_in_a_plan_only_if_it_is_both_before_and_after(old: int, new: int) -> None:
    properties = bucket(n=5)
    for w, pw, dw in product(COUNTS, (NONE, *COUNTS), (NONE, 2, ALL)):
        alone = [single(properties, n, w, pw, dw) for n in (old, new)]
        both = joint(properties, old, new, w, pw, dw)
        if all(isinstance(each, Exception) for each in alone):
            larger = alone[old < new]
            assert (type(both), str(both)) == (type(larger), str(larger))
            continue
        assert isinstance(both, JointWritePolicy)
        for resolved, each in zip(both, alone, strict=True):
            assert 1 <= resolved.w <= resolved.n
            assert resolved.pw <= resolved.w
            if isinstance(each, WritePolicy):
                assert resolved == each, "a set that alone would serve it is asked for no more and no less"


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_a_number_above_a_set_counts_as_all_of_it_and_the_other_holds_that_many(old: int, new: int) -> None:
    properties = bucket(n=5)
    for w in range(1, max(old, new) + 1):
        both = joint_write_policy(properties, old, new, w=w, pw=NONE, dw=NONE, sloppy=None)
        assert (both.old.w, both.new.w) == (min(w, old), min(w, new))
        assert max(both.old.w, both.new.w) == w


def test_growing_from_one_to_three_and_back() -> None:
    properties = bucket()
    quorum = joint_write_policy(properties, 1, 3, w=DEFAULT, pw=DEFAULT, dw=DEFAULT, sloppy=None)
    assert quorum == ((1, 1, 0, False, True), (3, 2, 0, False, True))
    numbers = joint_write_policy(properties, 3, 1, w=2, pw=2, dw=1, sloppy=False)
    assert numbers == ((3, 2, 2, True, False), (1, 1, 1, True, False))
    with pytest.raises(TooFewMembers) as refused:
        joint_write_policy(properties, 1, 2, w=3, pw=DEFAULT, dw=DEFAULT, sloppy=None)
    assert (refused.value.alive, refused.value.required) == (2, 3)
    with pytest.raises(ImpossibleQuorum):
        joint_write_policy(properties, 1, 3, w=4, pw=DEFAULT, dw=DEFAULT, sloppy=None)


@pytest.mark.parametrize("names", ["pw", "dw"])
def test_a_write_that_only_a_small_set_can_take_needs_of_the_large_one_what_honours_each_count(names: str) -> None:
    properties = replace(bucket(), w=1)
    counts = {"pw": NONE, "dw": NONE, names: ALL}
    both = joint_write_policy(properties, 1, 3, w=DEFAULT, sloppy=None, **counts)
    assert (both.old.w, both.new.w) == (1, 3)


@pytest.mark.parametrize(("asked", "other"), SIZES)
def test_a_read_is_refused_as_the_set_it_asks_refuses_it_and_never_by_the_other(asked: int, other: int) -> None:
    properties = bucket(n=5)
    for r, pr in product(COUNTS, (NONE, *COUNTS)):
        try:
            alone = read_policy(properties, asked, r=r, pr=pr)
        except (ImpossibleQuorum, TooFewMembers) as error:
            with pytest.raises(type(error), match=str(error)):
                joint_read_policy(properties, asked, other, r=r, pr=pr)
            continue
        both = joint_read_policy(properties, asked, other, r=r, pr=pr)
        assert both.asked == alone
        assert 1 <= both.other.r <= other
        assert both.other.pr <= both.other.r
        try:
            after = read_policy(properties, other, r=r, pr=pr)
        except (ImpossibleQuorum, TooFewMembers):
            continue
        assert both.other == after, "what is shown is held by as many as the same read will ask there"
