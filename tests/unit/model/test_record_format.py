"""Promise: a record has one encoding, its header is readable without values, and damaged bytes are RecordError."""

from __future__ import annotations

import random
from struct import Struct

import pytest

from leafdb.model import record
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.hlc import STAMP_MAX
from leafdb.model.record import Record, RecordError, Sibling
from leafdb.types import Conflict, NodeId

A, B, C = (ActorIdentity(1, NodeId(node), 1).actor(1) for node in (1, 2, 3))
OP = bytes(range(16))
ONE = record.first(A, 5 << 16, 0, OP, b"tea")
HEAD = Struct(">IQQQ16sBI")

RICH = Record(
    CausalClock({A: 3, B: 0}, frozenset({(B, 4), (C, 7), (C, 9)})),
    {
        (A, 2): Sibling(10, 0, OP, b"first"),
        (A, 3): Sibling(11, 99, OP, None),
        (B, 4): Sibling(12, 0, OP, b""),
        (C, 9): Sibling(13, 7, OP, b"last" * 100),
    },
)


def random_record(rng: random.Random) -> Record:
    clock = CausalClock.from_dots((rng.choice((A, B, C)), rng.randint(1, 5)) for _ in range(rng.randrange(8)))
    dots = [(actor, n) for actor in (A, B, C) for n in range(1, 6) if clock.covers((actor, n))]
    siblings = {}
    for dot in rng.sample(dots, rng.randint(0, len(dots))):
        value = None if rng.random() < 0.3 else rng.randbytes(rng.randrange(5))
        siblings[dot] = Sibling(rng.randrange(1 << 50), rng.choice((0, 5)), rng.randbytes(16), value)
    return Record(clock, siblings)


def test_first_is_the_encoding_of_a_one_sibling_record() -> None:
    for value in (b"tea", b"", None):
        data = record.first(A, 5 << 16, 77, OP, value)
        expected = Record(CausalClock({A: 1}), {(A, 1): Sibling(5 << 16, 77, OP, value)})
        assert record.decode(data) == expected
        assert record.encode(expected) == data


def test_round_trip_and_canonical_order() -> None:
    data = record.encode(RICH)
    decoded = record.decode(data)
    assert decoded == RICH
    assert hash(decoded) == hash(RICH)
    assert list(decoded.siblings) == sorted(RICH.siblings)
    shuffled = Record(
        CausalClock(dict(reversed(RICH.clock.vector.items())), RICH.clock.cloud),
        dict(reversed(RICH.siblings.items())),
    )
    assert record.encode(shuffled) == data
    RICH.check()


def test_random_records_survive_the_round_trip() -> None:
    rng = random.Random(11)
    for _ in range(1_000):
        made = random_record(rng)
        made.check()
        data = record.encode(made)
        assert record.decode(data) == made
        assert record.clock_of(data) == made.clock
        parsed = record.header(data)
        assert parsed.clock == made.clock
        assert {dot: parsed.sibling(dot) for dot in parsed.heads} == made.siblings
        assert [head.tombstone for head in parsed.heads.values()] == [
            sibling.value is None for _, sibling in sorted(made.siblings.items())
        ]


def test_header_and_clock_are_read_without_the_values() -> None:
    data = record.encode(RICH)
    values = sum(len(sibling.value or b"") for sibling in RICH.siblings.values())
    blanked = data[:-values] + bytes(values)
    assert record.header(blanked).heads == record.header(data).heads
    assert record.clock_of(data[:-values]) == RICH.clock


def tampered(at: int, replacement: bytes) -> bytes:
    return ONE[:at] + replacement + ONE[at + len(replacement) :]


HEAD_AT = len(ONE) - 3 - HEAD.size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ONE[:5],
        ONE[:-1],
        ONE + b"x",
        ONE[: HEAD_AT + 10],
        tampered(0, b"\x00"),
        tampered(0, b"\x02"),
        tampered(1, b"\x01"),
        tampered(2, (2).to_bytes(4, "big")),
        tampered(2, b"\xff\xff\xff\xff"),
        tampered(2, bytes(4)),
        tampered(6, b"\xff\xff"),
        tampered(8, b"\xff\xff\xff\xff"),
        tampered(HEAD_AT, (1).to_bytes(4, "big")),
        tampered(HEAD_AT + 4, (0).to_bytes(8, "big")),
        tampered(HEAD_AT + 4, (2).to_bytes(8, "big")),
        tampered(HEAD_AT + 12, (STAMP_MAX + 1).to_bytes(8, "big")),
        tampered(HEAD_AT + 44, b"\x01"),
        tampered(HEAD_AT + 44, b"\x02"),
        tampered(HEAD_AT + 45, (2).to_bytes(4, "big")),
        tampered(HEAD_AT + 45, (4).to_bytes(4, "big")),
    ],
    ids=lambda data: data.hex()[:20] + f"..{len(data)}",
)
def test_damage_is_named(data: bytes) -> None:
    for reader in (record.decode, record.header):
        with pytest.raises(RecordError):
            reader(data)


def with_heads(clock: CausalClock, heads: list[tuple[int, int]]) -> bytes:
    packed = b"".join(HEAD.pack(index, counter, 1, 0, OP, 1, 0) for index, counter in heads)
    return b"\x01\x00" + len(heads).to_bytes(4, "big") + clock.encode() + packed


@pytest.mark.parametrize(
    "heads",
    [
        [(0, 2), (0, 1)],
        [(0, 1), (0, 1)],
        [(1, 1), (0, 1)],
        [(0, 3)],
        [(0, 4)],
        [(1, 1), (2, 3)],
        [(3, 4)],
        [(9, 1)],
        [(2, 4), (1, 1)],
    ],
)
def test_siblings_out_of_order_or_uncovered_are_refused(heads: list[tuple[int, int]]) -> None:
    clock = CausalClock({A: 2, B: 1}, frozenset({(B, 4)}))
    assert record.decode(with_heads(clock, [(0, 1), (0, 2), (1, 1), (2, 4)]))
    with pytest.raises(RecordError):
        record.decode(with_heads(clock, heads))


def test_dot_order_is_by_actor_even_across_the_cloud() -> None:
    # The cloud's actor sorts before the entry's: dot order and index order differ, and dot order it is.
    clock = CausalClock({B: 1}, frozenset({(A, 2)}))
    siblings: dict[Dot, Sibling] = {(B, 1): Sibling(1, 0, OP, b"b"), (A, 2): Sibling(1, 0, OP, b"a")}
    data = record.encode(Record(clock, siblings))
    assert list(record.decode(data).siblings) == [(A, 2), (B, 1)]
    assert record.decode(with_heads(clock, [(1, 2), (0, 1)]))
    with pytest.raises(RecordError):
        record.decode(with_heads(clock, [(0, 1), (1, 2)]))


def test_random_and_mutated_bytes_are_refused_or_canonical() -> None:
    rng = random.Random(12)
    accepted = 0
    for _ in range(3_000):
        data = bytearray(record.encode(random_record(rng)))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 2, 255, rng.randrange(256)))
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)) :]
        raw = bytes(data) if rng.random() < 0.95 else rng.randbytes(rng.randrange(120))
        for read in (record.decode, record.header, record.clock_of, record.newest_stamp, merged_with_one):
            try:
                result = read(raw)
            except RecordError:
                continue
            if read is record.decode:
                assert isinstance(result, Record)
                accepted += 1
                result.check()
                assert record.encode(result) == raw
    assert accepted > 500


def merged_with_one(raw: bytes) -> None:
    for conflict in Conflict:
        record.decode(record.merge(ONE, raw, conflict))
        record.decode(record.merge(raw, ONE, conflict))


def test_described_for_people() -> None:
    text = record.describe(record.encode(RICH))
    assert "4 siblings" in text
    assert "1:1.1/1:3 at 0 ms +11 expires 99 ms" in text
    assert "tombstone" in text
    assert "unreadable record of 3 bytes" in record.describe(b"\x01\x00\x00")


def test_golden_bytes_of_version_1() -> None:
    # docs/formats/record.md. These bytes are on disks: they never change.
    x, y = ActorIdentity(0x1A2B, NodeId(1), 1).actor(65_537), ActorIdentity(0x1A2B, NodeId(2), 1).actor(7)
    op_id, stamp = bytes(range(0xA0, 0xB0)), 1_700_000_000_000 << 16
    one = bytes.fromhex(
        "01000000000100010000000"
        "01a2b000100000001000000010001000000000000000100000000000000000000000101"
        "8bcfe5680000000000000000000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf0000000003746561"
    )
    assert record.first(x, stamp, 0, op_id, b"tea") == one
    two = Record(
        CausalClock({x: 3}, frozenset({(y, 2)})),
        {
            (x, 3): Sibling(stamp, 0, op_id, b"tea"),
            (y, 2): Sibling((1_700_000_000_001 << 16) + 1, 1_700_000_060_000, op_id, None),
        },
    )
    assert record.encode(two) == bytes.fromhex(
        "0100000000020001000000011a2b00010000000100000001000100000000000000031a2b0002000000010000"
        "000000070000000000000002000000000000000000000003018bcfe5680000000000000000000000a0a1a2a3"
        "a4a5a6a7a8a9aaabacadaeaf0000000003000000010000000000000002018bcfe5680100010000018bcfe652"
        "60a0a1a2a3a4a5a6a7a8a9aaabacadaeaf0100000000746561"
    )
