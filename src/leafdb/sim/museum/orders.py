"""The room of orders: files that go before what replaces them is durable, or that are trusted before they are."""

from __future__ import annotations

from typing import Final

from leafdb.sim.museum.storage import LOST, MANIFEST, RECOVERY, store_mutation
from leafdb.sim.mutation import Mutation
from leafdb.testing.violation import Invariant

MAINTENANCE: Final = "leafdb.storage.maintenance"

MUTATIONS: Final[tuple[Mutation, ...]] = (
    store_mutation(
        "renamed-before-synced",
        "A file is put in the place of another before its bytes are durable: after a power cut it is empty (ALICE).",
        (
            "leafdb.vfs.base",
            "        file.append(content)\n        file.sync()\n",
            "        file.append(content)\n",
        ),
    ),
    store_mutation(
        "old-manifest-gone-early",
        "The manifest before is removed while CURRENT may still name it (ALICE: LevelDB).",
        (
            MANIFEST,
            '        file.sync()\n        self._fs.sync_dir("")\n',
            "        file.sync()\n        for name in map(manifest_name, numbers):\n            self._fs.unlink(name)\n"
            '        self._fs.sync_dir("")\n',
        ),
        (MANIFEST, "        for old in numbers:\n            self._fs.unlink(manifest_name(old))\n", ""),
    ),
    store_mutation(
        "inputs-gone-early",
        "What a compaction has read is removed before the edit that names what replaces it.",
        (
            MAINTENANCE,
            "        edit = VersionEdit(added=tuple(keep), removed=compacted.removed, values=compacted.values)\n",
            "        edit = VersionEdit(added=tuple(keep), removed=compacted.removed, values=compacted.values)\n"
            "        self._tables.remove_soon([meta.path for meta in job.inputs])\n",
        ),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
    store_mutation(
        "orphans-not-swept",
        "Tables of jobs that a crash cut off stay for ever.",
        (
            RECOVERY,
            "            elif name.endswith(ending) and path not in named:\n",
            "            elif name.endswith(ending) and path not in named and not path:\n",
        ),
        caught_by=(Invariant.SPACE_RECLAIMED,),
    ),
    store_mutation(
        "gap-between-segments",
        "A segment need not begin where the one before ended: cut at a frame's edge a log looks whole (RocksDB 6.14).",
        (RECOVERY, "    if header.first_lsn != state.next_lsn:\n", "    if header.first_lsn < 0:\n"),
        caught_by=(*LOST, Invariant.SELF_CHECK),
    ),
)
