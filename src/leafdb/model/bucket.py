"""Bucket properties: a bucket's number, name and habits. Part of the cluster metadata, the same on every node.

Quorum counts are kept as their wire numbers everywhere below the client: 0 the default (in a request: the bucket's; in
a bucket: none, for pr, pw and dw), 1 to 16 literal, 254 "quorum", 255 "all". What the two words come to is decided per
request from the effective n (quorum/policy.py). The numbers are persisted and never change meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from leafdb.codec.fields import as_int, as_map, bool_field, int_field, map_field
from leafdb.limits import BUCKET_NAME_BYTES_MAX, REPLICAS_MAX, TTL_S_MAX
from leafdb.types import FIRST_BUCKET_ID, BucketId, Conflict, Durability

QuorumCount = int
"""A wire number, as above."""

COUNT_NONE: Final = 0
COUNT_QUORUM: Final = 254
COUNT_ALL: Final = 255

BUCKET_ID_MAX: Final = (1 << 32) - 1
TTL_MS_MAX: Final = TTL_S_MAX * 1000

CHANGEABLE: Final = frozenset(("r", "w", "pr", "pw", "dw", "ttl_ms", "sloppy"))
"""What may change while a bucket lives: habits of requests to come. n and the conflict policy decide what lies where
and what it means; durability, what an unclean start may have forgotten of what was written before."""
WHY_FIXED: Final[Mapping[str, str]] = {
    "n": "copies of what is there would have to be made or given up, and no plan of this version does that",
    "conflict": "it says what the values that are there mean",
    "durability": "it says what a node may have forgotten of what is there after a power cut",
    "name": "programs know the bucket by it",
}
"""Why those people ask for cannot."""


def count_from_name(count: int | Literal["quorum", "all"]) -> QuorumCount:
    """The wire number of what a user wrote. Raises ValueError."""
    if count == "quorum":
        return COUNT_QUORUM
    if count == "all":
        return COUNT_ALL
    if type(count) is not int or not 0 <= count <= REPLICAS_MAX:
        raise ValueError(f'a count is 0 to {REPLICAS_MAX}, "quorum" or "all", not {count!r}')
    return count


def count_name(count: QuorumCount) -> int | Literal["quorum", "all"]:
    """What a user reads for a wire number."""
    if count == COUNT_QUORUM:
        return "quorum"
    return "all" if count == COUNT_ALL else count


def count_of(count: QuorumCount, n: int) -> int:
    """How many of `n` replicas a wire number asks for."""
    if count == COUNT_QUORUM:
        return n // 2 + 1
    return n if count == COUNT_ALL else count


@dataclass(frozen=True, slots=True)
class BucketProperties:
    """One bucket. `generation` is the metadata epoch that created it, by which a request proves it means this one."""

    id: BucketId
    name: str
    generation: int
    n: int = 3
    r: QuorumCount = COUNT_QUORUM
    w: QuorumCount = COUNT_QUORUM
    pr: QuorumCount = COUNT_NONE
    pw: QuorumCount = COUNT_NONE
    dw: QuorumCount = COUNT_NONE
    conflict: Conflict = Conflict.SIBLINGS
    durability: Durability = Durability.ALWAYS
    ttl_ms: int = 0
    """Time to live of a write that states none; 0: for ever."""
    sloppy: bool = True

    def to_wire(self) -> dict[str, Any]:
        """A plain map for CBOR."""
        return {
            "id": int(self.id),
            "name": self.name,
            "generation": self.generation,
            "n": self.n,
            "r": self.r,
            "w": self.w,
            "pr": self.pr,
            "pw": self.pw,
            "dw": self.dw,
            "conflict": int(self.conflict),
            "durability": int(self.durability),
            "ttl_ms": self.ttl_ms,
            "sloppy": self.sloppy,
        }

    @classmethod
    def from_wire(cls, value: object) -> BucketProperties:
        """The properties in a decoded map. Raises ValueError when a field is missing, mistyped or out of bounds."""
        fields: Mapping[str, Any] = as_map(value, "bucket")
        name = map_field(fields, "name")
        if not isinstance(name, str):
            raise ValueError("name is not text")
        properties = cls(
            id=BucketId(int_field(fields, "id")),
            name=name,
            generation=int_field(fields, "generation"),
            n=int_field(fields, "n"),
            r=_count_field(fields, "r"),
            w=_count_field(fields, "w"),
            pr=_count_field(fields, "pr"),
            pw=_count_field(fields, "pw"),
            dw=_count_field(fields, "dw"),
            conflict=Conflict(int_field(fields, "conflict")),
            durability=Durability(int_field(fields, "durability")),
            ttl_ms=int_field(fields, "ttl_ms"),
            sloppy=bool_field(fields, "sloppy"),
        )
        problems = check(properties)
        if problems:
            raise ValueError("; ".join(problems))
        return properties


def check(properties: BucketProperties) -> list[str]:
    """Everything wrong with the properties, for the one who asked for them; empty: they can work."""
    problems = _check_identity(properties)
    n = properties.n
    if not 1 <= n <= REPLICAS_MAX:
        return [*problems, f"n={n} is not 1 to {REPLICAS_MAX}"]
    resolved = {name: count_of(getattr(properties, name), n) for name in ("r", "w", "pr", "pw", "dw")}
    for name, count in resolved.items():
        if count > n:
            problems.append(f"{name}={count} is above n={n}")
        elif count < 1 and name in ("r", "w"):
            problems.append(f"{name} must be at least 1")
    for part, whole in (("pr", "r"), ("pw", "w"), ("dw", "w")):
        if resolved[part] > resolved[whole]:
            problems.append(f"{part}={resolved[part]} is above {whole}={resolved[whole]}")
    return problems


def _check_identity(properties: BucketProperties) -> list[str]:
    problems = []
    if not FIRST_BUCKET_ID <= properties.id <= BUCKET_ID_MAX:
        problems.append(f"bucket id {properties.id} is not {FIRST_BUCKET_ID} to {BUCKET_ID_MAX}")
    problems += check_name(properties.name)
    if not 0 <= properties.ttl_ms <= TTL_MS_MAX:
        problems.append(f"ttl of {properties.ttl_ms} ms is not 0 to {TTL_MS_MAX}")
    return problems


def check_name(name: str) -> list[str]:
    """What is wrong with a bucket name: it is printable text without spaces or slashes, of 1 to 128 UTF-8 bytes."""
    if not name:
        return ["a bucket name has at least one character"]
    if not name.isprintable() or " " in name or "/" in name or name.startswith("-"):
        return [f"bucket name {name!r} holds a space, a slash or an unprintable character, or begins with a dash"]
    # isprintable has refused lone surrogates, so the name has UTF-8 bytes.
    if len(name.encode()) > BUCKET_NAME_BYTES_MAX:
        return [f"bucket name of {len(name.encode())} bytes is over {BUCKET_NAME_BYTES_MAX}"]
    return []


def _count_field(fields: Mapping[str, Any], name: str) -> QuorumCount:
    count = as_int(map_field(fields, name), name, high=COUNT_ALL)
    if REPLICAS_MAX < count < COUNT_QUORUM:
        raise ValueError(f"{name}={count} is no count")
    return count
