"""Bodies that are one CBOR map: how they are written, and read without trusting the writer.

`decode_map` answers a map or raises ProtocolError; the field readers of `codec.fields` raise ValueError, and a function
marked `@refusing("a scan")` turns those into ProtocolErrors that name the message. Unknown fields are ignored, so that
a newer sender may add some; missing ones are an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from leafdb.codec import cbor
from leafdb.codec.fields import map_field
from leafdb.errors import ProtocolError

P = ParamSpec("P")
T = TypeVar("T")


def encode_map(fields: Mapping[str, object]) -> bytes:
    """The canonical bytes of one map with text keys. A value that CBOR cannot carry is our own bug."""
    return cbor.dumps(dict(fields))


def decode_map(body: bytes, what: str) -> Mapping[str, Any]:
    """The map that `body` is; ProtocolError when it is anything else."""
    try:
        value = cbor.loads(body)
    except cbor.DecodeError as error:
        raise ProtocolError(f"{what} that cannot be read: {error}") from None
    if not isinstance(value, dict) or not all(type(name) is str for name in value):
        raise ProtocolError(f"{what} that is not a map with text keys")
    return value


def refusing(what: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Mark a decoder: a ValueError in it means the other side sent a malformed `what`."""

    def mark(decode: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(decode)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return decode(*args, **kwargs)
            except ValueError as error:
                raise ProtocolError(f"{what} that is malformed: {error}") from None

        return guarded

    return mark


def text_field(fields: Mapping[str, Any], name: str, *, chars_max: int) -> str:
    """The text called `name`."""
    value = map_field(fields, name)
    if type(value) is not str or len(value) > chars_max:
        raise ValueError(f"{name} is not a text of at most {chars_max} characters")
    return value
