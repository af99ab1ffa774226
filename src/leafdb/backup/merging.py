"""All records of a bucket in a backup, each once: what its replicas would have made of them, in order of tokens.

The stores of a backup are of one moment only about. Hints move from node to node, so what each kept was copied before
any whole store was: a hint that had gone by then had arrived before its target's store was copied.

What the stores hold of a key is merged as replicas merge it, and what lies below the newest horizon that any of them
knows is believed as readers believe it (decision 0008, section 2): of a store that *vouches* for that horizon. A copy
that was taken before the others had forgotten something does not, nor does what is kept for another node: of such
records each sibling is admitted as that of a late message would be, so that nothing returns that was deleted and
forgotten by right. If no store vouches for a partition nobody can tell what was forgotten from what was lost; then
everything is taken, and `unsure` names the partition.

Memory holds one block of each table that is being read, and the records of one key.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from leafdb.backup.listing import LIST_PATH
from leafdb.backup.store_copy import StoreCopy
from leafdb.errors import CorruptionError
from leafdb.model.admission import admitted
from leafdb.model.bucket import BucketProperties
from leafdb.model.record import RecordError, header, merge
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import TOKEN_BYTES, partition_bits
from leafdb.types import Conflict, TreeId

_Ranked = tuple[bytes, int, bytes]
"""Storage key, number of the source, record."""
_KEY: Final = itemgetter(0)


class MergedRecord(NamedTuple):
    """What the cluster knew of a key."""

    key: bytes
    """The storage key, by the bucket's number in the backup."""
    record: bytes


class _Source(NamedTuple):
    store: StoreCopy
    marks: dict[int, int]
    """What the store vouches for; nothing where records are kept for another."""


class Merger:
    """The stores of one backup."""

    def __init__(self, stores: Sequence[StoreCopy], hints: Sequence[StoreCopy], partitions: int) -> None:
        """Of `hints` nothing else is looked at. Raises CorruptionError."""
        self._stores = [(store, store.marks()) for store in stores]
        self._keepers = [*stores, *hints]
        self._partitions = partitions
        self._shift = 64 - partition_bits(partitions)
        known = [found for store in stores if (found := store.metadata()) is not None]
        if any(metadata.partitions != partitions for metadata in known):
            raise CorruptionError("a store is of a ring with another number of partitions", path=LIST_PATH)
        self.numbers: frozenset[int] = frozenset(metadata.cluster_number for metadata in known)
        """Of the cluster, which stands in every dot it minted."""
        self._horizons = _newest_horizons(known, partitions)
        self.unsure: frozenset[int] = frozenset(
            partition
            for partition, horizon in enumerate(self._horizons)
            if horizon and not any(marks.get(partition, 0) >= horizon for _, marks in self._stores)
        )
        """Partitions of which no store can tell what was forgotten from what was lost."""

    def records(self, bucket: BucketProperties, start: bytes = b"") -> Iterator[MergedRecord]:
        """Every record of a bucket from a storage key on, dead ones among them. Raises CorruptionError."""
        sources, streams = self._sources(bucket, start)
        ranked = [_ranked(number, stream) for number, stream in enumerate(streams)]
        for key, group in groupby(heapq.merge(*ranked), _KEY):
            found = [(sources[number], record) for _, number, record in group]
            try:
                if len(key) <= TOKEN_BYTES:
                    raise RecordError(f"a key of {len(key)} bytes")
                merged = self._merged(key, found, bucket.conflict)
            except RecordError as error:
                stores = " or ".join(sorted({source.store.directory for source, _ in found}))
                text = f"a record of bucket {bucket.name} in {stores} cannot be read: {error}"
                raise CorruptionError(text, path=found[0][0].store.directory) from None
            if merged is not None:
                yield MergedRecord(key, merged)

    def _sources(
        self, bucket: BucketProperties, start: bytes
    ) -> tuple[list[_Source], list[Iterator[tuple[bytes, bytes]]]]:
        sources: list[_Source] = []
        streams: list[Iterator[tuple[bytes, bytes]]] = []
        for store, marks in self._stores:
            sources.append(_Source(store, marks))
            streams.append(store.entries(TreeId(bucket.id), start))
        for store in self._keepers:
            for target in store.targets():
                sources.append(_Source(store, {}))
                streams.append(store.hints(target, bucket.id, start))
        return sources, streams

    def _merged(self, key: bytes, found: list[tuple[_Source, bytes]], conflict: Conflict) -> bytes | None:
        """What is known of a key, of which these records were found; None: all of it was forgotten by right."""
        partition = int.from_bytes(key[:TOKEN_BYTES], "big") >> self._shift
        horizon = 0 if partition in self.unsure else self._horizons[partition]
        vouched: bytes | None = None
        others: list[bytes] = []
        for source, record in found:
            if horizon and source.marks.get(partition, 0) < horizon:
                others.append(record)
            elif vouched is None:
                header(record)  # merge would have looked at it
                vouched = record
            else:
                vouched = merge(vouched, record, conflict)
        merged = vouched
        for record in others:
            kept = admitted(vouched, record, horizon)
            if kept is not None:
                merged = kept if merged is None else merge(merged, kept, conflict)
        if merged is not None and vouched is None:
            header(merged)
        return merged


def living(record: bytes, now_ms: int) -> int:
    """How many siblings of a record are neither deleted nor expired. Raises RecordError."""
    return sum(
        not head.tombstone and (not head.expires_ms or head.expires_ms > now_ms)
        for head in header(record).heads.values()
    )


def _newest_horizons(known: Sequence[ClusterMetadata], partitions: int) -> tuple[int, ...]:
    """Of each partition the highest stamp that any store knows, as readers go by; 0: nothing was proved."""
    stamps = [0] * partitions
    for metadata in known:
        for partition, horizon in enumerate(metadata.horizons):
            stamps[partition] = max(stamps[partition], horizon.stamp)
    return tuple(stamps)


def _ranked(number: int, stream: Iterator[tuple[bytes, bytes]]) -> Iterator[_Ranked]:
    for key, record in stream:
        yield key, number, record
