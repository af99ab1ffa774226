"""What a message weighs: its hashes, keys and digests, without the frame and field names (some 60 bytes more)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leafdb.merkle.compare import Entry
from leafdb.merkle.messages import AnyMessage, Branches, Compare, Differing, Keys, Leaves, Want
from leafdb.merkle.tree import DIGEST_BYTES

ENTRY_OVERHEAD_BYTES: Final = 3
LEAF_BYTES: Final = 3
ROOT_BYTES: Final = 16


def entry_bytes(entry: Entry) -> int:
    """One key with its digest."""
    return len(entry[0]) + DIGEST_BYTES + ENTRY_OVERHEAD_BYTES


def entries_bytes(entries: Sequence[Entry]) -> int:
    """Many of them."""
    return sum(map(entry_bytes, entries))


def payload_bytes(message: AnyMessage) -> int:
    """The message's hashes, leaves, keys and digests."""
    match message:
        case Compare():
            return ROOT_BYTES
        case Branches(hashes=hashes):
            return len(hashes)
        case Leaves(branches=branches):
            return sum(LEAF_BYTES + len(hashes) for _, hashes in branches)
        case Differing(leaves=leaves):
            return LEAF_BYTES * len(leaves)
        case Want(leaves=leaves, after=after):
            return LEAF_BYTES * len(leaves) + len(after)
        case Keys(lists=lists):
            return sum(LEAF_BYTES + entries_bytes(each.entries) for each in lists)
        case _:
            return 0
