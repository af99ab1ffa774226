"""Kept trees at a start: what was saved, and what the log has beyond that.

What cannot be read or does not fit is not believed: such a tree is not known, and is built anew beside traffic. A write
in the log that does not say what it replaced (it was logged by a version that kept no trees) makes its tree such a one.
"""

from __future__ import annotations

from typing import Final

import trio

from leafdb.errors import CorruptionError
from leafdb.merkle.kept import LoggedChanges, SavedBucket, SavedTree, bucket_key, decode_saved, tree_key
from leafdb.merkle.tree import Tree
from leafdb.node.engine_reads import read_page
from leafdb.node.kept_trees import TREES_TREE, KeptRange, KeptTrees, place_of
from leafdb.node.logs import Log
from leafdb.storage.engine import Engine
from leafdb.storage.wal_format import WalEntry
from leafdb.types import Durability, TreeId

SLICE_CHANGES: Final = 1_000
SLICE_TREES: Final = 8

log: Log = Log("trees")


async def load(trees: KeptTrees, engine: Engine, partitions: int | None) -> None:
    """Take what the store remembers; `partitions` of the ring, None before there is one. Raises StorageError.

    Buckets that are not found here are for `KeptTrees.installed`."""
    trees.open(engine)
    logged, trees.logged = trees.logged, LoggedChanges()
    if partitions is not None:
        trees.set_partitions(partitions)
        numbers = await _load_saved(trees, partitions)
        await _apply(trees, numbers, logged)


async def _load_saved(trees: KeptTrees, partitions: int) -> dict[int, int]:
    """Take the saved trees; answers their numbers, by place."""
    try:
        buckets, found = await _read(trees.engine)
    except CorruptionError as error:
        log.error("the saved hash trees cannot be read; they are built anew", reason=str(error))
        return {}
    here = set(trees.engine.trees())
    trees.buckets = {TreeId(bucket.bucket) for bucket in buckets if bucket.partitions == partitions} & here
    gone: list[WalEntry] = [
        (TREES_TREE, bucket_key(bucket.bucket), None) for bucket in buckets if TreeId(bucket.bucket) not in here
    ]
    numbers: dict[int, int] = {}
    for saved in found:
        if TreeId(saved.bucket) not in here:
            gone.append((TREES_TREE, tree_key(saved.bucket, saved.partition), None))
        elif TreeId(saved.bucket) in trees.buckets and saved.partition < partitions:
            place = place_of(saved.bucket, saved.partition)
            trees.keep(place, saved.tree).saved = True
            numbers[place] = saved.lsn
    if gone:
        trees.engine.write(gone, Durability.PERIODIC, None)
    return numbers


async def _read(engine: Engine) -> tuple[list[SavedBucket], list[SavedTree]]:
    """Every entry of the TREES tree. Raises CorruptionError where the tree, or an entry of it, cannot be read."""
    buckets: list[SavedBucket] = []
    trees: list[SavedTree] = []
    start = b""
    while True:
        page = await read_page(engine, TREES_TREE, start, None, durability=Durability.ALWAYS)
        for count, (key, value) in enumerate(page.items):
            if not count % SLICE_TREES:
                await trio.lowlevel.checkpoint()
            try:
                saved = decode_saved(key, value)
            except ValueError as error:
                raise CorruptionError(str(error)) from None
            if isinstance(saved, SavedBucket):
                buckets.append(saved)
            else:
                trees.append(saved)
        if page.next_key is None:
            return buckets, trees
        start = page.next_key


async def _apply(trees: KeptTrees, numbers: dict[int, int], logged: LoggedChanges) -> None:
    """Bring the trees from their numbers to the end of the log."""
    doubtful: list[tuple[int, KeptRange]] = []
    for count, change in enumerate(logged):
        if not count % SLICE_CHANGES:
            await trio.lowlevel.checkpoint()
        if TreeId(change.bucket) not in trees.buckets:
            continue
        place = trees.place(TreeId(change.bucket), change.place)
        kept = trees.ranges.get(place)
        if kept is None:
            kept = trees.keep(place, Tree())
        if kept.tree is None or change.lsn <= numbers.get(place, 0):
            continue
        if not change.known:
            trees.keep(place, None)
            doubtful.append((place, kept))
            continue
        kept.tree.change(change.leaf, change.delta, change.keys)
        trees.soil(place, kept)
    if doubtful:
        log.info("the log does not say what it replaced; hash trees are built anew", ranges=len(doubtful))
        for place, kept in doubtful:
            trees.save(place, kept)
    for kept in trees.dirty.values():
        trees.measure(kept)
