"""N, R, W, PR, PW, DW: what a request asks for, resolved against its bucket and the ring into plain counts.

`"quorum"` and `"all"` count the effective n: min(n, members that own anything), never the living. An impossible
combination is the caller's mistake and says so; a count the cluster is too small for is `too few members`.

**Two sets.** In a plan a range has old and new owners, and their effective n may differ (growing from 1 to 3: 1 and 3).
`joint_write_policy` resolves a write for each set by itself. "quorum" and "all" need no thought. A number may be above
the smaller set's n: growing from 1 to 3, w=2 is refused before the plan and served after it; shrinking, the other way
round. The rules, and why:

- *Refused only if each set alone would refuse it.* What worked before the plan or will work after it works during it.
- *A number above a set's n counts as all of that set.* All members of a set meet every read quorum of it, so no reader
  of it can assume more. The larger set has room for the number itself (else both sets refuse), so the write stands on w
  distinct nodes, as it says, while the plan lasts. (An end with fewer members keeps fewer copies, of this write as of
  every other.)
- *w is at least pw and dw.* With w=1, pw="all" a set of one has nothing against it, and for a set of three no such
  write exists. It is read as the least that honours each of the counts.

So wherever w + r > n for the counts of one set alone, it holds for those of that set in a plan.

A read asks one set, with that set's n, and is refused as that set alone would refuse it: in each phase as before the
plan or as after it. The other set must hold what it shows (joint_get_operation); there `joint_read_policy` bounds
numbers in the same way and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Callable
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


class JointWritePolicy(NamedTuple):
    """How many copies a write needs in the old and in the new owners of its range. `durable` and `sloppy` are equal."""

    old: WritePolicy
    new: WritePolicy


class JointReadPolicy(NamedTuple):
    """How many definitive answers a read needs from the set it asks, and how many of the other must hold what it
    shows."""

    asked: ReadPolicy
    other: ReadPolicy


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
    w_count, pw_count, dw_count = _write_counts(bucket, effective_n, w, pw, dw)
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


def joint_write_policy(
    bucket: BucketProperties, old_n: int, new_n: int, *, w: int, pw: int, dw: int, sloppy: bool | None
) -> JointWritePolicy:
    """Resolve a write of a range in a plan, for the effective n of its old and of its new owners (module docstring).

    Raises what `write_policy` does, if it does so for both: the larger set's reason, which more members do not cure.
    """
    _one_works(lambda n: write_policy(bucket, n, w=w, pw=pw, dw=dw, sloppy=sloppy), old_n, new_n)
    chosen = bucket.sloppy if sloppy is None else sloppy
    both = []
    for n in (old_n, new_n):
        w_count, pw_count, dw_count = (min(count, n) for count in _write_counts(bucket, n, w, pw, dw))
        both.append(WritePolicy(n, max(w_count, pw_count, dw_count), pw_count, dw_count > 0, chosen))
    return JointWritePolicy(*both)


def read_policy(bucket: BucketProperties, effective_n: int, *, r: int, pr: int) -> ReadPolicy:
    """Resolve a read. Raises ImpossibleQuorum or TooFewMembers. Counts are wire numbers."""
    r_count, pr_count = _read_counts(bucket, effective_n, r, pr)
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


def joint_read_policy(bucket: BucketProperties, asked_n: int, other_n: int, *, r: int, pr: int) -> JointReadPolicy:
    """Resolve a read of a range in a plan: the set it asks, and the other, which must hold what it shows.

    Raises what `read_policy` does for the set asked; the other set refuses nothing.
    """
    asked = read_policy(bucket, asked_n, r=r, pr=pr)
    r_count, pr_count = (min(count, other_n) for count in _read_counts(bucket, other_n, r, pr))
    return JointReadPolicy(asked, ReadPolicy(other_n, max(r_count, pr_count), pr_count))


def _write_counts(bucket: BucketProperties, effective_n: int, w: int, pw: int, dw: int) -> tuple[int, int, int]:
    return (
        count_of(w, bucket.w, effective_n, zero_allowed=False, name="w"),
        count_of(pw, bucket.pw, effective_n, zero_allowed=True, name="pw"),
        count_of(dw, bucket.dw, effective_n, zero_allowed=True, name="dw"),
    )


def _read_counts(bucket: BucketProperties, effective_n: int, r: int, pr: int) -> tuple[int, int]:
    return (
        count_of(r, bucket.r, effective_n, zero_allowed=False, name="r"),
        count_of(pr, bucket.pr, effective_n, zero_allowed=True, name="pr"),
    )


def _one_works(resolve: Callable[[int], WritePolicy], old_n: int, new_n: int) -> None:
    """Raises the larger set's refusal when both refuse."""
    try:
        resolve(max(old_n, new_n))
    except (ImpossibleQuorum, TooFewMembers) as refusal:
        try:
            resolve(min(old_n, new_n))
        except (ImpossibleQuorum, TooFewMembers):
            raise refusal from None
