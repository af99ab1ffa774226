"""`Pydantic(model)` and `Msgspec(type)` give back what they were given, or refuse as the codecs of the base install do:
a type at construction, a value or bytes when they do not fit. Without its library each says what to install."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

import leafdb
from leafdb import BLIND, Msgspec, Pydantic
from unit.client.fake_node import FakeCluster


def library() -> Any:
    return pytest.importorskip("msgspec", reason="msgspec is not installed: pip install 'leafdb[codecs]'")


@dataclass(frozen=True)
class Line:
    item: str
    count: int = 1


@dataclass(frozen=True)
class Order:
    id: int
    lines: tuple[Line, ...] = ()
    at: datetime | None = None
    tags: dict[str, list[float]] = field(default_factory=dict)
    note: str | None = None
    blob: bytes = b""


ORDER = Order(7, (Line("tea", 2),), datetime(2026, 11, 22, 9, 30, tzinfo=UTC), {"x": [1.5]}, "ü", b"\x00\xff")


# -- msgspec


def test_msgspec_carries_dataclasses_and_structs() -> None:
    msgspec = library()
    codec = Msgspec(Order)
    back = codec.decode(codec.encode(ORDER))
    assert back == ORDER
    assert back is not ORDER
    assert type(back.lines[0]) is Line
    assert repr(codec) == "Msgspec(Order)"
    point: Any = msgspec.defstruct("Point", [("x", int), ("y", float, 0.0)])
    kind: Any = list.__class_getitem__(point)
    points: Any = Msgspec(kind)
    assert points.decode(points.encode([point(1), point(2, math.inf)])) == [point(1), point(2, math.inf)]
    assert math.isnan(points.decode(points.encode([point(1, math.nan)]))[0].y)


def test_msgspec_gives_equal_bytes_for_equal_values() -> None:
    library()
    codec: Any = Msgspec(dict[str, int])
    assert codec.encode({"a": 1, "b": 2}) == codec.encode({"b": 2, "a": 1})


@pytest.mark.parametrize("kind", [complex, type, Callable[[], int], ModuleType, int | complex])
def test_msgspec_refuses_types_at_construction(kind: Any) -> None:
    library()
    with pytest.raises(leafdb.ConfigError, match="Msgspec"):
        Msgspec(kind)


@pytest.mark.parametrize(
    "value", [Order("7"), Order(7, tags={"x": ["y"]}), Order(1 << 70), Line("tea"), 5, None]  # type: ignore[arg-type, list-item]
)  # fmt: skip
def test_msgspec_writes_nothing_that_it_could_not_read(value: Any) -> None:
    library()
    with pytest.raises(leafdb.DataError):
        Msgspec(Order).encode(value)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_data_error_to_msgspec(data: bytes) -> None:
    library()
    codec = Msgspec(Order)
    with contextlib.suppress(leafdb.DataError):
        assert isinstance(codec.decode(data), Order)


ORDERS = st.builds(
    Order,
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.lists(st.builds(Line, st.text(), st.integers(0, 9)), max_size=3).map(tuple),
    st.none() | st.datetimes(timezones=st.just(UTC)),
    st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False)), max_size=3),
    st.none() | st.text(),
    st.binary(max_size=20),
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(ORDERS)
def test_any_order_comes_back_from_msgspec(order: Order) -> None:
    library()
    codec = Msgspec(Order)
    assert codec.decode(codec.encode(order)) == order


# -- pydantic


class Item(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    item: str = pydantic.Field(alias="Item-Name")
    count: int = pydantic.Field(default=1, gt=0)

    @pydantic.computed_field
    def double(self) -> int:
        return self.count * 2


class Basket(BaseModel):
    owner: str
    lines: tuple[Item, ...] = ()
    at: datetime | None = None
    weight: float = 0.0


class Bag(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Shelf(BaseModel):
    bags: list[Bag]


class Careless(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str


class Odd(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    module: ModuleType


TEA = Item.model_validate({"item": "tea", "count": 2})


def test_pydantic_carries_models_by_the_names_of_their_fields() -> None:
    codec = Pydantic(Basket)
    basket = Basket(owner="ann", lines=(TEA,), at=datetime(2026, 1, 1, tzinfo=UTC))
    data = codec.encode(basket)
    assert b'"item":"tea"' in data, "an alias is for the web"
    assert b"double" not in data, "what is computed is not stored"
    back = codec.decode(data)
    assert back == basket
    assert back is not basket
    assert type(back.lines[0]) is Item
    assert repr(codec) == "Pydantic(Basket)"


def test_a_stored_field_the_model_has_not_is_an_error_unless_it_says_otherwise() -> None:
    with pytest.raises(leafdb.DataError, match="colour"):
        Pydantic(Basket).decode(b'{"owner":"ann","colour":"red"}')
    bag = Bag.model_validate({"name": "a", "colour": "red"})
    assert Pydantic(Bag).decode(Pydantic(Bag).encode(bag)) == bag
    shelf = Shelf(bags=[bag])
    assert Pydantic(Shelf).decode(Pydantic(Shelf).encode(shelf)) == shelf
    assert Pydantic(Careless).decode(b'{"name":"a","colour":"red"}') == Careless(name="a")


@pytest.mark.parametrize("wrong", [int, dict, Order, Bag(name="a"), None, Odd, BaseModel, Bag | None])
def test_pydantic_refuses_what_is_no_model_at_construction(wrong: Any) -> None:
    with pytest.raises(leafdb.ConfigError, match="Pydantic"):
        Pydantic(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        Basket(owner="ann", lines=(TEA.model_copy(update={"count": -1}),)), Basket.model_construct(owner=5),
        Basket(owner="ann", weight=math.nan), Order(1), TEA, 5,
    ],
    ids=["a broken rule", "a wrong type", "no number", "a dataclass", "another model", "an int"],
)  # fmt: skip
def test_pydantic_writes_nothing_that_it_could_not_read(wrong: Any) -> None:
    with pytest.raises(leafdb.DataError):
        Pydantic(Basket).encode(wrong)


BASKETS = st.builds(
    Basket,
    owner=st.text(),
    lines=st.lists(st.just(TEA), max_size=3).map(tuple),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
    weight=st.floats(allow_nan=False, allow_infinity=False),
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(BASKETS)
def test_any_basket_comes_back_from_pydantic(basket: Basket) -> None:
    codec = Pydantic(Basket)
    assert codec.decode(codec.encode(basket)) == basket


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_a_model_or_a_data_error_to_pydantic(data: bytes) -> None:
    with contextlib.suppress(leafdb.DataError):
        assert isinstance(Pydantic(Basket).decode(data), Basket)


# -- both


def test_models_live_in_buckets_like_any_value() -> None:
    library()
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        db.create_bucket("b")
        orders = db.bucket("b", codec=Msgspec(Order), merge=lambda one, other: one if one.id > other.id else other)
        orders.put("k", ORDER, after=BLIND)
        assert orders.get("k") == ORDER
        baskets = db.bucket("b", codec=Pydantic(Basket))
        with pytest.raises(leafdb.DataError):
            baskets.get("k")
        wrong: Any = ORDER
        with pytest.raises(leafdb.DataError):
            baskets.put("k", wrong, after=BLIND)


@pytest.mark.parametrize(("codec", "package"), [("Msgspec", "msgspec"), ("Pydantic", "pydantic")])
def test_without_its_library_a_codec_says_what_to_install(codec: str, package: str) -> None:
    code = (
        "import sys, leafdb\n"
        f"sys.modules['{package}'] = None\n"
        "try:\n"
        f"    leafdb.{codec}(dict)\n"
        "except leafdb.ConfigError as error:\n"
        f"    assert 'needs the package {package}' in str(error), error\n"
        "    assert \"pip install 'leafdb[codecs]'\" in str(error), error\n"
        "else:\n"
        "    sys.exit('made without its library')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_naming_the_codecs_loads_neither_library() -> None:
    code = (
        "import sys, leafdb\nleafdb.Msgspec, leafdb.Pydantic\nassert not {'msgspec', 'pydantic'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
