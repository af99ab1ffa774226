"""Differences: small, exact, and useless on any other value than the one they were made for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from leafdb.codec import cbor
from leafdb.ring.difference import apply, difference
from leafdb.ring.metadata import MetadataError
from leafdb.ring.staging import Join
from leafdb.types import BucketId
from support.clusters import bucket, cluster, proposed
from support.ring_changes import committed, finished, staged


def test_a_difference_makes_the_new_value() -> None:
    old = cluster(5, partitions=256).create_bucket(bucket("a")).create_bucket(bucket("b"))
    new = old.create_bucket(bucket("c"), change_id=b"x" * 16).drop_bucket(BucketId(256))
    change = difference(old, new)
    assert apply(old, change) == new
    assert len(change) < len(new.encode()) / 3


def test_equal_values_differ_in_nothing() -> None:
    made = cluster()
    assert apply(made, difference(made, made)) == made


def test_differences_lead_into_the_newer_format_through_it_and_out_again() -> None:
    still = cluster(4)
    ready = staged(still, Join(proposed(7)))
    first = committed(still, Join(proposed(7)))
    done = finished(still, Join(proposed(7)))
    for old, new in pairwise((still, ready, first, done, ready)):
        assert apply(old, difference(old, new)) == new
    assert "unset" not in cbor.loads(difference(still, ready))
    assert cbor.loads(difference(first, done))["unset"] == ["control_epoch", "control_next", "staged"]


def test_a_difference_fits_only_its_base() -> None:
    old = cluster()
    middle = old.create_bucket(bucket("a"))
    new = middle.create_bucket(bucket("b"))
    with pytest.raises(MetadataError, match="another value"):
        apply(old, difference(middle, new))


def test_a_forged_difference_makes_nothing() -> None:
    old = cluster()
    new = old.create_bucket(bucket())
    honest = cbor.loads(difference(old, new))
    forgeries: tuple[object, ...] = (
        {**honest, "set": {**honest["set"], "epoch": 7}},
        {**honest, "set": {**honest["set"], "surprise": 7}},
        {**honest, "buckets": {"set": [{"id": 1}], "drop": []}},
        {**honest, "buckets": {"set": [5], "drop": []}},
        {**honest, "buckets": 5},
        {**honest, "members": {"set": [], "drop": [1]}},
        {**honest, "set": {**honest["set"], "members": 5}, "members": {"set": [], "drop": []}},
        {**honest, "unset": ["members"], "members": {"set": [], "drop": []}},
        {**honest, "unset": ["surprise"]},
        {**honest, "unset": [[]]},
        {**honest, "unset": 5},
        {"base": honest["base"], "made": honest["made"]},
        [],
    )
    for forged in forgeries:
        with pytest.raises(MetadataError):
            apply(old, cbor.dumps(forged))
    with pytest.raises(MetadataError):
        apply(old, b"\xff")
