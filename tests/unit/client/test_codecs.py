"""Codecs give back what they were given, or refuse: a type at construction, a value or bytes when they do not fit."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, NewType, Optional, TypedDict, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leafdb
from leafdb import CBOR, JSON, Raw, Text


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Name(StrEnum):
    ANN = "ann"


UserId = NewType("UserId", int)


@dataclass(frozen=True)
class Line:
    item: str
    count: int = 1


@dataclass
class Order:
    id: UserId
    lines: list[Line]
    colour: Colour
    at: datetime
    day: date | None = None
    hour: time | None = None
    tags: dict[str, tuple[int, ...]] = field(default_factory=dict)
    pair: tuple[str, float] = ("", 0.0)
    kind: Literal["a", "b", 3] = "a"
    note: Annotated[Optional[str], "whatever"] = None  # noqa: UP045  the old spelling must work
    either: Union[int, str, list[int]] = 0  # noqa: UP007
    parent: Order | None = None
    total: int = field(default=0, init=False)


@dataclass
class Blob:
    data: bytes
    size: int


class Shape(TypedDict):
    a: int


NOWHERE: Any = "a name that resolves to nothing"

ORDER = Order(
    UserId(7),
    [Line("tea", 2)],
    Colour.BLUE,
    datetime(2026, 11, 21, 12, 30, 1, 5, tzinfo=timezone(timedelta(hours=-3))),
    day=date(2026, 2, 28),
    hour=time(23, 59),
    tags={"x": (1, 2)},
    pair=("p", 2.5),
    kind=3,
    note="ü\n\u2028",
    either=[1],
    parent=Order(UserId(1), [], Colour.RED, datetime(2026, 1, 1, tzinfo=UTC)),
)


@pytest.mark.parametrize("make", [JSON, CBOR])
def test_a_dataclass_of_everything_comes_back_equal_and_fresh(make: Any) -> None:
    codec = make(Order)
    back = codec.decode(codec.encode(ORDER))
    assert back == ORDER
    assert back is not ORDER
    assert type(back.lines[0]) is Line
    assert back.at.utcoffset() == timedelta(hours=-3)
    assert repr(codec) == f"{make.__name__}(Order)"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 5), (int, -(10**30)), (float, 0.1), (float, 1e300), (bool, True), (str, "ü"), (type(None), None),
        (dict, {"a": [1, None, {"b": 2.5}]}), (list, [1, "a"]), (list[int], []), (dict[str, Any], {"": 0}),
        (int | float, 1), (int | float, 1.0), (float | int, 1), (int | None, None), (Colour, Colour.RED),
        (Level, Level.LOW), (Name, Name.ANN), (object, [[]]), (datetime, datetime(1, 1, 1)),  # noqa: DTZ001
        (tuple[()], ()), (UserId, 3), (Colour | int, Colour.RED),
    ],
)  # fmt: skip
def test_json_carries(kind: Any, value: Any) -> None:
    codec: Any = JSON(kind)
    back = codec.decode(codec.encode(value))
    assert back == value
    assert type(back) is type(value)


def test_cbor_carries_bytes_and_bounds_integers() -> None:
    codec = CBOR(Blob)
    assert codec.decode(codec.encode(Blob(b"\x00\xff", 3))) == Blob(b"\x00\xff", 3)
    big: Any = CBOR(int)
    with pytest.raises(leafdb.DataError):
        big.encode(1 << 64)
    anything: Any = CBOR(dict)
    assert anything.decode(anything.encode({"a": b"b"})) == {"a": b"b"}
    with pytest.raises(leafdb.DataError):
        anything.encode({"a": [1 << 70]})


@pytest.mark.parametrize(
    "kind",
    [
        bytes, set, set[int], frozenset, complex, Decimal, timedelta, dict[int, str], list[bytes], Line | Order,
        str | datetime, Colour | str, int | Level, dict | list | Order, object | None, Shape,
        type, list[NOWHERE], Literal[b"x"], Blob, Enum("E", {"A": (1, 2)}), Enum("Empty", {}),
    ],
)  # fmt: skip
def test_json_refuses_types_it_cannot_carry_at_construction(kind: Any) -> None:
    with pytest.raises(leafdb.ConfigError):
        JSON(kind)


def test_a_refusal_names_the_field() -> None:
    with pytest.raises(leafdb.ConfigError, match=r"JSON\.data: bytes cannot be carried: JSON has no bytes"):
        JSON(Blob)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, True), (int, "1"), (int, 1.0), (float, "1"), (str, b""), (str, None), (bool, 1), (list[int], ("a",)),
        (list[int], ["a"]), (dict, {1: 2}), (dict, {"a": {1, 2}}), (float, float("nan")), (dict, {"a": float("inf")}),
        (Line, {"item": "x"}), (Line, Line(5)), (Colour, "red"), (datetime, date(2026, 1, 1)),  # type: ignore[arg-type]
        (date, datetime(2026, 1, 1, tzinfo=UTC)), (tuple[int, int], (1,)), (Literal["a"], "b"), (str, "\ud800"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_data_errors(kind: Any, value: Any) -> None:
    codec: Any = JSON(kind)
    with pytest.raises(leafdb.DataError):
        codec.encode(value)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (int, b""), (int, b"1.5"), (int, b"true"), (int, b"{"), (int, b"\xff"), (int, b"1 2"), (float, b"NaN"),
        (Line, b'{"item":"x","colour":"red"}'), (Line, b"{}"), (Line, b'{"item":5}'), (Line, b"[]"),
        (Colour, b'"green"'), (Colour, b"[]"), (Colour, b"{}"), (datetime, b'"yesterday"'), (list, b"[" * 100_000),
        (int, b"9" * 10_000), (int | None, b'"x"'), (tuple[int, int], b"[1]"), (Literal["a"], b'["a"]'),
    ],
)  # fmt: skip
def test_stored_bytes_that_do_not_fit_are_data_errors(kind: Any, data: bytes) -> None:
    codec: Any = JSON(kind)
    with pytest.raises(leafdb.DataError):
        codec.decode(data)


def test_a_stored_field_the_class_has_not_is_an_error_not_a_loss() -> None:
    with pytest.raises(leafdb.DataError, match="no field 'colour'"):
        JSON(Line).decode(b'{"item":"x","colour":"red"}')


def test_a_class_that_refuses_its_fields_is_a_data_error() -> None:
    @dataclass
    class Positive:
        number: int

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("negative")

    with pytest.raises(leafdb.DataError, match="negative"):
        JSON(Positive).decode(b'{"number":-1}')


def test_raw_and_text() -> None:
    raw: Any = Raw()
    wrong: Any
    assert raw.encode(bytearray(b"x")) == b"x"
    assert type(raw.encode(memoryview(b"x"))) is bytes
    for wrong in ("x", 5, None):
        with pytest.raises(leafdb.DataError):
            raw.encode(wrong)
    text: Any = Text()
    assert text.decode(text.encode("ü")) == "ü"
    for wrong in (b"x", None, "\ud800"):
        with pytest.raises(leafdb.DataError):
            text.encode(wrong)
    with pytest.raises(leafdb.DataError):
        text.decode(b"\xff")


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(TREES)
def test_any_tree_comes_back(tree: Any) -> None:
    for codec in (JSON(dict[str, Any]), CBOR(dict[str, Any])):
        assert codec.decode(codec.encode({"tree": tree})) == {"tree": tree}


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_data_error(data: bytes) -> None:
    codecs: list[Any] = [JSON(Order), JSON(dict), CBOR(Order), CBOR(dict), Text()]
    for codec in codecs:
        with contextlib.suppress(leafdb.DataError):
            codec.decode(data)
