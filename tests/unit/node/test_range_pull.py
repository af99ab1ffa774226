"""A page of a range is believed only when it is one."""

from __future__ import annotations

import pytest

from leafdb.model.key import encode_key
from leafdb.node.range_pull import items_of
from leafdb.node.record_messages import Page
from leafdb.node.record_mover import ExchangeFault
from leafdb.node.view import BucketView
from leafdb.ring.token import STORAGE_KEY_END, TOKEN_BYTES, storage_key
from support.clusters import bucket

BUCKET = BucketView(bucket(), 3)
ALL = (bytes(TOKEN_BYTES), STORAGE_KEY_END)
KEYS = sorted(storage_key(BUCKET.id, encode_key(f"k{number}")) for number in range(10))


def page(keys: list[bytes], following: bytes = b"") -> Page:
    records = tuple(b"r" for _ in keys)
    return Page(complete=True, keys=tuple(key[TOKEN_BYTES:] for key in keys), records=records, next=following)


def test_keys_in_order_become_storage_keys() -> None:
    assert [key for key, _ in items_of(BUCKET, page(KEYS), *ALL)] == KEYS
    assert items_of(BUCKET, page([], KEYS[3]), *ALL) == [], "a page may show nothing and lead on"


@pytest.mark.parametrize(
    ("keys", "following", "start", "stop"),
    [
        (KEYS[::-1], b"", *ALL),
        ([KEYS[0], KEYS[0]], b"", *ALL),
        (KEYS, b"", KEYS[1], STORAGE_KEY_END),
        (KEYS, b"", ALL[0], KEYS[5]),
        (KEYS, KEYS[5], *ALL),
        (KEYS[:5], b"\xff" * 40, ALL[0], KEYS[7]),
        ([], KEYS[3], KEYS[3], STORAGE_KEY_END),
    ],
    ids=["backwards", "twice", "before the start", "beyond the end", "back", "leaves the range", "stands still"],
)
def test_a_page_that_is_none_is_refused(keys: list[bytes], following: bytes, start: bytes, stop: bytes) -> None:
    with pytest.raises(ExchangeFault):
        items_of(BUCKET, page(keys, following), start, stop)


def test_a_key_that_is_none_is_refused() -> None:
    broken = Page(complete=True, keys=(b"\xff",), records=(b"r",), next=b"")
    with pytest.raises(ExchangeFault, match="malformed"):
        items_of(BUCKET, broken, *ALL)
