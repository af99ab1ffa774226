"""For which partitions this store may have forgotten something, and so must not say "absent".

A store that lost its tail (a new incarnation: wiped, cut, restored, or `periodic` buckets after a power cut) holds
values that are true and absences that are not. Until a partition has been exchanged with its other owners it is
incomplete here: values still count, absence does not. The set is persisted, so that a restart does not make it
complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from leafdb.codec import cbor
from leafdb.storage.engine import Engine
from leafdb.types import Durability, PartitionId, TreeId

KEY: Final = b"incomplete"


class Completeness:
    """The set of incomplete partitions."""

    def __init__(self, engine: Engine, tree: TreeId) -> None:
        self._engine = engine
        self._tree = tree
        self._incomplete: set[int] = set()

    def load(self, stored: bytes | None) -> None:
        """Take what the store remembers."""
        if stored is not None:
            self._incomplete = {int(partition) for partition in cbor.loads(stored)}

    def complete(self, partition: int) -> bool:
        """Whether this store's "absent" can be believed for the partition."""
        return partition not in self._incomplete

    @property
    def incomplete(self) -> tuple[int, ...]:
        """The incomplete partitions, ascending."""
        return tuple(sorted(self._incomplete))

    def doubt(self, partitions: Iterable[int]) -> None:
        """The store may have forgotten something of these partitions."""
        self._incomplete.update(partitions)
        self._save()

    def proved(self, partition: PartitionId | int) -> None:
        """All owners of the partition have been exchanged with."""
        if partition in self._incomplete:
            self._incomplete.discard(partition)
            self._save()

    def _save(self) -> None:
        self._engine.write(((self._tree, KEY, encode_partitions(self._incomplete)),), Durability.ALWAYS, None)


def encode_partitions(partitions: Iterable[int]) -> bytes:
    """The stored form of a set of partitions."""
    return cbor.dumps(sorted(partitions))
