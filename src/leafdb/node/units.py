"""Sizes, durations, addresses: raw values of a configuration file to numbers, and back for people.

Each parser takes what TOML may have put there, of any type, and raises ValueError with what to write instead. A size
or duration without a unit is refused: `64` might be bytes, pages or megabytes, and somebody would guess.
"""

from __future__ import annotations

import re
from typing import Any, Final

from leafdb.config import Address, parse_address

SIZES: Final = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
DURATIONS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
QUANTITY: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))? ?([A-Za-z]*)")


def parse_size(value: Any) -> int:
    """`"64MiB"` to bytes."""
    number, fraction, unit = _quantity(value, "a size", '"64MiB"')
    if unit not in SIZES:
        close = next((known for known in SIZES if known.lower() in (unit.lower(), unit.lower() + "b")), None)
        hint = f"; did you mean {close}?" if close else ""
        raise ValueError(f"{unit!r} is no unit of size: use {', '.join(SIZES)}{hint}")
    return _scaled(number, fraction, SIZES[unit], value, "bytes")


def parse_duration(value: Any) -> float:
    """`"250ms"` to seconds."""
    number, fraction, unit = _quantity(value, "a duration", '"250ms"')
    if unit not in DURATIONS_MS:
        raise ValueError(f"{unit!r} is no unit of time: use {', '.join(DURATIONS_MS)}")
    return _scaled(number, fraction, DURATIONS_MS[unit], value, "milliseconds") / 1000


def _quantity(value: Any, what: str, example: str) -> tuple[int, str, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit: write {what} as text, such as {example}")
    if not isinstance(value, str):
        raise ValueError(f"must be {what} such as {example}, not {_type(value)}")
    match = QUANTITY.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not {what} such as {example}")
    number, fraction, unit = match.groups()
    if not unit:
        raise ValueError(f"{value!r} has no unit: write {what} such as {example}")
    return int(number), fraction or "", unit


def _scaled(number: int, fraction: str, unit: int, value: Any, small: str) -> int:
    power: int = 10 ** len(fraction)
    whole, rest = divmod(int(f"{number}{fraction}") * unit, power)
    if rest:
        raise ValueError(f"{value!r} is not a whole number of {small}")
    return whole


def parse_count(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {_type(value)}")
    return value


def parse_flag(value: Any) -> bool:
    """`true` or `false`, and nothing that merely looks like it."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {_type(value)}")
    return value


def parse_one_address(value: Any) -> Address:
    """`"127.0.0.1:7411"`, or an address that is one already (a default)."""
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError(f'must be an address such as "127.0.0.1:7411", not {_type(value)}')
    return parse_address(value)


def parse_addresses(value: Any) -> tuple[Address, ...]:
    """A list of addresses; all the wrong ones are named."""
    if not isinstance(value, list):
        raise ValueError(f'must be a list such as ["10.0.0.1:7412"], not {_type(value)}')
    found: list[Address] = []
    wrong: list[str] = []
    for index, entry in enumerate(value):
        try:
            address = parse_one_address(entry)
            if not address.port or address.wildcard:
                raise ValueError(f"nobody can be reached at {address}")
            found.append(address)
        except ValueError as error:
            wrong.append(f"entry {index}: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(found)


def size_text(size: int) -> str:
    """The largest binary unit that is exact."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % SIZES[unit] == 0:
            return f"{size // SIZES[unit]}{unit}"
    return f"{size}B"


def duration_text(seconds: float) -> str:
    """The largest unit that is exact, down to milliseconds."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if milliseconds and milliseconds % DURATIONS_MS[unit] == 0:
            return f"{milliseconds // DURATIONS_MS[unit]}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def about(seconds: float) -> str:
    """An age for people: whole units, the largest of which there are two."""
    for unit in ("d", "h", "m"):
        if seconds * 1000 >= 2 * DURATIONS_MS[unit]:
            return f"{int(seconds * 1000 // DURATIONS_MS[unit])}{unit}"
    return f"{int(seconds)}s"


def _type(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")
