"""A frame comes out as it went in however the stream cuts it; nothing invalid gets past its header."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.errors import ProtocolError
from leafdb.limits import FRAME_BYTES_MAX
from leafdb.wire.frame import HEADER_BYTES, Frame, FrameReader, encode_frame
from leafdb.wire.registry import (
    CLIENT_REPLY_TYPES,
    CLIENT_REQUEST_TYPES,
    FIRST_PEER_TYPE,
    KNOWN_TYPES,
    PEER_TYPES,
    REPLY_TYPES,
    Lane,
    MessageType,
    lane_of,
)

frames = st.lists(
    st.builds(
        Frame,
        st.sampled_from(sorted(KNOWN_TYPES)),
        st.integers(0, (1 << 64) - 1),
        st.binary(max_size=300),
    ),
    max_size=12,
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(frames, st.integers(0, 2**32))
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[Frame], seed: int) -> None:
    stream = b"".join(encode_frame(*frame) for frame in sent)
    rng = random.Random(seed)
    reader = FrameReader(FRAME_BYTES_MAX)
    got: list[Frame] = []
    at = 0
    while at < len(stream):
        size = rng.choice((1, 2, 7, HEADER_BYTES, 50, 1000))
        got += reader.feed(stream[at : at + size])
        reader.check()
        at += size
    assert got == sent
    assert reader.buffered_bytes == 0


@settings(max_examples=40, derandomize=True, deadline=None)
@given(frames, st.integers(0, 2**32))
def test_feed_one_takes_one_frame_and_keeps_the_rest(sent: list[Frame], seed: int) -> None:
    stream = b"".join(encode_frame(*frame) for frame in sent)
    cut = random.Random(seed).randrange(len(stream) + 1)
    reader = FrameReader(FRAME_BYTES_MAX)
    got = []
    for part in (stream[:cut], stream[cut:]):
        frame = reader.feed_one(part)
        while frame is not None:
            got.append(frame)
            reader.check()
            frame = reader.feed_one(b"")
    assert got == sent


def test_feed_goes_on_where_feed_one_stopped() -> None:
    sent = [Frame(MessageType.HELLO, 0, b"h"), Frame(MessageType.PUT, 7, b"p" * 50), Frame(MessageType.GET, 8, b"")]
    stream = b"".join(encode_frame(*frame) for frame in sent)
    reader = FrameReader(FRAME_BYTES_MAX)
    assert reader.feed_one(stream[:-3]) == sent[0]
    assert reader.feed(b"") == [sent[1]]
    assert reader.feed(stream[-3:]) == [sent[2]]
    reader.check()


def test_a_large_frame_in_small_pieces_costs_linear_work() -> None:
    """Not timed: copying what is kept for every piece would be 500 GB of copying here, and never end."""
    body = bytes(8_000_000)
    stream = encode_frame(MessageType.PUT, 1, body)
    reader = FrameReader(FRAME_BYTES_MAX)
    got: list[Frame] = []
    for at in range(0, len(stream), 64):
        got += reader.feed(stream[at : at + 64])
        if at == 64:
            assert reader.wanted_bytes == len(stream)
    assert got == [Frame(MessageType.PUT, 1, body)]
    assert reader.wanted_bytes == 0


def test_a_flipped_bit_anywhere_behind_the_length_is_refused_or_waits() -> None:
    stream = encode_frame(MessageType.PUT, 99, b"precious bytes")
    for bit in range(4 * 8, len(stream) * 8):
        damaged = bytearray(stream)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(ProtocolError):
            FrameReader(FRAME_BYTES_MAX).feed(bytes(damaged))


def test_an_overlong_frame_is_refused_at_its_header() -> None:
    stream = encode_frame(MessageType.PUT, 1, bytes(101))
    reader = FrameReader(100)
    with pytest.raises(ProtocolError, match="over the bound of 100"):
        reader.feed(stream[:HEADER_BYTES])
    assert reader.buffered_bytes == 0


@pytest.mark.parametrize(("offset", "byte"), [(8, 0x00), (8, 0x7F), (9, 0x01)])
def test_unknown_types_and_flags_are_refused(offset: int, byte: int) -> None:
    stream = bytearray(encode_frame(MessageType.PUT, 1, b"x"))
    stream[offset] = byte
    for call in (FrameReader.feed, FrameReader.feed_one):
        with pytest.raises(ProtocolError, match="unknown message type"):
            call(FrameReader(100), bytes(stream))


def test_a_type_that_is_known_but_not_allowed_is_named() -> None:
    reader = FrameReader(100, CLIENT_REQUEST_TYPES)
    with pytest.raises(ProtocolError, match="REPLICA_PUT is not allowed"):
        reader.feed(encode_frame(MessageType.REPLICA_PUT, 1, b"x"))


def test_no_peer_type_is_open_to_clients_and_every_type_has_a_lane() -> None:
    assert all(number < FIRST_PEER_TYPE for number in CLIENT_REQUEST_TYPES | CLIENT_REPLY_TYPES)
    assert {MessageType.REPLICA_PUT, MessageType.REGISTER, MessageType.HINTS, MessageType.PUT_REPLY} <= PEER_TYPES
    assert MessageType.PUT not in PEER_TYPES
    assert MessageType.PUT_REPLY in REPLY_TYPES
    assert MessageType.PUT not in REPLY_TYPES
    assert lane_of(MessageType.MEMBERSHIP) is Lane.CONTROL
    assert lane_of(MessageType.FORWARD_PUT) is Lane.REQUESTS
    assert lane_of(MessageType.RECORDS) is Lane.BULK


def test_the_documented_example_is_what_is_sent() -> None:
    assert encode_frame(MessageType.PING, 7, b"").hex(" ") == "00 00 00 00 87 3a 60 bc 06 00 00 00 00 00 00 00 00 07"
