"""What callers may ask per request, checked and turned into what the wire says.

Everything here raises ClientMisuse before anything is sent. The combinations are checked against the bucket's nominal
n; what the living cluster is too small for is the nodes' to say (NotEnoughReplicas).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from leafdb.errors import ClientMisuse
from leafdb.limits import REPLICAS_MAX, REQUEST_TIMEOUT_S_MAX, TTL_S_MAX
from leafdb.wire.requests import (
    FLAG_SLOPPY,
    FLAG_STRICT,
    QUORUM_ALL,
    QUORUM_DEFAULT,
    QUORUM_MAJORITY,
    QUORUM_NONE,
)

Quorum = int | Literal["quorum", "all"]
Seconds = float | timedelta


def quorum_number(name: str, value: Quorum | None, *, zero_allowed: bool) -> int:
    """The wire's number for a count; None is the bucket's own."""
    if value is None:
        return QUORUM_DEFAULT
    if value == "quorum":
        return QUORUM_MAJORITY
    if value == "all":
        return QUORUM_ALL
    if type(value) is int and 1 <= value <= REPLICAS_MAX:
        return value
    if value == 0 and type(value) is int and zero_allowed:
        return QUORUM_NONE
    low = 0 if zero_allowed else 1
    raise ClientMisuse(f'{name} is a number from {low} to {REPLICAS_MAX}, "quorum" or "all", not {value!r}')


def count_of(number: int, default: int, n: int) -> int:
    """How many replicas a wire number stands for in a bucket of `n` whose own number is `default`."""
    if number == QUORUM_DEFAULT:
        number = default
    if number == QUORUM_MAJORITY:
        return n // 2 + 1
    if number == QUORUM_ALL:
        return n
    return 0 if number == QUORUM_NONE else number


def sloppy_flags(sloppy: bool | None) -> int:
    """The wire's flags for `sloppy=`; None leaves it to the bucket."""
    if sloppy is None:
        return 0
    if sloppy is True:
        return FLAG_SLOPPY
    if sloppy is False:
        return FLAG_STRICT
    raise ClientMisuse(f"sloppy is True, False or None, not {sloppy!r}")


def seconds_of(name: str, value: Seconds, *, most: float) -> float:
    """A positive duration in seconds, at most `most`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ClientMisuse(f"{name} is a number of seconds or a timedelta, not {value!r}")
    if not 0 < value <= most:
        raise ClientMisuse(f"{name} must be above 0 and at most {most:g} seconds, not {value!r}")
    return float(value)


def timeout_s(value: Seconds) -> float:
    """A call's timeout in seconds."""
    return seconds_of("timeout", value, most=REQUEST_TIMEOUT_S_MAX)


def ttl_ms(value: Seconds | None) -> int:
    """A time to live in milliseconds, at least one; 0 when none is asked for."""
    if value is None:
        return 0
    return max(1, round(seconds_of("ttl", value, most=TTL_S_MAX) * 1000))


def count_limit(name: str, value: int | None) -> int | None:
    """A `limit=`: None or a positive int."""
    if value is not None and (type(value) is not int or value < 1):
        raise ClientMisuse(f"{name} is a positive int or None, not {value!r}")
    return value
