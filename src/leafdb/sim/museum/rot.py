"""The room of rot: damage that is taken for right, that nobody finds, or that costs more than what was damaged."""

from __future__ import annotations

from functools import partial
from typing import Final

from leafdb.sim.museum.storage import MANIFEST, store_mutation
from leafdb.testing.violation import Invariant

ENGINE_LIFE: Final = "leafdb.storage.engine_life"
INSPECTION: Final = "leafdb.storage.inspection"
SALVAGE: Final = "leafdb.storage.salvage"
SCRUB: Final = "leafdb.storage.scrub"
TABLE_FORMAT: Final = "leafdb.storage.sstable_format"
VALUE_FORMAT: Final = "leafdb.storage.value_format"

_rot: Final = partial(store_mutation, caught_by=(Invariant.CORRUPTION_DETECTED,), seeds_max=40)


MUTATIONS: Final = (
    _rot(
        "block-checksum-not-checked",
        "A table's block is served without looking at its checksum.",
        (
            TABLE_FORMAT,
            "    if crc != crc32c(sealed[-SEAL_BYTES:][:1], crc32c(body, ",
            "    if crc == -crc32c(sealed[-SEAL_BYTES:][:1], crc32c(body, ",
        ),
        caught_by=(Invariant.CORRUPTION_DETECTED, Invariant.SELF_CHECK),
    ),
    _rot(
        "hole-without-its-name",
        "The edit that publishes a salvage does not say what was lost: a hole looks whole.",
        (
            "leafdb.storage.jobs",
            "            lost=tuple(LostRange(table.file_number, table.tree_id, *lost) for lost in self.lost),\n",
            "            lost=() if self.lost else tuple(LostRange(0, table.tree_id, *lost) for lost in self.lost),\n",
        ),
    ),
    _rot(
        "hole-forgotten-at-a-start",
        "A new manifest does not take over what was lost and nobody has noted yet.",
        (MANIFEST, "        lost=whole.lost,\n", ""),
    ),
    _rot(
        "salvage-drops-its-neighbours",
        "A salvage ends at the first block that it cannot read, and says that this block is lost.",
        (
            SALVAGE,
            "                lost.append(piece)\n",
            "                lost.append(piece)\n                break\n",
        ),
    ),
    _rot(
        "salvage-gives-all-up",
        "A table with one bad block is given up whole, sound neighbours and all.",
        (
            SALVAGE,
            "    return SalvageResult(added=kept, lost=coarsened(lost))\n",
            "    return SalvageResult(added=kept, lost=(whole,) if lost else ())\n",
        ),
    ),
    _rot(
        "damaged-file-gone-early",
        "A damaged table is put away before the edit that replaces it: after a cut what could be read of it is gone.",
        (
            "leafdb.storage.salvages",
            "        self._tables.quarantine(job.table.file_number)\n",
            "        self._tables.remove_soon([job.table.path])\n",
        ),
        caught_by=(Invariant.CORRUPTION_DETECTED, Invariant.SELF_CHECK),
    ),
    _rot(
        "damage-not-salvaged",
        "A damaged table stays where it is: reads of it fail for ever.",
        (
            ENGINE_LIFE,
            "                    self._maintenance.found_damaged(meta.file_number)\n",
            "                    assert self._maintenance\n",
        ),
    ),
    _rot(
        "misplaced-block-accepted",
        "A block's seal does not say where it belongs: one that was written elsewhere is served (misdirected writes).",
        (TABLE_FORMAT, "_SALT.pack(file_number, offset)", "_SALT.pack(0, 0)"),
        (TABLE_FORMAT, "_SALT.pack(meta.file_number, offset)", "_SALT.pack(0, 0)"),
    ),
    _rot(
        "misplaced-value-accepted",
        "A value's seal does not say where it belongs: an older value of the same key is served.",
        (VALUE_FORMAT, "_SALT.pack(file_number, offset)", "_SALT.pack(0, 0)"),
        (VALUE_FORMAT, "_SALT.pack(meta.file_number, offset)", "_SALT.pack(0, 0)"),
    ),
    _rot(
        "loss-acknowledged-before-noted",
        "The manifest lets go of what was lost while what says so elsewhere is in the page cache: a hole looks whole.",
        (
            ENGINE_LIFE,
            "        self._committer.when_safe(upto, Durability.ALWAYS, partial(self._noted, tuple(lost)))\n",
            "        self._noted(tuple(lost) if upto >= 0 else (), None)\n",
        ),
    ),
    _rot(
        "scrub-never-arrives",
        "A pass begins with the newest file, and calls all older ones read.",
        (SCRUB, "    return Turn(files[left[0]], ", "    return Turn(files[left[-1]], "),
    ),
    _rot(
        "scrub-counts-what-it-did-not-read",
        "The place of a pass is moved past the next file as well.",
        (SCRUB, "after=file.file_number,", "after=file.file_number + 1,"),
    ),
    _rot(
        "value-files-not-scrubbed",
        "The scrub reads tables alone: a large value rots until somebody asks for it. Ours, until it was built.",
        (
            "leafdb.storage.engine",
            "        return {**version.tables, **version.values.metas}\n",
            "        return dict(version.tables)\n",
        ),
    ),
    _rot(
        "dead-rot-is-damage",
        "Damage of a value file is found whoever needs it: it stays, and its tables are salvaged for ever.",
        (
            INSPECTION,
            "    except StorageError:\n        yield Part(rest)\n",
            "    except StorageError as error:\n        yield Part(rest, problem=error)\n        return\n",
        ),
    ),
    _rot(
        "salvage-keeps-what-it-cannot-read",
        "A salvage does not look at the values that made it necessary: the new table refers to them, too.",
        (
            ENGINE_LIFE,
            "        self._maintenance.salvages.doubted_values |= damaged\n",
            "        assert self._maintenance\n",
        ),
    ),
    _rot(
        "salvage-gives-up-all-values",
        "Of a value file with one bad value everything is given up.",
        (SALVAGE, " or _is_sound(doubted, value, key)\n", "\n"),
    ),
)
