"""The statements of the programs that random-program clients run (workload_program.py).

Variables are numbers; what they hold is a key and a context. A `node` of None leaves the way to the real client.
"""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.sim.recorder import ReadHow, WriteHow
from leafdb.types import NodeId


@dataclass(frozen=True, slots=True)
class Get:
    """Read a key into a variable."""

    key: str
    into: int
    how: ReadHow
    node: NodeId | None


@dataclass(frozen=True, slots=True)
class Set:
    """Write a key, or delete it, with the context in a variable if that is of this key, and keep the new context."""

    key: str
    variable: int | None
    how: WriteHow
    node: NodeId | None
    delete: bool = False
    patience_s: float | None = None
    """When to give up waiting."""


@dataclass(frozen=True, slots=True)
class Change:
    """Read a key and at once write over what was read."""

    key: str
    node: NodeId | None


@dataclass(frozen=True, slots=True)
class GetMany:
    """Read keys together."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetMany:
    """Write keys together, with whatever variables are theirs."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scan:
    """Scan everything."""

    page_size: int
    part: int | None


@dataclass(frozen=True, slots=True)
class Shelf:
    """The rows of one partition key."""

    part: str
    start: str | None
    stop: str | None
    reverse: bool


@dataclass(frozen=True, slots=True)
class Operate:
    """What operators do: the verb, and the name of a bucket."""

    verb: str
    name: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Block:
    """Statements in order, or side by side; `times` over."""

    body: tuple[Statement, ...]
    times: int = 1
    parallel: bool = False


Statement = Get | Set | Change | GetMany | SetMany | Scan | Shelf | Operate | Pause | Block
