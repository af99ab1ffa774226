"""What dies here, and when: the notes by which the sweeper finds it.

Whoever writes a record that has a death (model/purge) writes a note with it, all or nothing: an entry of the PURGE
tree under partition, death, tree and storage key (docs/formats/purge.md). `KeptTrees.write`, through which all records
go, asks here for the entries. A record that dies takes the note of the one that it replaces away, if that was to die at
another time, and so does a removal: else a key whose expiry is renewed each second would leave a note for each second.
One that lives on leaves the note of what it replaced, so that plain puts pay nothing; the sweeper finds it stale.

Of each partition the least death is known, or what was the least of late: never more than what is noted. So where
nothing has died nobody has to look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from leafdb.errors import CorruptionError
from leafdb.model.purge import NEVER, record_death
from leafdb.model.record_format import RecordError
from leafdb.node.horizons import PURGE_TREE
from leafdb.storage.wal_format import WalEntry
from leafdb.types import PartitionId, TreeId

DEATH: Final = 2
"""First byte of the keys of these entries."""
_START_BYTES: Final = 15


class Deaths:
    """The notes of one node: made by `KeptTrees`, followed by the sweeper."""

    def __init__(self) -> None:
        self._oldest: dict[int, int] = {}
        self._looking: dict[int, int] = {}
        """The partitions of which somebody is finding out the least, with the least that was noted meanwhile."""
        self.on_death: Callable[[int, int], None] = lambda partition, death: None
        """Told of each note, before it is written."""

    def entries(self, partition: int, tree: TreeId, key: bytes, old: bytes | None, new: bytes | None) -> list[WalEntry]:
        """What is to be written with a record `new` that may die, or with a removal, where `old` was."""
        died, dies = _death(old), _death(new)
        entries: list[WalEntry] = []
        if died != NEVER and died != dies:
            entries.append((PURGE_TREE, note_key(partition, died, tree, key), None))
        if dies != NEVER:
            entries.append((PURGE_TREE, note_key(partition, dies, tree, key), b""))
            self.found(partition, dies)
            self.on_death(partition, dies)
        return entries

    def oldest(self, partition: PartitionId | int) -> int | None:
        """The least death noted in a partition, or less; None: nothing dies there."""
        return self._oldest.get(partition)

    def partitions(self) -> dict[int, int]:
        """Those in which something dies, with `oldest`."""
        return dict(self._oldest)

    def found(self, partition: int, death: int) -> None:
        """There is such a note."""
        if death < self._oldest.get(partition, NEVER):
            self._oldest[partition] = death
        if death < self._looking.get(partition, 0):
            self._looking[partition] = death

    def look(self, partition: int) -> None:
        """Somebody begins to find out the least death of a partition; `looked` ends it."""
        assert partition not in self._looking
        self._looking[partition] = NEVER

    def looked(self, partition: int, least: int) -> None:
        """It is this, or less; NEVER: the store has no note of the partition, but for those that came meanwhile."""
        least = min(least, self._looking.pop(partition))
        if least == NEVER:
            self._oldest.pop(partition, None)
        else:
            self._oldest[partition] = least


def note_key(partition: int, death: int, tree: TreeId, key: bytes) -> bytes:
    """Where it is noted that a record dies."""
    return note_start(partition, death) + tree.to_bytes(4, "big") + key


def note_start(partition: int, death: int) -> bytes:
    """Before this are the notes of lower partitions, and of this one those of earlier deaths."""
    return bytes((DEATH,)) + partition.to_bytes(2, "big") + death.to_bytes(8, "big")


def split_note(note: bytes) -> tuple[int, int, TreeId, bytes]:
    """Partition, death, tree and storage key. Raises CorruptionError."""
    if len(note) < _START_BYTES or note[0] != DEATH:
        raise CorruptionError("a malformed note of a death")
    number = int.from_bytes
    return number(note[1:3], "big"), number(note[3:11], "big"), TreeId(number(note[11:15], "big")), note[_START_BYTES:]


def _death(record: bytes | None) -> int:
    if record is None:
        return NEVER
    try:
        return record_death(record)
    except RecordError:
        return NEVER  # what cannot be read is kept
