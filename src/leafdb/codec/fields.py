"""Checked reading of the plain maps that messages become: what a peer sent is believed only after this.

Every function answers the value with its type, or raises ValueError naming the field. A bool is no int. Unknown fields
are ignored, so that a newer peer may add some; missing ones are an error, so that a message never half-exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

UINT64_MAX = (1 << 64) - 1


def as_map(value: object, what: str) -> Mapping[str, Any]:
    """`value` as a map."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not a map")
    return value


def as_list(value: object, what: str, *, items_max: int) -> Sequence[Any]:
    """`value` as a list of at most `items_max` items."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is not a list")
    if len(value) > items_max:
        raise ValueError(f"{what} has {len(value)} items, more than {items_max}")
    return value


def as_int(value: object, what: str, *, low: int = 0, high: int = UINT64_MAX) -> int:
    """`value` as an integer between `low` and `high`, both in."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{what} is not an integer from {low} to {high}")
    return value


def as_bytes(value: object, what: str, *, low: int = 0, high: int) -> bytes:
    """`value` as bytes of a length between `low` and `high`, both in."""
    if type(value) is not bytes or not low <= len(value) <= high:
        raise ValueError(f"{what} is not a byte string of {low} to {high} bytes")
    return value


def as_bool(value: object, what: str) -> bool:
    """`value` as a truth value."""
    if type(value) is not bool:
        raise ValueError(f"{what} is not true or false")
    return value


def map_field(fields: Mapping[str, Any], name: str) -> object:
    """The field called `name`, which must be there."""
    try:
        return fields[name]
    except KeyError:
        raise ValueError(f"field {name} is missing") from None


def int_field(fields: Mapping[str, Any], name: str, *, low: int = 0, high: int = UINT64_MAX) -> int:
    """The integer called `name`."""
    return as_int(map_field(fields, name), name, low=low, high=high)


def bytes_field(fields: Mapping[str, Any], name: str, *, low: int = 0, high: int) -> bytes:
    """The byte string called `name`."""
    return as_bytes(map_field(fields, name), name, low=low, high=high)


def bool_field(fields: Mapping[str, Any], name: str) -> bool:
    """The truth value called `name`."""
    return as_bool(map_field(fields, name), name)


def list_field(fields: Mapping[str, Any], name: str, *, items_max: int) -> Sequence[Any]:
    """The list called `name`."""
    return as_list(map_field(fields, name), name, items_max=items_max)
