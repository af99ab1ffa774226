"""Hint keys, values and messages: one range per target in token order, exact round trips, typed refusals."""

from __future__ import annotations

from typing import Any

import pytest

from leafdb.hints.hint import Hint, Kind, decode, decode_key, encode, encode_key, target_range, version_of, with_record
from leafdb.hints.messages import AnyMessage, HintBatch, HintCredits, HintItem, HintsDone, HintsWaiting, from_wire
from leafdb.limits import HINT_CREDITS, NODE_ID_MAX
from leafdb.types import BucketId, NodeId


def key(target: int, bucket: int = 256, token: int = 0, rest: bytes = b"a\x00\x01") -> bytes:
    return encode_key(NodeId(target), BucketId(bucket), token.to_bytes(8, "big") + rest)


def test_bytes_are_those_of_the_format_page() -> None:
    assert key(2, 256, 0x0102030405060708).hex() == "0002000001000102030405060708610001"
    assert encode(Hint(Kind.FALLBACK, 0x18_0000_0001, b"rec")).hex() == "01010000001800000001726563"


def test_keys_of_one_target_are_one_range_in_token_order() -> None:
    ordered = [key(1, 999), key(2, 256, 5), key(2, 256, 6), key(2, 257, 0), key(3), key(NODE_ID_MAX, (1 << 32) - 2)]
    assert ordered == sorted(ordered)
    for target in (1, 2, 3, NODE_ID_MAX):
        start, stop = target_range(NodeId(target))
        assert [each for each in ordered if start <= each < stop] == [
            each for each in ordered if decode_key(each).target == target
        ]


def test_partition_is_the_top_bits_of_the_token() -> None:
    assert decode_key(key(2, token=0)).partition(256) == 0
    assert decode_key(key(2, token=(1 << 64) - 1)).partition(256) == 255
    assert decode_key(key(2, token=3 << 56)).partition(256) == 3
    assert decode_key(key(2, token=1 << 63)).partition(1) == 0


@pytest.mark.parametrize("data", [b"", b"\x00" * 14, b"\x00" * 9])
def test_short_keys_are_value_errors(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_key(data)


def test_values_round_trip_and_bad_ones_are_value_errors() -> None:
    hint = Hint(Kind.COORDINATOR, 5, b"r")
    assert decode(encode(hint)) == hint
    for bad in (b"", encode(hint)[:10], b"\x02" + encode(hint)[1:], b"\x01\x03" + encode(hint)[2:]):
        with pytest.raises(ValueError):
            decode(bad)


def test_later_hints_merge_into_the_first_and_unchanged_ones_are_not_rewritten() -> None:
    first = with_record(None, Kind.COORDINATOR, 100, b"one")
    assert with_record(first, Kind.COORDINATOR, 200, b"one") is first
    second = with_record(first, Kind.FALLBACK, 200, b"two")
    assert decode(second) == Hint(Kind.FALLBACK, 100, b"two")
    assert version_of(second) != version_of(first)


ITEM = HintItem(BucketId(300), b"\x00" * 9, b"record")
MESSAGES: list[AnyMessage] = [
    HintsWaiting(10, 1000),
    HintCredits(HINT_CREDITS),
    HintBatch(7, 3, (ITEM, ITEM)),
    HintsDone(7, (0, 5)),
    HintsDone(8),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_messages_survive_the_wire(message: AnyMessage) -> None:
    assert from_wire(message.to_wire()) == message
    assert type(message).from_wire(message.to_wire()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_malformed_messages_are_value_errors(message: AnyMessage) -> None:
    good = message.to_wire()
    bad: list[Any] = [None, [], {}, {**good, "kind": "other"}, {**good, "kind": 1}]
    bad += [{name: value for name, value in good.items() if name != missing} for missing in good]
    bad += [{**good, name: wrong} for name in good for wrong in (None, -1, 1.5, "x", b"x", ["x"])]
    bad += [{**good, name: [[300, b"", b"r"]]} for name in ("hints", "refused", "credits", "records") if name in good]
    bad += [{**good, name: [0] * (HINT_CREDITS + 1)} for name in ("hints", "refused") if name in good]
    for value in bad:
        with pytest.raises(ValueError):
            from_wire(value)
    with pytest.raises(ValueError):
        HintCredits.from_wire(HintsWaiting(1, 1).to_wire())
