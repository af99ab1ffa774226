"""The messages off the hot path: scans, admin verbs, metadata. Each body is one CBOR map.

Drawn in docs/formats/wire.md. A class here is one message: `encode()` gives the body, `decode(body)` reads what another
process sent and raises ProtocolError on anything that is not the message. Bounds are checked on reading only: what we
write ourselves is bounded by whoever makes it.

MEMBERSHIP, REGISTER, HINTS and EXCHANGE bodies belong to the pure packages whose rules they carry, RECORDS to node/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from leafdb.codec.fields import as_bytes, as_int, as_list, bool_field, bytes_field, int_field, list_field, map_field
from leafdb.limits import (
    FRAME_BYTES_MAX,
    KEY_BYTES_MAX,
    METADATA_BYTES_MAX,
    REPLICAS_MAX,
    SCAN_PAGE_BYTES_MAX,
    SCAN_PAGE_ITEMS_MAX,
    SCAN_PARTITIONS_MAX,
)
from leafdb.wire.body import decode_map, encode_map, refusing, text_field

U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1
ENCODED_KEY_BYTES_MAX: Final = 2 * KEY_BYTES_MAX + 4
"""Escaping doubles a key of zeros; two parts end in two bytes each."""
STORAGE_KEY_BYTES_MAX: Final = 8 + ENCODED_KEY_BYTES_MAX
VERB_CHARS_MAX: Final = 64
QUORUM_NUMBER_MAX: Final = 255


class ScanRequest(NamedTuple):
    """SCAN and REPLICA_SCAN: a page of the storage keys in [start, stop); an empty `stop` means no upper end."""

    bucket_id: int
    generation: int
    start: bytes
    stop: bytes
    limit: int
    bytes_max: int
    reverse: bool
    r: int
    deadline_ms: int
    range_epoch: int = 0
    """REPLICA_SCAN only: the epoch of the last topology change of any partition in the range, as the asker knows it."""
    horizons: tuple[int, ...] = ()
    """REPLICA_SCAN only: the newest horizon the asker knows of each of these partitions; empty: of none of them."""

    def encode(self) -> bytes:
        """The body."""
        fields = self._asdict()
        fields["bucket"] = fields.pop("bucket_id")
        if not self.range_epoch:
            del fields["range_epoch"]
        if not fields.pop("horizons"):
            return encode_map(fields)
        return encode_map({**fields, "horizons": list(self.horizons)})

    @staticmethod
    @refusing("a scan")
    def decode(body: bytes) -> ScanRequest:
        """The request in a SCAN or REPLICA_SCAN body."""
        fields = decode_map(body, "a scan")
        r = int_field(fields, "r", high=QUORUM_NUMBER_MAX)
        if REPLICAS_MAX < r < 254:
            raise ValueError(f"r is {r}")
        return ScanRequest(
            bucket_id=int_field(fields, "bucket", high=U32),
            generation=int_field(fields, "generation", high=U32),
            start=bytes_field(fields, "start", high=STORAGE_KEY_BYTES_MAX),
            stop=bytes_field(fields, "stop", high=STORAGE_KEY_BYTES_MAX),
            limit=int_field(fields, "limit", low=1, high=SCAN_PAGE_ITEMS_MAX),
            bytes_max=int_field(fields, "bytes_max", low=1, high=SCAN_PAGE_BYTES_MAX),
            reverse=bool_field(fields, "reverse"),
            r=r,
            deadline_ms=int_field(fields, "deadline_ms", high=U32),
            range_epoch=int_field(fields, "range_epoch", high=U32) if "range_epoch" in fields else 0,
            horizons=_horizons(fields),
        )


class ScanReply(NamedTuple):
    """SCAN_REPLY: (storage key, GET_REPLY body) pairs; REPLICA_SCAN_REPLY: (storage key, record) pairs.

    `next` is the storage key to go on from, empty at the end of the range asked for. `complete` is for replicas: False
    when this one may have forgotten something in the range, so that what is not here is not thereby absent. A replica
    that knows of newer horizons than the request names says those of all its partitions, and shows nothing.
    """

    items: tuple[tuple[bytes, bytes], ...]
    next: bytes
    epoch: int
    complete: bool = True
    horizons: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """The body."""
        items = [[key, value] for key, value in self.items]
        fields = {"items": items, "next": self.next, "epoch": self.epoch, "complete": self.complete}
        if self.horizons:
            fields["horizons"] = list(self.horizons)
        return encode_map(fields)

    @staticmethod
    @refusing("a scan reply")
    def decode(body: bytes) -> ScanReply:
        """The page in a SCAN_REPLY or REPLICA_SCAN_REPLY body."""
        fields = decode_map(body, "a scan reply")
        items = []
        for pair in list_field(fields, "items", items_max=SCAN_PAGE_ITEMS_MAX):
            key, value = _tuple_of(pair, "item", 2)
            items.append(
                (as_bytes(key, "key", low=8, high=STORAGE_KEY_BYTES_MAX), as_bytes(value, "item", high=FRAME_BYTES_MAX))
            )
        complete = bool_field(fields, "complete") if "complete" in fields else True
        return ScanReply(
            items=tuple(items),
            next=bytes_field(fields, "next", high=STORAGE_KEY_BYTES_MAX),
            epoch=int_field(fields, "epoch", high=U32),
            complete=complete,
            horizons=_horizons(fields),
        )


def _horizons(fields: Mapping[str, object]) -> tuple[int, ...]:
    if "horizons" not in fields:
        return ()
    stamps = list_field(fields, "horizons", items_max=SCAN_PARTITIONS_MAX)
    return tuple(as_int(stamp, "horizon", high=U64) for stamp in stamps)


class AdminRequest(NamedTuple):
    """ADMIN and PEER_ADMIN: a verb with its arguments. The answer is one map (`decode_map`) or an ERROR."""

    verb: str
    args: Mapping[str, Any]

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"verb": self.verb, "args": dict(self.args)})

    @staticmethod
    @refusing("an admin request")
    def decode(body: bytes) -> AdminRequest:
        """The request in an ADMIN or PEER_ADMIN body."""
        fields = decode_map(body, "an admin request")
        args = map_field(fields, "args")
        if not isinstance(args, dict) or not all(type(name) is str for name in args):
            raise ValueError("args is not a map with text keys")
        return AdminRequest(text_field(fields, "verb", chars_max=VERB_CHARS_MAX), args)


class MetadataFetch(NamedTuple):
    """METADATA_FETCH: the sender has `epoch` and asks for anything newer."""

    epoch: int

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"epoch": self.epoch})

    @staticmethod
    @refusing("a metadata fetch")
    def decode(body: bytes) -> MetadataFetch:
        """The request in a METADATA_FETCH body."""
        return MetadataFetch(int_field(decode_map(body, "a metadata fetch"), "epoch", high=U32))


class MetadataReply(NamedTuple):
    """METADATA_REPLY: the sender's epoch, and its metadata when that is newer than what was asked for.

    `metadata` is the whole encoding, or, with `difference`, what has changed since the epoch that was named.
    """

    epoch: int
    metadata: bytes
    difference: bool = False

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"epoch": self.epoch, "metadata": self.metadata, "difference": self.difference})

    @staticmethod
    @refusing("a metadata reply")
    def decode(body: bytes) -> MetadataReply:
        """The answer in a METADATA_REPLY body."""
        fields = decode_map(body, "a metadata reply")
        return MetadataReply(
            epoch=int_field(fields, "epoch", high=U32),
            metadata=bytes_field(fields, "metadata", high=METADATA_BYTES_MAX),
            difference=bool_field(fields, "difference"),
        )


def _tuple_of(value: object, what: str, count: int) -> Sequence[Any]:
    items = as_list(value, what, items_max=count)
    if len(items) != count:
        raise ValueError(f"{what} has {len(items)} parts, not {count}")
    return items
