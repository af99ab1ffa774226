"""What counting costs: microseconds of the put and the get machine for one set of owners, and for two.

    python bench/micro/quorum.py [SECONDS]

Three primaries, w = r = 2, everybody answers. The kinds take turns in short rounds and the median of each is reported,
with its ratio to the first of its group: machines and their moods differ, ratios less. Nothing is asserted.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Final

from leafdb.quorum.get_operation import GetOperation
from leafdb.quorum.joint_get_operation import JointGetOperation
from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.owner_set import OwnerSet
from leafdb.quorum.put_operation import PutOperation
from leafdb.types import NodeId

SECONDS_DEFAULT: Final = 4.0
ROUND_OPERATIONS: Final = 500
A, B, C, D = (NodeId(number) for number in range(1, 5))
OLD: Final = (A, B, C)
NEW: Final = (B, C, D)


def first_of(one: bytes, other: bytes) -> bytes:
    return one


def put_one() -> None:
    put = PutOperation(w=2, pw=0, targets={A: A, B: B, C: C}, spares=())
    put.acked(A)
    put.acked(B)
    put.acked(C)


def put_two() -> None:
    put = JointPutOperation(old=OwnerSet(OLD, w=2), new=OwnerSet(NEW, w=2), targets={A: A, B: B, C: C, D: D}, spares=())
    put.acked(A)
    put.acked(B)
    put.acked(C)
    put.acked(D)


def get_one() -> None:
    get = GetOperation(r=2, pr=0, asked={A, B}, spares=(C,), primaries=OLD, merge=first_of)
    get.answered(A, b"x")
    get.answered(B, b"x")


def _joint_get(asked: set[NodeId]) -> JointGetOperation:
    return JointGetOperation(
        r=2,
        pr=0,
        asked=asked,
        spares=(),
        primaries=OLD,
        merge=first_of,
        other=OwnerSet(NEW, w=2),
        others={B: B, C: C, D: D},
    )


def get_two() -> None:
    get = _joint_get({B, C})
    get.answered(B, b"x")
    get.answered(C, b"x")


def get_two_written_back() -> None:
    get = _joint_get({A, B})
    get.answered(A, b"x")
    get.answered(B, b"x")
    get.written_back(C)
    get.written_back(D)


GROUPS: Final[tuple[dict[str, Callable[[], None]], ...]] = (
    {"put, one set, 3 acks": put_one, "put, two sets, 4 acks": put_two},
    {
        "get, one set": get_one,
        "get, two sets, both hold it": get_two,
        "get, two sets, written back": get_two_written_back,
    },
)


def timed(operation: Callable[[], None]) -> float:
    """Microseconds of one operation, over a short round."""
    started = perf_counter()
    for _ in range(ROUND_OPERATIONS):
        operation()
    return (perf_counter() - started) / ROUND_OPERATIONS * 1e6


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS_DEFAULT
    print(f"{platform.python_implementation()} {platform.python_version()}")
    for group in GROUPS:
        rounds: dict[str, list[float]] = {name: [] for name in group}
        until = perf_counter() + seconds / len(GROUPS)
        while perf_counter() < until:
            for name, operation in group.items():
                rounds[name].append(timed(operation))
        first = median(next(iter(rounds.values())))
        for name, each in rounds.items():
            print(f"{name:32} {median(each):6.2f} us   x {median(each) / first:.2f}")


if __name__ == "__main__":
    main()
