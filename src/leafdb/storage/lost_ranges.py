"""Ranges of keys that a salvage had to leave out, until whoever follows the store has noted them (decision 0009, 4).

Such a range is a hole: what lay in it is gone from this store, and an older table may show through it, also what a
tombstone in it had deleted. So no read may see the store with the hole before its follower doubts the range; and the
manifest names it from the very edit that makes it until the doubt is on the disk, whatever crash comes between.

A range may say too much, never too little: bounds lie between keys, and many ranges are told as few wider ones.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from leafdb.errors import CorruptionError
from leafdb.limits import LOST_RANGES_MAX
from leafdb.types import TreeId

T = TypeVar("T")

READ_TRIES: Final = 3
"""Before something is taken for lost."""

Range = tuple[bytes, bytes]
"""A closed range of keys: smallest, largest."""

_OF_THE_DISK: Final = (errno.EIO, errno.ENOENT, errno.ENODATA, errno.EILSEQ, errno.EBADMSG)
"""The file, or a part of it, is gone. Other errors say something of the process: too many open files, no right."""


@dataclass(frozen=True, slots=True)
class LostRange:
    """Keys from `smallest` to `largest`, both in, may have been in the table of that number, and could not be read."""

    file_number: int
    tree_id: TreeId
    smallest: bytes
    largest: bytes

    def to_plain(self) -> list[Any]:
        """The persisted form."""
        return [self.file_number, self.tree_id, self.smallest, self.largest]

    @classmethod
    def from_plain(cls, plain: Any) -> LostRange:
        """The reverse of `to_plain`. Raises ValueError."""
        if not isinstance(plain, list) or [type(item) for item in plain] != [int, int, bytes, bytes]:
            raise ValueError("a lost range is a table, a tree and two keys")
        lost = cls(*plain)
        if lost.file_number < 1 or lost.tree_id < 0 or lost.smallest > lost.largest:
            raise ValueError(f"a lost range of table {lost.file_number} that cannot be")
        return lost


def coarsened(ranges: Iterable[Range], count_max: int = LOST_RANGES_MAX) -> tuple[Range, ...]:
    """At most so many disjoint ranges, ascending, that hold all of these: those that touch are one, and while there are
    too many, neighbours are."""
    found: list[Range] = []
    for smallest, largest in sorted(ranges):
        if found and smallest <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], largest))
        else:
            found.append((smallest, largest))
    while len(found) > count_max:
        found = [(pair[0][0], pair[-1][1]) for pair in (found[at : at + 2] for at in range(0, len(found), 2))]
    return tuple(found)


def insistently(read: Callable[[], T]) -> T:
    """What `read` gives, at one of several tries: what was unreadable once need not be. CorruptionError of the last."""
    for _ in range(READ_TRIES - 1):
        try:
            return read()
        except CorruptionError as error:
            if not is_damage(error):
                raise
    return read()


def is_damage(error: CorruptionError) -> bool:
    """Whether the bytes themselves are bad or gone, so that nothing is gained by waiting; False: this process could not
    get at them, and another time may."""
    cause = error.__cause__
    return not isinstance(cause, OSError) or cause.errno in _OF_THE_DISK
