"""The filter that tells when a value expires, found by its name: the engine knows no values, its owner's model does.

A name is `package.module:function`, of a pure function of the value's bytes: the time in ms after which nobody sees the
value, never 0; 0 for a value that does not expire, or of which it cannot be told. A name, because jobs go to a process
of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module

DELETED_MS = 1
"""A deletion is seen by nobody at any time."""

Expiry = Callable[[bytes], int]


def load_expiry(name: str) -> Expiry:
    """The filter of that name. ValueError when there is none."""
    module, _, function = name.partition(":")
    try:
        found: Expiry = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no filter {name!r:.80} tells what expires: {error}") from error
    return found


def newest(first_ms: int, second_ms: int) -> int:
    """When both have expired; 0: never, or it is not known."""
    return max(first_ms, second_ms) if first_ms and second_ms else 0


def newest_of(expiry: Expiry, values: Iterable[bytes | None]) -> int:
    """When all of these values have expired; None is a deletion. 0: never, or it is not known."""
    latest = DELETED_MS
    for value in values:
        if value is not None:
            expires_ms = expiry(value)
            if not expires_ms:
                return 0
            latest = max(latest, expires_ms)
    return latest
