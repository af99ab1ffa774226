"""Codecs for the models of two libraries: `Msgspec(type)` and `Pydantic(model)`.

Each library is imported when such a codec is made and never before: the base install has neither. It is asked for the
JSON schema of what it shall carry, for there it says what it could not write or read; so what cannot be carried is a
ConfigError at construction, as with `JSON` and `CBOR`. Neither library checks what it writes, so a value is read back
before its bytes are stored: one that would not come back is a DataError now, and not for whoever reads it later.

    Msgspec     MessagePack: quick; bytes, NaN and moments as they are; fields by name
    Pydantic    JSON by the fields' own names: aliases are for the web, and computed fields are not stored
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from leafdb.errors import ConfigError, DataError

T = TypeVar("T")

_PYDANTIC_MIN: Final = (2, 12)
_REMEDY: Final = "run pip install 'leafdb[codecs]'"


class PydanticModel(Protocol):
    """What `Pydantic` needs of a model: every subclass of pydantic.BaseModel has it."""

    def model_dump_json(self) -> str:
        """The model as JSON."""
        ...

    @classmethod
    def model_validate_json(cls, json_data: bytes, /) -> Self:
        """The model that JSON is."""
        ...


M = TypeVar("M", bound=PydanticModel)


class Msgspec(Generic[T]):
    """MessagePack of a type that msgspec knows: a Struct, a dataclass, a standard type, and what is made of them.

    What becomes of a stored field that the type has not is the type's own say: `forbid_unknown_fields=True` refuses it,
    as `JSON` does; without that msgspec drops it.
    """

    def __init__(self, kind: type[T]) -> None:
        msgspec = _library("msgspec", "Msgspec")
        self._kind = kind
        try:
            msgspec.json.schema(kind)
            self._encode: Any = msgspec.msgpack.Encoder(order="deterministic").encode
            self._decode: Any = msgspec.msgpack.Decoder(kind).decode
        except (TypeError, ValueError, NameError) as error:
            raise ConfigError(f"Msgspec({_name(kind)}) cannot be made: {error}") from None

    def encode(self, value: T, /) -> bytes:
        """MessagePack. Raises DataError for a value that is not of the type."""
        if isinstance(self._kind, type) and not isinstance(value, self._kind):
            raise DataError(f"{self!r} stores {_name(self._kind)}, not {type(value).__name__}")
        try:
            data: bytes = self._encode(value)
            self._decode(data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"{self!r} cannot write this value: {error}") from None
        return data

    def decode(self, data: bytes, /) -> T:
        """The value that MessagePack is."""
        try:
            value: T = self._decode(data)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise DataError(f"{self!r} cannot read the stored value: {error}") from None
        return value

    def __repr__(self) -> str:
        return f"Msgspec({_name(self._kind)})"


class Pydantic(Generic[M]):
    """JSON of a pydantic model.

    A stored field that the model has not is a DataError, as with `JSON`: dropping it would lose it at the next write. A
    model that says something else (`extra=` in its configuration) is asked.
    """

    def __init__(self, model: type[M]) -> None:
        pydantic = _library("pydantic", "Pydantic")
        if tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) < _PYDANTIC_MIN:
            raise ConfigError(f"Pydantic(...) needs pydantic 2.12 or newer, not {pydantic.VERSION}: {_REMEDY}")
        base = pydantic.BaseModel
        if not isinstance(model, type) or not issubclass(model, base) or model is base:
            raise ConfigError(f"Pydantic({_name(model)}) cannot be made: a subclass of pydantic.BaseModel is wanted")
        self._model: Any = model
        try:
            self._extra = "forbid" if _silent_on_extra_fields(model) else None
        except (RuntimeError, TypeError, ValueError, NameError) as error:
            raise ConfigError(f"Pydantic({_name(model)}) cannot be made: {error}") from None

    def encode(self, value: M, /) -> bytes:
        """JSON in UTF-8. Raises DataError for a value that does not keep its model's rules."""
        if not isinstance(value, self._model):
            raise DataError(f"{self!r} stores {_name(self._model)}, not {type(value).__name__}")
        instance: Any = value
        try:
            text: str = instance.model_dump_json(by_alias=False, round_trip=True, warnings="error")
            data = text.encode()
            self._read(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{self!r} cannot write this value: {error}") from None
        return data

    def decode(self, data: bytes, /) -> M:
        """The model that JSON is."""
        try:
            return self._read(data)
        except (TypeError, ValueError, RecursionError) as error:
            raise DataError(f"{self!r} cannot read the stored value: {error}") from None

    def _read(self, data: bytes) -> M:
        value: M = self._model.model_validate_json(data, by_alias=False, by_name=True, extra=self._extra)
        return value

    def __repr__(self) -> str:
        return f"Pydantic({_name(self._model)})"


def _silent_on_extra_fields(model: Any) -> bool:
    """Whether neither the model nor one inside it says what is to become of fields it has not. Raises what pydantic
    raises when a field has no JSON form."""
    schema = model.model_json_schema(mode="serialization")
    parts = (schema, *schema.get("$defs", {}).values())
    return "extra" not in model.model_config and not any(part.get("additionalProperties") is True for part in parts)


def _library(name: str, codec: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{codec}(...) needs the package {name}, which is not installed: {_REMEDY}") from error


def _name(kind: object) -> str:
    return str(getattr(kind, "__name__", kind))
