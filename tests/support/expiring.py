"""Values that say when they expire, for stores of the tests: the filter is named in `EngineConfig.expiry`."""

from __future__ import annotations

from typing import Final


def value_until(expires_ms: int, filling: bytes = b"") -> bytes:
    """A value that expires then; 0: never."""
    return b"%d." % expires_ms + filling


def expires_ms(value: bytes) -> int:
    """When such a value expires; 0: never, or it is no such value."""
    number, dot, _ = value.partition(b".")
    return int(number) if dot and number.isdigit() else 0


EXPIRING: Final = f"{__name__}:{expires_ms.__name__}"
