"""Purge horizons: of each partition the stamp below which every owner is proved to have had everything (page 0008).

A horizon only ever rises, and stays when owners change: who becomes an owner does so by having everything, too. Beside
the stamp stands the range epoch under which it was proved. Packed as runs of varints (length, stamp, epoch), since a
proof raises many partitions to one stamp. The change that raises them is in `horizon_change.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from leafdb.codec.varint import decode_varint, encode_varint
from leafdb.model.hlc import STAMP_MAX
from leafdb.types import Epoch

RUN_BYTES_MAX: Final = 3 * 10


class Horizon(NamedTuple):
    """Of one partition."""

    stamp: int
    """0: nothing has been proved."""
    epoch: Epoch
    """The range epoch it was proved under; 0 with a stamp of 0."""


UNPROVED: Final = Horizon(0, Epoch(0))


def highest(known: Iterable[Sequence[Horizon]]) -> tuple[Horizon, ...]:
    """Of each partition the highest of these; those who know of none may be among them."""
    return tuple(max(each) for each in zip(*filter(None, known), strict=True))


def pack_horizons(horizons: Sequence[Horizon]) -> bytes:
    """Runs of equal ones."""
    return b"".join(
        encode_varint(len(list(run))) + encode_varint(horizon.stamp) + encode_varint(horizon.epoch)
        for horizon, run in groupby(horizons)
    )


def unpack_horizons(data: bytes, partitions: int) -> tuple[Horizon, ...]:
    """Those of so many partitions. ValueError when the runs do not add up to that."""
    horizons: list[Horizon] = []
    offset = 0
    while offset < len(data):
        length, offset = decode_varint(data, offset)
        stamp, offset = decode_varint(data, offset)
        epoch, offset = decode_varint(data, offset)
        if not 1 <= length <= partitions - len(horizons):
            raise ValueError(f"a run of {length} horizons where {partitions - len(horizons)} are left")
        horizons.extend([Horizon(stamp, Epoch(epoch))] * length)
    if len(horizons) != partitions:
        raise ValueError(f"horizons of {len(horizons)} partitions, not {partitions}")
    return tuple(horizons)


def check_horizons(horizons: Sequence[Horizon], *, range_epochs: Sequence[Epoch]) -> list[str]:
    """Everything that is wrong with them; to have none is sound, to have only unproved ones is not."""
    if not horizons:
        return []
    if len(horizons) != len(range_epochs):
        return [f"{len(horizons)} horizons for {len(range_epochs)} partitions"]
    problems = []
    if all(horizon == UNPROVED for horizon in horizons):
        problems.append("horizons are there, and none is proved")
    pairs = zip(horizons, range_epochs, strict=True)
    if any(
        horizon != UNPROVED and not (1 <= horizon.stamp <= STAMP_MAX and 1 <= horizon.epoch <= epoch)
        for horizon, epoch in pairs
    ):
        problems.append("a horizon lies beyond all stamps, or was proved under an epoch that its range never had")
    return problems
