"""A traced request is its trace and then the request itself, byte for byte; everything else is refused."""

from __future__ import annotations

import pytest

from leafdb.errors import ProtocolError
from leafdb.types import Epoch, NodeId
from leafdb.wire.body import decode_map, encode_map
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import CLIENT_REPLY_TYPES, CLIENT_REQUEST_TYPES, PEER_TYPES, MessageType
from leafdb.wire.traced import TraceContext, decode_traced, encode_traced

TRACE = TraceContext(bytes(range(16)), bytes(range(16, 24)), 1)


@pytest.mark.parametrize("message_type", [MessageType.PUT, MessageType.GET])
def test_what_goes_in_comes_out(message_type: MessageType) -> None:
    body = encode_traced(TRACE, message_type, b"request")
    assert body == bytes(range(24)) + b"\x01" + bytes([message_type]) + b"request"
    assert decode_traced(body) == (TRACE, message_type, b"request")


def test_what_is_no_traced_request_is_refused() -> None:
    whole = encode_traced(TRACE, MessageType.GET, b"")
    for short in range(len(whole)):
        with pytest.raises(ProtocolError, match="too short"):
            decode_traced(whole[:short])
    for number in (MessageType.TRACED, MessageType.ADMIN, MessageType.REPLICA_PUT, 0):
        with pytest.raises(ProtocolError, match="cannot be traced"):
            decode_traced(whole[:-1] + bytes([number]) + b"x")


def test_it_travels_from_clients_to_nodes_only() -> None:
    assert MessageType.TRACED in CLIENT_REQUEST_TYPES
    assert MessageType.TRACED not in CLIENT_REPLY_TYPES | PEER_TYPES


def test_a_node_of_a_build_before_takes_none() -> None:
    facts = ServerFacts(NodeId(1), "a", "c", b"c" * 16, Epoch(1), traces=True)
    assert ServerFacts.decode(facts.encode()).traces
    fields = dict(decode_map(facts.encode(), "a welcome"))
    del fields["traces"]
    assert not ServerFacts.decode(encode_map(fields)).traces
