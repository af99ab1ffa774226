"""The workloads by name: shares of each kind of operation, and how keys are drawn.

put, get and mixed are the plain ones. ycsb-a to ycsb-f are the core workloads of the Yahoo! Cloud Serving Benchmark
(Cooper et al., SoCC 2010), a read-modify-write counted as one operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from leafdb.errors import ConfigError

SCAN_KEYS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares that add up to one."""

    name: str
    get: float = 0.0
    put: float = 0.0
    insert: float = 0.0
    scan: float = 0.0
    modify: float = 0.0
    """Get, then put after what was read."""
    keys: str = "uniform"

    @property
    def preloads(self) -> bool:
        """It reads, so its keys must be there."""
        return self.put < 1.0

    def check(self) -> None:
        """The shares add up."""
        assert abs(self.get + self.put + self.insert + self.scan + self.modify - 1.0) < 1e-9, self


MIXES: Final[Mapping[str, Mix]] = {
    mix.name: mix
    for mix in (
        Mix("put", put=1.0),
        Mix("get", get=1.0),
        Mix("mixed", get=0.5, put=0.5),
        Mix("ycsb-a", get=0.5, put=0.5, keys="zipfian"),
        Mix("ycsb-b", get=0.95, put=0.05, keys="zipfian"),
        Mix("ycsb-c", get=1.0, keys="zipfian"),
        Mix("ycsb-d", get=0.95, insert=0.05, keys="latest"),
        Mix("ycsb-e", scan=0.95, insert=0.05, keys="zipfian"),
        Mix("ycsb-f", get=0.5, modify=0.5, keys="zipfian"),
    )
}


def mix_named(name: str) -> Mix:
    """The workload of this name. ConfigError that lists them all."""
    try:
        return MIXES[name]
    except KeyError:
        raise ConfigError(f"{name!r} is no workload: {', '.join(MIXES)}") from None
