"""What travels in RECORDS and RECORDS_REPLY: records asked for, records given, a debt passed on to those it concerns,
and pages of a range for a new owner of it. One map each (docs/formats/repair.md).

    fetch   bucket, keys, exchange        -> records: one for each of the first keys, as many as fit; empty: none here
    offer   bucket, keys, records, exchange or epoch
                                          -> results: a ReplicaStatus for each
    restore bucket, epoch, keys, restored -> results: a ReplicaStatus for each
    hold    bucket, epoch, keys, digests  -> results: for each APPLIED if exactly that record is here, else UNKNOWN
    mark    bucket, partition, target     -> results: one
    look    bucket, keys, look            -> outlines: version, size and hollow record of each of the first keys
    pull    bucket, partition, start, bytes_max, range_epoch, horizon
                                          -> complete, keys, records, next: storage key to go on from; empty: the end

A fetch, and an offer that names an `exchange`, belong to that exchange of the asking side, and its terms say how the
records are taken; an empty one in such an offer says that there is none.

A restore brings records of a backup: they are taken whole, also what lies below the horizon of here, of which they come
from a time before. It has a field of its own, so that a build that would take it for a message refuses it.

A hold, and an offer with an `epoch`, come from one who is about to drop its own copies: their keys are of one
partition, and APPLIED says that the record is on the disk of a holder whose range epoch was still that one afterwards.

Keys are encoded keys without their tokens: the receiver computes those itself, and so finds out about malformed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from leafdb.codec.fields import as_bool, as_bytes, as_int, as_list, bytes_field, int_field, list_field, map_field
from leafdb.limits import EXCHANGE_KEYS_MAX, FRAME_BYTES_MAX, NODE_ID_MAX, PARTITIONS_MAX
from leafdb.model.hlc import STAMP_MAX
from leafdb.model.outline import Outline
from leafdb.model.record import header
from leafdb.ring.packing import EPOCH_MAX
from leafdb.wire.body import decode_map, encode_map, refusing
from leafdb.wire.control import ENCODED_KEY_BYTES_MAX, STORAGE_KEY_BYTES_MAX, U32

PLACE_BYTES_MAX: Final = STORAGE_KEY_BYTES_MAX + 1
"""A storage key, or with one more zero byte the place after it."""

DIGEST_BYTES: Final = 16


class Fetch(NamedTuple):
    """Show me your records of these keys."""

    bucket: int
    keys: tuple[bytes, ...]
    exchange: int
    """My number of it."""

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"bucket": self.bucket, "keys": list(self.keys), "exchange": self.exchange})


class Offer(NamedTuple):
    """Merge my records of these keys into yours."""

    bucket: int
    keys: tuple[bytes, ...]
    records: tuple[bytes, ...]
    epoch: int = 0
    """Not 0: of the range, by which the receiver must be a holder, and sync before it says that it has them."""
    exchange: int = 0
    """My number of it; 0: the records belong to none, and are taken as a message."""

    def encode(self) -> bytes:
        """The body."""
        fields = {"bucket": self.bucket, "keys": list(self.keys), "records": list(self.records)}
        return encode_map(fields | ({"epoch": self.epoch} if self.epoch else {"exchange": self.exchange}))


class Restore(NamedTuple):
    """Take these records of a backup, and sync them, by this epoch of their ranges."""

    bucket: int
    epoch: int
    keys: tuple[bytes, ...]
    records: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The body."""
        fields = {"bucket": self.bucket, "epoch": self.epoch, "keys": list(self.keys)}
        return encode_map(fields | {"restored": list(self.records)})


class Hold(NamedTuple):
    """Which of these records do you hold, exactly as I do, under this epoch of their range?"""

    bucket: int
    epoch: int
    keys: tuple[bytes, ...]
    digests: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The body."""
        fields = {"bucket": self.bucket, "epoch": self.epoch, "keys": list(self.keys)}
        return encode_map(fields | {"digests": list(self.digests)})


class Look(NamedTuple):
    """What do your records of these keys look like? They need not travel."""

    bucket: int
    keys: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"bucket": self.bucket, "keys": list(self.keys), "look": True})


class Mark(NamedTuple):
    """`target` may have missed something of this range, which you hold and I do not: it is yours to mend."""

    bucket: int
    partition: int
    target: int

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"bucket": self.bucket, "partition": self.partition, "target": self.target})


class Pull(NamedTuple):
    """Show me your records of this range in order, from the storage key `start` on, which may be empty."""

    bucket: int
    partition: int
    start: bytes
    bytes_max: int
    range_epoch: int
    """Of the range where I am: you and I must mean the same owners."""
    horizon: int
    """The same of the purge horizon: what you have forgotten by right I must not ask others for."""

    def encode(self) -> bytes:
        """The body."""
        return encode_map(self._asdict())


class Page(NamedTuple):
    """Answers a Pull."""

    complete: bool
    """False: my store may have forgotten something of the range, or does not have it yet; nothing is shown."""
    keys: tuple[bytes, ...]
    records: tuple[bytes, ...]
    next: bytes

    def encode(self) -> bytes:
        """The body."""
        fields = {"complete": self.complete, "keys": list(self.keys), "records": list(self.records), "next": self.next}
        return encode_map(fields)


RecordsRequest = Fetch | Offer | Restore | Hold | Look | Mark | Pull


class Records(NamedTuple):
    """Answers a Fetch."""

    records: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"records": list(self.records)})


class Results(NamedTuple):
    """Answers an Offer, a Hold or a Mark: `ReplicaStatus` numbers."""

    results: tuple[int, ...]

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"results": list(self.results)})


class Outlines(NamedTuple):
    """Answers a Look: an outline for each of the first keys, None where nothing is stored."""

    outlines: tuple[Outline | None, ...]

    def encode(self) -> bytes:
        """The body."""
        return encode_map({"outlines": [[] if outline is None else list(outline) for outline in self.outlines]})


@refusing("a request about records")
def decode_request(body: bytes) -> RecordsRequest:
    """The request in a RECORDS body."""
    fields = decode_map(body, "a request about records")
    bucket = int_field(fields, "bucket", high=U32)
    if "target" in fields:
        partition = int_field(fields, "partition", high=PARTITIONS_MAX - 1)
        return Mark(bucket, partition, int_field(fields, "target", low=1, high=NODE_ID_MAX))
    if "start" in fields:
        return Pull(
            bucket,
            int_field(fields, "partition", high=PARTITIONS_MAX - 1),
            bytes_field(fields, "start", high=PLACE_BYTES_MAX),
            int_field(fields, "bytes_max", low=1),
            int_field(fields, "range_epoch"),
            int_field(fields, "horizon", high=STAMP_MAX),
        )
    keys = _bytes_list(fields, "keys", low=1, high=ENCODED_KEY_BYTES_MAX)
    if not keys:
        raise ValueError("no keys")
    if "digests" in fields:
        digests = _bytes_list(fields, "digests", low=DIGEST_BYTES, high=DIGEST_BYTES)
        if len(digests) != len(keys):
            raise ValueError(f"{len(keys)} keys with {len(digests)} digests")
        return Hold(bucket, int_field(fields, "epoch", low=1, high=EPOCH_MAX), keys, digests)
    if "restored" in fields:
        restored = _bytes_list(fields, "restored", low=1, high=FRAME_BYTES_MAX)
        if len(restored) != len(keys):
            raise ValueError(f"{len(keys)} keys with {len(restored)} records")
        return Restore(bucket, int_field(fields, "epoch", low=1, high=EPOCH_MAX), keys, restored)
    if "look" in fields:
        return Look(bucket, keys)
    if "records" not in fields:
        return Fetch(bucket, keys, int_field(fields, "exchange", low=1))
    exchange = 0 if "epoch" in fields else int_field(fields, "exchange", low=1)
    records = _bytes_list(fields, "records", low=0 if exchange else 1, high=FRAME_BYTES_MAX)
    if len(records) != len(keys):
        raise ValueError(f"{len(keys)} keys with {len(records)} records")
    epoch = 0 if exchange else int_field(fields, "epoch", low=1, high=EPOCH_MAX)
    return Offer(bucket, keys, records, epoch, exchange)


def digest_of(record: bytes) -> bytes:
    """What a Hold names a record by. A copy is dropped on its word, so nobody may be able to make two records of one
    digest."""
    return blake2b(record, digest_size=DIGEST_BYTES).digest()


@refusing("records asked for")
def decode_records(body: bytes, keys: int) -> Records:
    """The answer to a Fetch of so many keys: at least one record, at most one each."""
    records = _bytes_list(decode_map(body, "records asked for"), "records", low=0, high=FRAME_BYTES_MAX)
    if not 0 < len(records) <= keys:
        raise ValueError(f"{len(records)} records for {keys} keys")
    return Records(records)


@refusing("outlines asked for")
def decode_outlines(body: bytes, keys: int) -> Outlines:
    """The answer to a Look at so many keys: at least one, at most one each."""
    found: list[Outline | None] = []
    for each in list_field(decode_map(body, "outlines asked for"), "outlines", items_max=EXCHANGE_KEYS_MAX):
        parts = as_list(each, "outline", items_max=3)
        if parts and len(parts) != 3:
            raise ValueError("an outline has not 3 parts")
        found.append(
            Outline(
                as_int(parts[0], "version"),
                as_int(parts[1], "size", high=FRAME_BYTES_MAX),
                as_bytes(parts[2], "hollow record", low=1, high=FRAME_BYTES_MAX),
            )
            if parts
            else None
        )
    if not 0 < len(found) <= keys:
        raise ValueError(f"{len(found)} outlines for {keys} keys")
    for outline in found:
        if outline is not None:
            header(outline.hollow)
    return Outlines(tuple(found))


@refusing("a page of records")
def decode_page(body: bytes) -> Page:
    """The answer to a Pull."""
    fields = decode_map(body, "a page of records")
    keys = _bytes_list(fields, "keys", low=1, high=ENCODED_KEY_BYTES_MAX)
    records = _bytes_list(fields, "records", low=1, high=FRAME_BYTES_MAX)
    if len(records) != len(keys):
        raise ValueError(f"{len(keys)} keys with {len(records)} records")
    complete = as_bool(map_field(fields, "complete"), "complete")
    return Page(complete, keys, records, bytes_field(fields, "next", high=PLACE_BYTES_MAX))


@refusing("results of records")
def decode_results(body: bytes, records: int) -> Results:
    """The answer to an Offer or a Hold of so many records, or to a Mark."""
    fields = decode_map(body, "results of records")
    results = tuple(as_int(result, "result", high=255) for result in list_field(fields, "results", items_max=records))
    if len(results) != records:
        raise ValueError(f"{len(results)} results for {records} records")
    return Results(results)


def _bytes_list(fields: Mapping[str, Any], name: str, *, low: int, high: int) -> tuple[bytes, ...]:
    values = list_field(fields, name, items_max=EXCHANGE_KEYS_MAX)
    return tuple(as_bytes(value, name, low=low, high=high) for value in values)
