"""Codecs: between a bucket's values and the bytes that are stored.

A codec is an instance with `encode` and `decode`; these four ship, anything with the two methods will do. There is no
pickle: reading a database must not run code. What a codec cannot write or read is a DataError, whatever it raised.
"""

from __future__ import annotations

import json
from typing import Generic, NoReturn, Protocol, TypeVar

from leafdb.client.schema import PlanBuilder, Unfit
from leafdb.codec import cbor
from leafdb.errors import DataError, LeafdbError

T = TypeVar("T")


class Codec(Protocol[T]):
    """Both ways between a value and its bytes. `decode(encode(value))` equals `value` and is a fresh object."""

    def encode(self, value: T, /) -> bytes:
        """The bytes to store."""
        ...

    def decode(self, data: bytes, /) -> T:
        """The value those bytes are."""
        ...


class Raw:
    """Bytes as they are."""

    def encode(self, value: bytes, /) -> bytes:
        """The same bytes."""
        if type(value) is bytes:
            return value
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        raise DataError(f"Raw() stores bytes, not {type(value).__name__}: name a codec for anything else")

    def decode(self, data: bytes, /) -> bytes:
        """The same bytes."""
        return data

    def __repr__(self) -> str:
        return "Raw()"


class Text:
    """Text as UTF-8."""

    def encode(self, value: str, /) -> bytes:
        """UTF-8 of the text."""
        if not isinstance(value, str):
            raise DataError(f"Text() stores str, not {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"this text has no UTF-8 form: {error}") from None

    def decode(self, data: bytes, /) -> str:
        """The text those bytes are."""
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"the stored value is not UTF-8: {error}") from None

    def __repr__(self) -> str:
        return "Text()"


class JSON(Generic[T]):
    """JSON text of a type: JSON's own types, dataclasses, enums and datetimes by their type hints."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._plan = PlanBuilder(binary=False).build(kind, "JSON")

    def encode(self, value: T, /) -> bytes:
        """Compact JSON in UTF-8."""
        try:
            tree = self._plan.encode(value)
            return json.dumps(tree, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self!r} cannot write this value: {error}") from None

    def decode(self, data: bytes, /) -> T:
        """The value that JSON text is."""
        try:
            value: T = self._plan.decode(json.loads(data, parse_constant=_refuse_constant))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self!r} cannot read the stored value: {error}") from None
        return value

    def __repr__(self) -> str:
        return f"JSON({getattr(self._kind, '__name__', self._kind)})"


class CBOR(Generic[T]):
    """CBOR of a type: what JSON carries, and bytes; smaller and quicker, integers of 64 bits."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._plan = PlanBuilder(binary=True).build(kind, "CBOR")

    def encode(self, value: T, /) -> bytes:
        """Canonical CBOR."""
        try:
            return cbor.dumps(self._plan.encode(value))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self!r} cannot write this value: {error}") from None

    def decode(self, data: bytes, /) -> T:
        """The value that CBOR item is."""
        try:
            value: T = self._plan.decode(cbor.loads(data))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self!r} cannot read the stored value: {error}") from None
        return value

    def __repr__(self) -> str:
        return f"CBOR({getattr(self._kind, '__name__', self._kind)})"


def encoded(codec: Codec[T], value: T) -> bytes:
    """`codec.encode`, with anything a user's codec raises made a DataError."""
    try:
        data = codec.encode(value)
    except LeafdbError:
        raise
    except Exception as error:
        raise DataError(f"{codec!r} cannot write this value: {error!r}") from error
    if type(data) is not bytes:
        raise DataError(f"{codec!r} made {type(data).__name__} of a value: a codec makes bytes")
    return data


def decoded(codec: Codec[T], data: bytes) -> T:
    """`codec.decode`, with anything a user's codec raises made a DataError."""
    try:
        return codec.decode(data)
    except LeafdbError:
        raise
    except Exception as error:
        raise DataError(f"{codec!r} cannot read the stored value: {error!r}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise Unfit(f"JSON has no {name}")
