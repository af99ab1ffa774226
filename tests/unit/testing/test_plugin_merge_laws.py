"""Promises: check_merge lets true merges pass, and names the law that a false one breaks, with small values."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import strategies as st

from leafdb import JSON, Text
from leafdb.testing import MergeLawBroken, check_merge

FEW = 50
INTS = st.integers()
SETS = st.frozensets(INTS, max_size=4)
COUNTS = st.dictionaries(st.sampled_from("abc"), st.integers(0), max_size=3)


@dataclass
class Cart:
    """What users keep."""

    items: list[str]


def carts_joined(one: Cart, other: Cart) -> Cart:
    return Cart(sorted({*one.items, *other.items}))


def carts_extended(one: Cart, other: Cart) -> Cart:
    one.items.extend(item for item in other.items if item not in one.items)
    return one


def by_maximum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one.keys() | other.keys()}


CARTS = st.builds(lambda items: Cart(sorted(items)), st.sets(st.sampled_from(["egg", "tea"])))


def test_a_union_a_maximum_and_a_vector_of_counters_are_merges() -> None:
    check_merge(lambda one, other: one | other, SETS, examples=FEW)
    check_merge(max, INTS, examples=FEW)
    check_merge(by_maximum, COUNTS, examples=FEW, codec=JSON(dict[str, int]))
    check_merge(carts_joined, CARTS, examples=FEW, codec=JSON(Cart))


@pytest.mark.parametrize(
    ("fn", "strategy", "law", "values"),
    [
        pytest.param(lambda one, other: one + other, st.text(), "idempotent", ("0",), id="concatenation"),
        pytest.param(lambda one, other: other, INTS, "commutative", (0, 1), id="the last one wins"),
        pytest.param(lambda one, other: (one + other) / 2, st.integers(0, 9), "associative", None, id="average"),
        pytest.param(carts_extended, CARTS, "pure", (Cart([]), Cart(["egg"])), id="changes its argument"),
        pytest.param(lambda one, other: random.choice([one, other]), INTS, "deterministic", (0, 1), id="random"),
        pytest.param(
            lambda one, other: one if one[0] > other[0] else other, st.text(), "total", ("", "", ""), id="raises"
        ),
        pytest.param(lambda one, other: max(one, other) + 1, INTS, "idempotent", (0,), id="counts its merges"),
    ],
)
def test_what_is_no_merge_is_caught_by_the_law_it_breaks(
    fn: Callable[[Any, Any], Any], strategy: st.SearchStrategy[Any], law: str, values: tuple[object, ...] | None
) -> None:
    with pytest.raises(MergeLawBroken) as caught:
        check_merge(fn, strategy, examples=FEW)
    assert caught.value.law == law
    if values is not None:  # the smallest there are
        assert caught.value.values == values


def test_dice_that_hypothesis_does_not_know_are_caught() -> None:
    def dice(one: int, other: int) -> int:
        return (one, other)[os.urandom(1)[0] % 2]

    with pytest.raises(MergeLawBroken, match="not deterministic"):
        check_merge(dice, INTS)


def test_an_average_of_floats_is_no_merge() -> None:
    floats = st.floats(-1e9, 1e9)
    with pytest.raises(MergeLawBroken, match="not associative"):
        check_merge(lambda one, other: (one + other) / 2, floats, examples=FEW)


def test_what_a_codec_does_not_bring_back_is_caught() -> None:
    with pytest.raises(MergeLawBroken, match="not storable") as caught:
        check_merge(lambda one, other: one | other, SETS, examples=FEW, codec=Text())
    assert "Text() stores str" in str(caught.value)

    class Short:
        """Keeps eight bits."""

        def encode(self, value: int, /) -> bytes:
            return bytes([value % 256])

        def decode(self, data: bytes, /) -> int:
            return data[0]

    with pytest.raises(MergeLawBroken) as lossy:
        check_merge(max, st.integers(0), examples=FEW, codec=Short())
    assert (lossy.value.law, lossy.value.values) == ("storable", (0, 256))


def test_the_failure_can_be_read() -> None:
    def last_wins(one: int, other: int) -> int:
        return other

    with pytest.raises(MergeLawBroken) as caught:
        check_merge(last_wins, INTS, examples=FEW)
    assert str(caught.value).splitlines() == [
        "test_the_failure_can_be_read.<locals>.last_wins is not commutative:",
        "  a = 0",
        "  b = 1",
        "  but these two differ:",
        "  fn(a, b) = 1",
        "  fn(b, a) = 0",
    ]
