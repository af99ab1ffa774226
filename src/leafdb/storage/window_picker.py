"""Which tables of a tree that is kept by time leave whole, which become one, and which go down after all: pure.

In such a tree almost every entry expires, and will be deleted when it has. Merged level by level, each would be written
again many times before. So its tables stay on level 0, where tables are in the order in which they were written: each
is a *window* of time. Neighbours are merged into one while there are too many. How much time a window spans is told by
a share of the tree and not by a clock: neighbours become one while together they have at most a `windows`-th of its
bytes. At a steady rate that is as much of the time for which entries live; when one of these changes, it follows.

How many there are is bounded: of more than twice as many tables as windows, two neighbours are always that small. There
may be more (`tables_max`), or each table that is flushed would be merged at once, into one that grows.

    dead       all that is in it has expired, and was forgotten (`forgotten`); nothing older lies in its range: it is
               dropped whole. Its deletions have done their work, since there is nothing under them.
    lasting    it has entries that do not expire, or of which nothing was told: merged down, as in any other tree, when
               it is the oldest. So is what has expired while something older lies in its range.

Windows are disjoint in time, and what two of them become has the place that they had. But a recovery writes tables of
what the log holds, and the next one, if it comes soon, writes them again: then several hold the same time, with other
borders. Were two of these merged past a third, what they become could lie above something newer. So all of them become
one first, whatever their size.

Windows that expire are merged with each other first: one entry that lasts keeps a whole window from being dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from leafdb.storage.forgotten import Forgotten
from leafdb.storage.version import TableMeta, TreeVersion


def dead_tables(tree: TreeVersion, busy: Collection[int], forgotten: Forgotten) -> list[TableMeta]:
    """Those that may be dropped whole, together, the oldest first."""
    found: list[TableMeta] = []
    stays: list[TableMeta] = []
    for meta in reversed(list(tree)):  # the oldest first, as far as they overlap
        dead = meta.newest_expiry_ms and meta.file_number not in busy and forgotten.has(meta)
        if dead and not any(older.overlaps(meta.smallest, meta.largest) for older in stays):
            found.append(meta)
        else:
            stays.append(meta)
    return found


def tables_to_settle(
    tree: TreeVersion, busy: Collection[int], forgotten: Forgotten, *, lasting_max: int
) -> list[TableMeta]:
    """The oldest windows that are to be merged down, newest first; none when it is not yet worth it."""
    found: list[TableMeta] = []
    expired = False
    for meta in reversed(tree.levels[0]):
        is_expired = bool(meta.newest_expiry_ms) and forgotten.has(meta)
        if meta.file_number in busy or not (is_expired or not meta.newest_expiry_ms):
            break
        expired = expired or is_expired
        found.append(meta)
    return found[::-1] if expired or len(found) >= lasting_max else []


def windows_to_merge(
    tree: TreeVersion, busy: Collection[int], *, windows: int, tables_max: int, bytes_max: int
) -> list[TableMeta]:
    """Neighbours that are to become one, newest first; none when there are few enough, or none may."""
    tables = tree.levels[0]
    twins = _overlapping(tables)
    if twins:
        return [] if any(meta.file_number in busy for meta in twins) else twins
    if len(tables) <= tables_max:
        return []
    room = min(bytes_max, sum(meta.size for meta in tables) // windows)
    expiring = [bool(meta.newest_expiry_ms) for meta in tables]
    for mixed in (False, True):
        best: tuple[float, int, int] | None = None
        for start, stop, size in _neighbours(tables, busy, room):
            if mixed or all(kind == expiring[start] for kind in expiring[start:stop]):
                cost = size / (stop - start - 1)
                if best is None or cost < best[0]:
                    best = cost, start, stop
        if best is not None:
            return list(tables[best[1] : best[2]])
    return []


def _overlapping(tables: tuple[TableMeta, ...]) -> list[TableMeta]:
    """The newest tables that share a time, with all between them: each was written by a recovery, from one log."""
    group: list[TableMeta] = []
    for meta in tables:
        if group and meta.sequence_max < min(each.sequence_min for each in group):
            if len(group) > 1:
                return group
            group = []
        group.append(meta)
    return group if len(group) > 1 else []


def _neighbours(tables: tuple[TableMeta, ...], busy: Collection[int], room: int) -> Iterator[tuple[int, int, int]]:
    """Every run of two or more that fits, none of it busy: where it starts, where it stops, and its bytes."""
    for start in range(len(tables)):
        size = 0
        for stop in range(start + 1, len(tables) + 1):
            meta = tables[stop - 1]
            size += meta.size
            if meta.file_number in busy or size > room:
                break
            if stop - start > 1:
                yield start, stop, size
