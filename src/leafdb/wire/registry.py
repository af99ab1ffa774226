"""The one table of message numbers. A number never changes its meaning and is never used again for another.

Ranges: 0x01-0x0F handshake and session, 0x10-0x3F client requests and answers, 0x40-0x7F between nodes only (refused on
client sessions). The lanes say on which of a peer's three streams a message travels, so that liveness never queues
behind bytes. Drawn in docs/formats/wire.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

PROTOCOL_VERSION: Final = 1


class MessageType(IntEnum):
    """Number of each message on the wire."""

    # handshake and session
    HELLO = 0x01
    CHALLENGE = 0x02
    PROOF = 0x03
    WELCOME = 0x04
    ERROR = 0x05
    PING = 0x06
    PONG = 0x07

    # client requests and their answers
    PUT = 0x10
    PUT_REPLY = 0x11
    GET = 0x12
    GET_REPLY = 0x13
    SCAN = 0x14
    SCAN_REPLY = 0x15
    ADMIN = 0x16
    ADMIN_REPLY = 0x17
    PUT_EXPLAINED = 0x18
    GET_EXPLAINED = 0x19
    TRACED = 0x30

    # between nodes: requests lane
    REPLICA_PUT = 0x40
    REPLICA_PUT_REPLY = 0x41
    REPLICA_GET = 0x42
    REPLICA_GET_REPLY = 0x43
    FORWARD_PUT = 0x44
    FORWARD_GET = 0x45
    REPLICA_SCAN = 0x46
    REPLICA_SCAN_REPLY = 0x47

    # between nodes: control lane
    MEMBERSHIP = 0x50
    METADATA_FETCH = 0x51
    METADATA_REPLY = 0x52
    REGISTER = 0x53
    REGISTER_REPLY = 0x54
    PEER_ADMIN = 0x55
    PEER_ADMIN_REPLY = 0x56

    # between nodes: bulk lane
    HINTS = 0x60
    HINTS_REPLY = 0x61
    EXCHANGE = 0x62
    EXCHANGE_REPLY = 0x63
    RECORDS = 0x64
    RECORDS_REPLY = 0x65


class Lane(IntEnum):
    """One of the three streams between two nodes."""

    CONTROL = 1
    REQUESTS = 2
    BULK = 3


FIRST_PEER_TYPE: Final = 0x40


def lane_of(message_type: int) -> Lane:
    """The lane a peer message travels on."""
    if message_type >= 0x60:
        return Lane.BULK
    if message_type >= 0x50:
        return Lane.CONTROL
    return Lane.REQUESTS


KNOWN_TYPES: Final = frozenset(int(member) for member in MessageType)

REPLY_TYPES: Final = frozenset(
    int(member)
    for member in MessageType
    if member.name.endswith(("_REPLY", "_EXPLAINED")) or member in (MessageType.ERROR, MessageType.PONG)
)
"""Answers: their request id was chosen by the side that receives them."""

SESSION_TYPES: Final = frozenset({int(MessageType.ERROR), int(MessageType.PING), int(MessageType.PONG)})
HANDSHAKE_TYPES: Final = frozenset(
    int(member)
    for member in (
        MessageType.HELLO,
        MessageType.CHALLENGE,
        MessageType.PROOF,
        MessageType.WELCOME,
        MessageType.ERROR,
    )
)
CLIENT_REQUEST_TYPES: Final = SESSION_TYPES | {
    int(member)
    for member in (MessageType.PUT, MessageType.GET, MessageType.SCAN, MessageType.ADMIN, MessageType.TRACED)
}
"""What a node takes from a client."""
CLIENT_REPLY_TYPES: Final = SESSION_TYPES | {
    int(member)
    for member in (
        MessageType.PUT_REPLY,
        MessageType.GET_REPLY,
        MessageType.SCAN_REPLY,
        MessageType.ADMIN_REPLY,
        MessageType.PUT_EXPLAINED,
        MessageType.GET_EXPLAINED,
    )
}
"""What a client takes from a node."""
PEER_TYPES: Final = (
    SESSION_TYPES
    | {number for number in KNOWN_TYPES if number >= FIRST_PEER_TYPE}
    | {int(MessageType.PUT_REPLY), int(MessageType.GET_REPLY)}
    | {int(MessageType.PUT_EXPLAINED), int(MessageType.GET_EXPLAINED)}
)
"""What nodes take from each other: a FORWARD_PUT or FORWARD_GET is answered by the client's own kind of reply."""
STRANGER_REQUEST_TYPES: Final = SESSION_TYPES | {int(MessageType.PEER_ADMIN)}
"""What a node takes from one that knows the secret and has no number, or shows none: founding, joining, who is who."""
STRANGER_REPLY_TYPES: Final = SESSION_TYPES | {int(MessageType.PEER_ADMIN_REPLY)}
"""What it takes while it is the stranger itself."""

assert not CLIENT_REQUEST_TYPES & {number for number in KNOWN_TYPES if number >= FIRST_PEER_TYPE}
assert all(lane_of(number) in Lane for number in KNOWN_TYPES)
