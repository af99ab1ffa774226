"""What the replica asks of those it works with: of a put that waits for its dot, and of where records are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from leafdb.errors import StorageError
from leafdb.model.clock import CausalClock, Dot
from leafdb.node.view import BucketView
from leafdb.storage.committer import Waiter
from leafdb.storage.wal_format import WalEntry
from leafdb.types import Durability, TreeId


class Minting(Protocol):
    """A put that waits for its dot: the coordinator's operation, as the replica sees it."""

    bucket: BucketView
    storage_key: bytes
    context: CausalClock | None
    seen: int
    """The greatest stamp that its writer was shown: its own goes above it."""
    expires_ms: int
    op_id: bytes
    value: bytes | None
    durability: Durability

    def minted(self, data: bytes, dot: Dot) -> None:
        """The merged record exists in memory and may travel to other replicas; it is not durable yet."""

    def known(self, dots: Sequence[Dot]) -> None:
        """It was here already, under these dots: more than one when it was sent to two nodes. `minted` follows."""

    def unminted(self, error: Exception) -> None:
        """Nothing was written here; the error says why."""

    def committed(self, error: StorageError | None) -> None:
        """The local copy is as durable as asked, or the store failed."""

    @property
    def abandoned(self) -> bool:
        """The deadline passed while it waited: it must not run any more."""


class Records(Protocol):
    """Where records are written: `KeptTrees`."""

    def write(
        self,
        tree: TreeId,
        key: bytes,
        old: bytes | None,
        new: bytes | None,
        durability: Durability,
        done: Waiter | None = None,
        also: Sequence[WalEntry] = (),
    ) -> int:
        """Replace the record `old`, which is what the store has now, by `new`; None stands for nothing."""
