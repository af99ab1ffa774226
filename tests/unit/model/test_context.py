"""Promise: a context opens only in the cluster, bucket and for the key that it was sealed for, and as it was sealed."""

from __future__ import annotations

import random

import pytest

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock
from leafdb.model.context import CONTEXT_VERSION, EMPTY_CONTEXT_BYTES, ContextError, ContextSealer, Past, past_in
from leafdb.model.hlc import STAMP_MAX
from leafdb.model.key import encode_key
from leafdb.types import BucketId, NodeId

A, B = (ActorIdentity(1, NodeId(node), 1).actor(1) for node in (1, 2))
CLOCK = CausalClock({A: 7, B: 0}, frozenset({(B, 3)}))
SEALER = ContextSealer(b"k" * 32)
BUCKET = BucketId(300)
STAMP = 1_700_000_000_000 << 16 | 5
KEY = encode_key("alice")


@pytest.mark.parametrize("stamp", [0, STAMP, STAMP_MAX])
@pytest.mark.parametrize("clock", [EMPTY, CausalClock({A: 1}), CLOCK], ids=repr)
def test_round_trip(clock: CausalClock, stamp: int) -> None:
    sealed = SEALER.seal(clock, stamp, BUCKET, KEY)
    assert sealed[0] == CONTEXT_VERSION
    assert SEALER.open(sealed, BUCKET, KEY) == Past(clock, stamp)
    assert ContextSealer(b"k" * 32).open(sealed, BUCKET, KEY) == Past(clock, stamp)
    assert past_in(sealed) == Past(clock, stamp)
    assert (len(sealed) == EMPTY_CONTEXT_BYTES) == (not clock)


def test_sealing_is_deterministic() -> None:
    assert SEALER.seal(CLOCK, STAMP, BUCKET, KEY) == SEALER.seal(CLOCK, STAMP, BUCKET, KEY)


@pytest.mark.parametrize(
    ("sealer", "bucket", "key"),
    [
        (ContextSealer(b"x" * 32), BUCKET, KEY),
        (SEALER, BucketId(301), KEY),
        (SEALER, BUCKET, encode_key("bob")),
        (SEALER, BUCKET, KEY[:-1]),
        (SEALER, BUCKET, b""),
    ],
)
def test_elsewhere_it_is_refused(sealer: ContextSealer, bucket: BucketId, key: bytes) -> None:
    with pytest.raises(ContextError, match="not a context"):
        sealer.open(SEALER.seal(CLOCK, STAMP, BUCKET, KEY), bucket, key)


def test_bytes_cannot_move_between_key_and_payload() -> None:
    sealed = SEALER.seal(CLOCK, STAMP, BUCKET, KEY)
    for shift in range(1, 5):
        with pytest.raises(ContextError):
            SEALER.open(sealed[shift:], BUCKET, KEY + sealed[:shift])
        with pytest.raises(ContextError):
            SEALER.open(KEY[-shift:] + sealed, BUCKET, KEY[:-shift])


def test_every_changed_bit_is_noticed() -> None:
    sealed = SEALER.seal(CLOCK, STAMP, BUCKET, KEY)
    for at in range(len(sealed)):
        for bit in range(8):
            forged = bytearray(sealed)
            forged[at] ^= 1 << bit
            with pytest.raises(ContextError):
                SEALER.open(bytes(forged), BUCKET, KEY)


def test_garbage_is_refused() -> None:
    rng = random.Random(10)
    for size in (0, 1, 11, 12, 13, 100):
        with pytest.raises(ContextError):
            SEALER.open(rng.randbytes(size), BUCKET, KEY)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x02" + bytes(8) + EMPTY.encode(), b"\x01", b"\x01" + bytes(8), b"\x01" + bytes(13),
     b"\x01\xff" + bytes(7) + EMPTY.encode(), b"\x01" + CLOCK.encode()],
    ids=bytes.hex,
)  # fmt: skip
def test_a_sound_seal_over_an_unknown_payload_is_refused(payload: bytes) -> None:
    # As another version of leafdb in the same cluster would make it.
    sealed = payload + SEALER._mac(payload, BUCKET, KEY)
    with pytest.raises(ContextError, match=r"version|stamp|clock"):
        SEALER.open(sealed, BUCKET, KEY)
    with pytest.raises(ContextError):
        past_in(sealed)


def test_keys_of_other_lengths_are_refused() -> None:
    for size in (0, 15, 65):
        with pytest.raises(ValueError, match="sealing key"):
            ContextSealer(bytes(size))


def test_golden_bytes_of_version_1() -> None:
    # docs/formats/context.md. Clients hold such bytes.
    x, y = ActorIdentity(0x1A2B, NodeId(1), 1).actor(65_537), ActorIdentity(0x1A2B, NodeId(2), 1).actor(7)
    clock = CausalClock({x: 3}, frozenset({(y, 2)}))
    stamp = 0x018BCFE568010001
    assert ContextSealer(bytes(range(32))).seal(clock, stamp, BucketId(256), KEY) == bytes.fromhex(
        "01018bcfe5680100010001000000011a2b00010000000100000001000100000000000000031a2b00020000000100000000000700"
        "00000000000002c5ace32303d3386b1f43d3f1"
    )
