"""The keys of a run: their encodings, who holds them, the context last seen of each, which are being written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from leafdb.client import bare

PREFIX: Final = "user"


class Keyspace:
    """Keys 0 to count - 1; `append` makes one more. `addresses` are the nodes the generator talks to."""

    def __init__(self, bucket: bare.Bucket, placement: bare.Placement, addresses: Sequence[str], count: int) -> None:
        self._bucket = bucket
        self._placement = placement
        self._addresses = {address: index for index, address in enumerate(addresses)}
        self.encoded: list[bytes] = []
        self.tokens: list[bytes] = []
        self.contexts: list[bytes] = []
        self.busy = bytearray()
        self._holders: list[tuple[int, ...]] = []
        self._frames: dict[int, bytes] = {}
        for _ in range(count):
            self.append()
        self.everywhere = all(len(holders) == len(self._addresses) for holders in self._holders)
        """Every node talked to holds every key, so that no choice needs to ask."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.encoded)

    def newest(self) -> int:
        """The index of the last one made."""
        return len(self.encoded) - 1

    def append(self) -> int:
        """One more key; its index."""
        index = len(self.encoded)
        key = self._bucket.key(f"{PREFIX}{index:010d}")
        primaries = self._placement.primaries(self._bucket, key)
        self.encoded.append(key)
        self.tokens.append(self._bucket.token(key))
        self.contexts.append(b"")
        self.busy.append(0)
        self._holders.append(tuple(self._addresses[address] for address in primaries if address in self._addresses))
        return index

    def holds(self, key: int, node: int) -> bool:
        """Whether the node is a primary of the key; where none of those talked to is, anybody is as good."""
        holders = self._holders[key]
        return not holders or node in holders

    def shares_without_context(self) -> list[list[int]]:
        """Every key not known to be there, evenly among the nodes that hold it."""
        shares: list[list[int]] = [[] for _ in self._addresses]
        for key, holders in enumerate(self._holders):
            if self.contexts[key]:
                continue
            nodes = holders or tuple(range(len(shares)))
            shares[nodes[key % len(nodes)]].append(key)
        return shares

    def get_frame(self, request_id: int, key: int) -> bytes:
        """A GET; those of request id 1, which everybody sends, are made once."""
        if request_id != 1:
            return self._bucket.get(request_id, self.encoded[key])
        frame = self._frames.get(key)
        if frame is None:
            frame = self._frames[key] = self._bucket.get(1, self.encoded[key])
        return frame
