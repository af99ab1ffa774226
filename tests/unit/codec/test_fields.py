"""Checked reading of plain maps: the value as it is, or ValueError naming the field; never another exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leafdb.codec import fields

GOOD: dict[str, Any] = {"n": 5, "b": b"abc", "t": True, "l": [1, 2]}


def test_good_values_come_back_unchanged() -> None:
    assert fields.as_map(GOOD, "m") is GOOD
    assert fields.int_field(GOOD, "n", low=5, high=5) == 5
    assert fields.bytes_field(GOOD, "b", low=3, high=3) == b"abc"
    assert fields.bool_field(GOOD, "t") is True
    assert fields.list_field(GOOD, "l", items_max=2) == [1, 2]


@pytest.mark.parametrize(
    "read",
    [
        lambda: fields.as_map([], "m"),
        lambda: fields.int_field(GOOD, "gone"),
        lambda: fields.int_field(GOOD, "t"),
        lambda: fields.int_field(GOOD, "n", high=4),
        lambda: fields.int_field(GOOD, "n", low=6),
        lambda: fields.bytes_field(GOOD, "n", high=9),
        lambda: fields.bytes_field(GOOD, "b", high=2),
        lambda: fields.bytes_field(GOOD, "b", low=4, high=9),
        lambda: fields.bool_field(GOOD, "n"),
        lambda: fields.list_field(GOOD, "l", items_max=1),
        lambda: fields.list_field(GOOD, "b", items_max=9),
    ],
)
def test_anything_else_is_a_value_error(read: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        read()
