"""N, R, W, PR, PW, DW: what a request asks for, resolved against its bucket and the ring into plain counts.

`"quorum"` and `"all"` count the effective n: min(n, members that own anything), never the living. An impossible
combination is the caller's mistake and says so; a count the cluster is too small for is `too few members`.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from leafdb.model.bucket import BucketProperties

DEFAULT: Final = 0
NONE: Final = 253
MAJORITY: Final = 254
ALL: Final = 255


class WritePolicy(NamedTuple):
    """How many copies a write needs before it is answered."""

    n: int
    w: int
    pw: int
    durable: bool
    """Acknowledgements wait for the sync even where the bucket is periodic (dw was asked for)."""
    sloppy: bool


class ReadPolicy(NamedTuple):
    """How many definitive answers a read needs."""

    n: int
    r: int
    pr: int


class ImpossibleQuorum(ValueError):
    """A combination that no cluster could satisfy; the message names it."""


class TooFewMembers(ValueError):
    """A count above the effective n: right for the bucket, too much for the members there are."""

    def __init__(self, message: str, *, alive: int, required: int) -> None:
        super().__init__(message)
        self.alive = alive
        self.required = required


def count_of(wire: int, default: int, effective_n: int, *, zero_allowed: bool, name: str) -> int:
    """The number a wire count stands for. `default` is the bucket's own wire count."""
    if wire == DEFAULT:
        wire = default
    if wire in (NONE, DEFAULT):
        if not zero_allowed:
            raise ImpossibleQuorum(f"{name} must be at least 1")
        return 0
    if wire == MAJORITY:
        return effective_n // 2 + 1
    if wire == ALL:
        return effective_n
    return wire


def write_policy(
    bucket: BucketProperties, effective_n: int, *, w: int, pw: int, dw: int, sloppy: bool | None
) -> WritePolicy:
    """Resolve a write. Raises ImpossibleQuorum or TooFewMembers. Counts are wire numbers (wire/requests.py)."""
    w_count = count_of(w, bucket.w, effective_n, zero_allowed=False, name="w")
    pw_count = count_of(pw, bucket.pw, effective_n, zero_allowed=True, name="pw")
    dw_count = count_of(dw, bucket.dw, effective_n, zero_allowed=True, name="dw")
    for name, count in (("w", w_count), ("pw", pw_count), ("dw", dw_count)):
        if count > bucket.n:
            raise ImpossibleQuorum(f"{name}={count} is above the bucket's n={bucket.n}")
    if pw_count > w_count:
        raise ImpossibleQuorum(f"pw={pw_count} is above w={w_count}")
    if dw_count > w_count:
        raise ImpossibleQuorum(f"dw={dw_count} is above w={w_count}")
    if w_count > effective_n:
        raise TooFewMembers(
            f"w={w_count}, but only {effective_n} members hold data", alive=effective_n, required=w_count
        )
    return WritePolicy(effective_n, w_count, pw_count, dw_count > 0, bucket.sloppy if sloppy is None else sloppy)


def read_policy(bucket: BucketProperties, effective_n: int, *, r: int, pr: int) -> ReadPolicy:
    """Resolve a read. Raises ImpossibleQuorum or TooFewMembers. Counts are wire numbers."""
    r_count = count_of(r, bucket.r, effective_n, zero_allowed=False, name="r")
    pr_count = count_of(pr, bucket.pr, effective_n, zero_allowed=True, name="pr")
    for name, count in (("r", r_count), ("pr", pr_count)):
        if count > bucket.n:
            raise ImpossibleQuorum(f"{name}={count} is above the bucket's n={bucket.n}")
    if pr_count > r_count:
        raise ImpossibleQuorum(f"pr={pr_count} is above r={r_count}")
    if r_count > effective_n:
        raise TooFewMembers(
            f"r={r_count}, but only {effective_n} members hold data", alive=effective_n, required=r_count
        )
    return ReadPolicy(effective_n, r_count, pr_count)
