"""A record of a backup, in the turn of its key: taken whole, by a holder of its range.

To a replica it is news that comes late, later than any: most of it lies below the horizon, where whatever arrives as a
message is taken for something forgotten by right. But that a backup is restored says that somebody wants it back; all
holders are given it, and it counts when all have it on their disks (`restoring`). If one has it and another not yet, an
exchange of the two brings it over, as what the other has lost.

The dots are those of the backup, so it does not matter how often a record is restored; and as with every record that
arrives, a store that finds dots of its own there, of which it does not know, mints under a fresh entry from then on.
"""

from __future__ import annotations

from typing import NamedTuple

from leafdb.node.replica import REFUSALS, Merged, Replica
from leafdb.node.view import BucketView
from leafdb.types import Durability


class RestoredRecord(NamedTuple):
    """Put it into the replica's queue (`queue.do`); `done` once the result is synced, or with the error."""

    replica: Replica
    bucket: BucketView
    key: bytes
    record: bytes
    done: Merged

    def run(self, local: bytes | None, sequence: int) -> None:
        """The turn has come."""
        replica, tree = self.replica, self.bucket.tree
        before = replica.additions
        try:
            new = replica.accepted(local, self.record, self.bucket.conflict, tree, self.key)
            replica.replace(local, sequence, new, tree, self.key, Durability.ALWAYS, self.done)
        except REFUSALS as error:
            self.done(error)
            return
        if (local is None and new is not self.record) or replica.additions != before:
            replica.says_more(tree, self.key)

    def refuse(self, error: Exception) -> None:
        """The record here cannot be had."""
        self.done(error)
