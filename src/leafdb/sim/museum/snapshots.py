"""The room of bad copies: what makes a snapshot that is not one, or one that costs the store."""

from __future__ import annotations

from functools import partial
from typing import Final

from leafdb.sim.museum.storage import store_mutation
from leafdb.testing.violation import Invariant

FILES: Final = "leafdb.storage.snapshot_files"
DRIVER: Final = "leafdb.storage.snapshots"
LOST: Final = (Invariant.PREFIX_DURABLE, Invariant.NO_PHANTOMS)


_snapshot: Final = partial(store_mutation, caught_by=LOST, seeds_max=60)


MUTATIONS: Final = (
    _snapshot(
        "snapshot-links-not-synced",
        "A snapshot gets its name before those of its links are durable: after a power cut they are gone.",
        (FILES, "    for directory in directories:\n        inside.sync_dir(directory)\n", ""),
    ),
    _snapshot(
        "snapshot-without-memory",
        "A snapshot is of the tables alone: what was acknowledged and is in the log and in memory is not in it.",
        (
            "leafdb.storage.engine",
            "        self.flush_soon(partial(self._snapshots.take, name, self.identity, trees, taken_ms))\n",
            "        self._later(partial(self._snapshots.take, name, self.identity, trees, taken_ms))\n",
        ),
    ),
    _snapshot(
        "snapshot-not-pinned",
        "The files of a snapshot's version are not held until they are linked, which takes a while: a compaction takes "
        "them away.",
        (
            DRIVER,
            "        self._executor.submit(partial(make_snapshot, self._fs, plan), partial(self._made, name, pin))\n",
            "        self._tables.release(pin)\n"
            "        link = partial(make_snapshot, self._fs, plan)\n"
            "        def later(hops: int) -> None:\n"
            "            if hops:\n"
            "                other = self._executor if hops % 2 else self._tables._log_executor\n"
            "                other.submit(lambda: None, lambda _: later(hops - 1))\n"
            "            else:\n"
            "                self._executor.submit(link, partial(self._made, name, self._tables.pin()))\n"
            "        later(8)\n",
        ),
        caught_by=(Invariant.SELF_CHECK,),
        seeds_max=100,
    ),
    _snapshot(
        "snapshot-drop-takes-the-stores",
        "Dropping a snapshot unlinks its files under the store's names as well.",
        (
            FILES,
            "    try:\n        remove_tree(fs, path + PART)\n    except OSError:\n        return False\n",
            '    for name in fs.list(f"{path}{PART}/tables"):\n'
            '        if fs.exists(f"tables/{name}"):\n'
            '            fs.unlink(f"tables/{name}")\n'
            "    remove_tree(fs, path + PART)\n",
        ),
        caught_by=(*LOST, Invariant.SPACE_RECLAIMED, Invariant.SELF_CHECK),
    ),
    _snapshot(
        "snapshot-half-dropped",
        "A snapshot that is dropped loses its files before its name: a crash in between leaves half of it.",
        (
            FILES,
            "            fs.rename(path, path + PART)\n        fs.sync_dir",
            "            remove_tree(fs, path)\n        fs.sync_dir",
        ),
    ),
    _snapshot(
        "snapshot-cleared-too-early",
        "Files go while a power cut may still bring the snapshot's name back: half of it is there again. Ours.",
        (
            FILES,
            "        fs.sync_dir(SNAPSHOTS_DIRECTORY)\n        remove_tree(fs, part)\n",
            "        remove_tree(fs, part)\n",
        ),
        seeds_max=100,
    ),
)
