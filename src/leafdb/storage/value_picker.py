"""Which values a merge moves, and which value files deserve a merge of their own: pure, as `compaction_picker` is.

A merge carries the places of values and leaves the values where they are. It moves them for two reasons only:

- Space. Of a file of which less than `value_live_share_min` is live, the dead part is more than what moving the rest
  would write. Files go by their share, the deadest first, within the job's bound of bytes, but always one.
- Few references. A table lists the files it refers to, and the manifest lists that. A merge whose inputs refer to more
  than `value_files_max` brings the smallest parts together in one file, which is in the order of keys: the parts grow
  from merge to merge, so that a value is seldom among the smallest.

The file of a table of level 0 is live as a whole until that table is merged; so it is deeper tables that deserve a job
of their own, and they do when it frees more than the table has to be written for. So of mostly dead files less is dead
than the tables below level 0 are large.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from leafdb.storage.value_files import ValueFiles, ValueMeta
from leafdb.storage.version import TableMeta, Version


def files_to_move_out_of(
    files: ValueFiles,
    inputs: Sequence[TableMeta],
    busy: Collection[int],
    *,
    live_share_min: float,
    files_max: int,
    bytes_max: int,
) -> tuple[ValueMeta, ...]:
    """The value files, ascending, of which a merge of these tables moves what they refer to; none that is busy."""
    held: dict[int, int] = {}
    for meta in inputs:
        for number, size in meta.references:
            held[number] = held.get(number, 0) + size
    stay = held.keys() & set(busy)
    for number in stay:
        del held[number]
    chosen: list[int] = []
    room = bytes_max - sum(meta.size for meta in inputs)
    dead = [number for number in held if files.share(number) < live_share_min]
    for number in sorted(dead, key=lambda number: (files.share(number), number)):
        if not chosen or held[number] <= room:
            chosen.append(number)
            room -= held[number]
    rest = sorted(held.keys() - set(chosen), key=lambda number: (held[number], number))
    if len(stay) + len(rest) + bool(chosen) > files_max:
        chosen += rest[: len(stay) + len(rest) + 1 - files_max]
    return tuple(files.metas[number] for number in sorted(chosen))


def table_to_free_files(version: Version, busy: Collection[int], live_share_min: float) -> TableMeta | None:
    """The table below level 0 that it pays most to merge with itself, for the mostly dead files it holds; None: none.

    It pays when what that frees is more than the table: of each file the dead part, shared out by who holds the rest.
    """
    files = version.values
    shares = {number: files.share(number) for number in files.metas if number not in busy}
    dead = {number: share for number, share in shares.items() if share < live_share_min}
    best, best_gain = None, 1.0
    for tree_id in sorted({files.metas[number].tree_id for number in dead}):
        for meta in version.trees[tree_id]:
            if meta.level == 0 or meta.file_number in busy:
                continue
            freed = sum(size / dead[number] - size for number, size in meta.references if number in dead)
            if freed / meta.size > best_gain:
                best, best_gain = meta, freed / meta.size
    return best
