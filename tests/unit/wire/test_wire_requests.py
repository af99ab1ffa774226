"""Hot bodies read back as they were written; anything cut, stretched or random is a typed error and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.errors import ProtocolError
from leafdb.limits import CONTEXT_BYTES_MAX, FLOOR_CONTEXTS_MAX
from leafdb.model.hlc import STAMP_MAX
from leafdb.quorum import messages
from leafdb.quorum.messages import MalformedMessage, ReplicaGet, ReplicaPut, ReplicaStatus
from leafdb.wire import requests
from leafdb.wire.requests import (
    FLAG_FLOOR,
    FLAG_FOLLOWS,
    GetReply,
    GetRequest,
    PutReply,
    PutRequest,
    SiblingReply,
)

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
blob = st.binary(max_size=200)
floors = st.lists(blob, max_size=FLOOR_CONTEXTS_MAX).map(tuple)
puts = st.builds(
    PutRequest, u32, u32, u32, u32, u8.map(lambda flags: flags & ~FLAG_FOLLOWS), u8, u8, u8, u64,
    st.binary(min_size=16, max_size=16), blob, blob, blob, floors,
)  # fmt: skip
gets = st.builds(GetRequest, u32, u32, u32, u32, u8.map(lambda flags: flags & ~FLAG_FLOOR), u8, u8, blob, floors)
siblings = st.lists(st.builds(SiblingReply, st.binary(min_size=14, max_size=14), u64, u64, blob), max_size=5)
quickly = settings(max_examples=50, derandomize=True, deadline=None)


@quickly
@given(puts)
def test_a_put_reads_back(put: PutRequest) -> None:
    assert requests.decode_put(requests.encode_put(put)) == put


@quickly
@given(gets)
def test_a_get_reads_back(get: GetRequest) -> None:
    assert requests.decode_get(requests.encode_get(get)) == get


@pytest.mark.parametrize(
    "floor",
    [
        b"",
        bytes((0,)),
        bytes((FLOOR_CONTEXTS_MAX + 1,)) + bytes(64),
        bytes.fromhex("01 0003 6162"),
        bytes.fromhex("02 0001 61 00"),
        b"\x01" + (CONTEXT_BYTES_MAX + 1).to_bytes(2, "big") + bytes(CONTEXT_BYTES_MAX + 1),
    ],
    ids=["missing", "of none", "of too many", "cut off", "cut off in its second", "too long"],
)
def test_a_floor_that_is_none_is_refused(floor: bytes) -> None:
    get = requests.encode_get(GetRequest(1, 1, 1, 1, FLAG_FLOOR, 1, 1, b""))
    put = requests.encode_put(PutRequest(1, 1, 1, 1, FLAG_FOLLOWS, 1, 1, 1, 1, bytes(16), b"", b"", b""))
    with pytest.raises(ProtocolError):
        requests.decode_get(get + floor)
    with pytest.raises(ProtocolError):
        requests.decode_put(put + floor)


@quickly
@given(u32, u8, u8, blob)
def test_a_put_reply_reads_back(epoch: int, acks: int, primaries: int, context: bytes) -> None:
    body = requests.encode_put_reply(epoch, acks, primaries, context)
    assert requests.decode_put_reply(body) == PutReply(epoch, acks, primaries, context)


@quickly
@given(u32, blob, siblings)
def test_a_get_reply_reads_back(epoch: int, context: bytes, found: list[SiblingReply]) -> None:
    body = requests.encode_get_reply(
        epoch, context, [(sibling.actor, sibling.counter, sibling.stamp, sibling.value) for sibling in found]
    )
    assert requests.decode_get_reply(body) == GetReply(epoch, context, tuple(found))
    for cut in range(len(body)):
        with pytest.raises(ProtocolError):
            requests.decode_get_reply(body[:cut])


@quickly
@given(puts, u32)
def test_a_forwarded_put_differs_in_its_deadline_only(put: PutRequest, deadline_ms: int) -> None:
    body = requests.with_deadline(requests.encode_put(put), deadline_ms)
    assert requests.decode_put(body) == put._replace(deadline_ms=deadline_ms)


@quickly
@given(gets, u32)
def test_a_forwarded_get_differs_in_its_deadline_only(get: GetRequest, deadline_ms: int) -> None:
    body = requests.with_deadline(requests.encode_get(get), deadline_ms)
    assert requests.decode_get(body) == get._replace(deadline_ms=deadline_ms)


@quickly
@given(st.builds(ReplicaPut, u32, u32, u32, u32, u8, u16, blob, st.binary(min_size=1, max_size=50)))
def test_a_replica_put_reads_back(put: ReplicaPut) -> None:
    assert messages.decode_replica_put(messages.encode_replica_put(*put)) == put


@quickly
@given(
    st.builds(
        ReplicaGet, u32, u32, u32, u32, u8, st.binary(min_size=1, max_size=50), st.binary(min_size=16, max_size=16)
    )
)
def test_a_replica_get_reads_back(get: ReplicaGet) -> None:
    if not get.flags & messages.FLAG_OPERATION:
        get = get._replace(op_id=b"")
    get = get._replace(flags=get.flags & ~messages.FLAG_HORIZON, horizon=0)
    assert messages.decode_replica_get(messages.encode_replica_get(*get)) == get


@quickly
@given(st.builds(ReplicaGet, u32, u32, u32, u32, u8, st.binary(min_size=1, max_size=50)), st.integers(1, STAMP_MAX))
def test_a_replica_get_about_a_horizon_reads_back(get: ReplicaGet, horizon: int) -> None:
    flags = get.flags & ~messages.FLAG_OPERATION | messages.FLAG_HORIZON
    get = get._replace(flags=flags, op_id=b"", horizon=horizon)
    body = messages.encode_replica_get(*get)
    assert messages.decode_replica_get(body) == get
    both = get._replace(flags=flags | messages.FLAG_OPERATION)
    for wrong in (messages.encode_replica_get(*both), body[:17] + bytes(8) + body[25:], body[:25]):
        with pytest.raises(MalformedMessage):
            messages.decode_replica_get(wrong)


@quickly
@given(st.binary(min_size=14, max_size=14), st.integers(0, (1 << 64) - 1), st.binary(max_size=50))
def test_what_is_remembered_of_an_operation_reads_back(actor: bytes, counter: int, record: bytes) -> None:
    assert messages.decode_replaced(messages.encode_replaced(actor, counter, record)) == (actor, counter, record)


@pytest.mark.parametrize("status", list(ReplicaStatus))
def test_a_replica_reply_reads_back(status: ReplicaStatus) -> None:
    assert messages.decode_reply(messages.encode_reply(status, b"rest")) == (status, b"rest")


DECODERS: list[tuple[Callable[[bytes], object], type[Exception]]] = [
    (requests.decode_put, ProtocolError),
    (requests.decode_get, ProtocolError),
    (requests.decode_put_reply, ProtocolError),
    (requests.decode_get_reply, ProtocolError),
    (messages.decode_replica_put, MalformedMessage),
    (messages.decode_replica_get, MalformedMessage),
    (messages.decode_reply, MalformedMessage),
    (messages.decode_replaced, MalformedMessage),
]


@pytest.mark.parametrize(("decode", "error"), DECODERS)
def test_random_bodies_give_the_typed_error_or_a_value(
    decode: Callable[[bytes], object], error: type[Exception]
) -> None:
    rng = random.Random(20261121)
    refused = 0
    for _ in range(400):
        body = rng.randbytes(rng.randrange(80))
        try:
            decode(body)
        except error:
            refused += 1
    assert refused > 0
    with pytest.raises(error):
        decode(b"")


@quickly
@given(st.integers(1, STAMP_MAX), st.binary(max_size=12))
def test_a_newer_horizon_reads_back_and_nothing_else_is_one(stamp: int, rest: bytes) -> None:
    assert messages.decode_newer_horizon(messages.encode_newer_horizon(stamp)) == stamp
    if len(rest) != 8 or not any(rest):
        with pytest.raises(MalformedMessage):
            messages.decode_newer_horizon(rest)
