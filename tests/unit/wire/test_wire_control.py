"""Control messages read back; what a peer may not say is refused with a typed error."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.errors import ProtocolError
from leafdb.limits import SCAN_PAGE_ITEMS_MAX, SCAN_PARTITIONS_MAX
from leafdb.wire.body import decode_map
from leafdb.wire.control import (
    AdminRequest,
    MetadataFetch,
    MetadataReply,
    ScanReply,
    ScanRequest,
)

SCAN = ScanRequest(300, 1, b"\0" * 8, b"", 256, 1 << 20, False, 254, 5000)
MESSAGES: list[Any] = [
    SCAN,
    SCAN._replace(start=b"t" * 8 + b"key", stop=b"u" * 8, reverse=True, r=0),
    SCAN._replace(range_epoch=3, horizons=(0, 7 << 16)),
    ScanReply((), b"", 3),
    ScanReply((), b"", 3, complete=False, horizons=(1, 0, (1 << 64) - 1)),
    ScanReply(((b"t" * 8 + b"k", b"body"), (b"u" * 8, b"")), b"u" * 8, 3, complete=False),
    AdminRequest("bucket.create", {"properties": {"name": "carts", "n": 3}, "exist_ok": True}),
    MetadataFetch(7),
    MetadataReply(8, b"encoded"),
    MetadataReply(8, b"what changed", difference=True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_reads_back(message: Any) -> None:
    assert type(message).decode(message.encode()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_field_is_needed_and_unknown_ones_are_ignored(message: Any) -> None:
    fields = cbor.loads(message.encode())
    assert type(message).decode(cbor.dumps({**fields, "from_the_future": [1]})) == message
    for name in fields:
        if name in ("complete", "range_epoch", "horizons"):
            continue
        rest = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(ProtocolError, match=name):
            type(message).decode(cbor.dumps(rest))


@pytest.mark.parametrize(
    ("decode", "message", "change"),
    [
        (ScanRequest.decode, SCAN, {"limit": 0}),
        (ScanRequest.decode, SCAN, {"limit": SCAN_PAGE_ITEMS_MAX + 1}),
        (ScanRequest.decode, SCAN, {"reverse": 1}),
        (ScanRequest.decode, SCAN, {"r": 17}),
        (ScanRequest.decode, SCAN, {"r": True}),
        (ScanRequest.decode, SCAN, {"start": "text"}),
        (ScanRequest.decode, SCAN, {"bucket": 1 << 32}),
        (ScanRequest.decode, SCAN, {"horizons": [-1]}),
        (ScanRequest.decode, SCAN, {"horizons": [0] * (SCAN_PARTITIONS_MAX + 1)}),
        (ScanReply.decode, ScanReply((), b"", 1), {"items": [[b"short", b""]]}),
        (ScanReply.decode, ScanReply((), b"", 1), {"items": [[b"t" * 8]]}),
        (ScanReply.decode, ScanReply((), b"", 1), {"items": {}}),
        (AdminRequest.decode, AdminRequest("ping", {}), {"args": []}),
        (AdminRequest.decode, AdminRequest("ping", {}), {"args": {b"k": 1}}),
        (AdminRequest.decode, AdminRequest("ping", {}), {"verb": "v" * 65}),
        (MetadataFetch.decode, MetadataFetch(1), {"epoch": -1}),
    ],
)
def test_out_of_bounds_is_refused(decode: Callable[[bytes], object], message: Any, change: dict[str, object]) -> None:
    fields = cbor.loads(message.encode())
    with pytest.raises(ProtocolError):
        decode(cbor.dumps({**fields, **change}))


@pytest.mark.parametrize("body", [b"", b"\x80", b"\xa1\x01\x02", b"\xa0\xa0", b"\xbf\xff", b"\xc0\xa0"])
def test_what_is_not_one_map_with_text_keys_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_map(body, "a thing")


def test_mutated_bodies_give_protocol_errors_or_values() -> None:
    rng = random.Random(11)
    refused = 0
    for _ in range(60):
        for message in MESSAGES:
            body = bytearray(message.encode())
            for _ in range(rng.randrange(1, 4)):
                body[rng.randrange(len(body))] = rng.randrange(256)
            try:
                type(message).decode(bytes(body))
            except ProtocolError:
                refused += 1
    assert refused > 100
