"""What proposers and acceptors say to each other. Every message names its register and the ballot it belongs to.

    proposer -> acceptor   Prepare, Accept            (REGISTER)
    acceptor -> proposer   Promise, Accepted, Nack    (REGISTER_REPLY)

`config` is the register's generation: a fence that is raised by hand, when a control set is lost for good and its
register is begun anew; acceptors answer only their own. Changes of the control set have no number, they are in the
value. On the wire each is a map with its kind under "kind"; the kinds never change meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, assert_never

from leafdb.codec.fields import as_bytes, as_map, bytes_field, int_field, map_field
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.limits import METADATA_BYTES_MAX, RECORD_BYTES_MAX, REGISTER_NAME_BYTES_MAX

VALUE_BYTES_MAX: Final = max(METADATA_BYTES_MAX, RECORD_BYTES_MAX)


class Phase(IntEnum):
    """The half of a round that a message belongs to. The numbers cross the wire."""

    PREPARE = 1
    ACCEPT = 2


class NackReason(IntEnum):
    """Why an acceptor refused. The numbers cross the wire."""

    CONFLICT = 1
    """It has promised a higher ballot, or accepted this one."""
    STALE_CONFIG = 2
    """The proposer's generation is of the past."""
    BEHIND = 3
    """The acceptor's own is: it will catch up."""
    INCOMPLETE = 4
    """It may have forgotten a promise, and so has no vote."""
    TOO_FAR = 5
    """The ballot's counter jumps further than any honest one."""


class _Kind(IntEnum):
    PREPARE = 1
    ACCEPT = 2
    PROMISE = 3
    ACCEPTED = 4
    NACK = 5


@dataclass(frozen=True, slots=True)
class Prepare:
    """Promise to refuse lower ballots, and tell what you have accepted."""

    register: bytes
    config: int
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Accept:
    """Take this value. None is a value: that of a register nobody has written."""

    register: bytes
    config: int
    ballot: Ballot
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Promise:
    """Promised; the last value accepted and its ballot (None: never any)."""

    register: bytes
    acceptor: AcceptorId
    ballot: Ballot
    accepted: Ballot | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """Accepted, and durable."""

    register: bytes
    acceptor: AcceptorId
    ballot: Ballot


@dataclass(frozen=True, slots=True)
class Nack:
    """Refused. `promised` is what the next round must pass.

    An ACCEPT refused for CONFLICT with `accepted` below its ballot proves that the acceptor never took that value and
    never will: what it accepts only rises, and the promise is durable before this leaves.
    """

    register: bytes
    acceptor: AcceptorId
    ballot: Ballot
    phase: Phase
    reason: NackReason
    promised: Ballot | None
    accepted: Ballot | None


Request = Prepare | Accept
Reply = Promise | Accepted | Nack
Message = Request | Reply


def to_wire(message: Message) -> dict[str, Any]:
    """The plain map of a message."""
    wire: dict[str, Any] = {"register": message.register, "ballot": message.ballot.to_wire()}
    match message:
        case Prepare():
            return {**wire, "kind": int(_Kind.PREPARE), "config": message.config}
        case Accept():
            return {**wire, "kind": int(_Kind.ACCEPT), "config": message.config, "value": message.value}
        case Promise():
            accepted = _wire_or_none(message.accepted)
            wire |= {"acceptor": message.acceptor.to_wire(), "accepted": accepted, "value": message.value}
            return {**wire, "kind": int(_Kind.PROMISE)}
        case Accepted():
            return {**wire, "kind": int(_Kind.ACCEPTED), "acceptor": message.acceptor.to_wire()}
        case Nack():
            promised, taken = _wire_or_none(message.promised), _wire_or_none(message.accepted)
            wire |= {"acceptor": message.acceptor.to_wire(), "phase": int(message.phase), "reason": int(message.reason)}
            return {**wire, "kind": int(_Kind.NACK), "promised": promised, "accepted": taken}
        case unreachable:
            assert_never(unreachable)


def from_wire(value: object) -> Message:
    """The message in a decoded map. Raises ValueError when malformed."""
    fields = as_map(value, "register message")
    kind = _Kind(int_field(fields, "kind"))
    register = bytes_field(fields, "register", high=REGISTER_NAME_BYTES_MAX)
    ballot = Ballot.from_wire(map_field(fields, "ballot"))
    if kind is _Kind.PREPARE:
        return Prepare(register, int_field(fields, "config"), ballot)
    if kind is _Kind.ACCEPT:
        return Accept(register, int_field(fields, "config"), ballot, _value(fields))
    acceptor = AcceptorId.from_wire(map_field(fields, "acceptor"))
    if kind is _Kind.PROMISE:
        accepted, held = _ballot_or_none(fields, "accepted"), _value(fields)
        if accepted is None and held is not None:
            raise ValueError("a value that was never accepted")
        if accepted is not None and accepted >= ballot:
            raise ValueError("a promise of a ballot that was past already")
        return Promise(register, acceptor, ballot, accepted, held)
    if kind is _Kind.ACCEPTED:
        return Accepted(register, acceptor, ballot)
    phase, reason = Phase(int_field(fields, "phase")), NackReason(int_field(fields, "reason"))
    promised, accepted = _ballot_or_none(fields, "promised"), _ballot_or_none(fields, "accepted")
    return Nack(register, acceptor, ballot, phase, reason, promised, accepted)


def _wire_or_none(ballot: Ballot | None) -> list[int] | None:
    return None if ballot is None else ballot.to_wire()


def _value(fields: Mapping[str, Any]) -> bytes | None:
    value = map_field(fields, "value")
    return None if value is None else as_bytes(value, "value", high=VALUE_BYTES_MAX)


def _ballot_or_none(fields: Mapping[str, Any], name: str) -> Ballot | None:
    value = map_field(fields, name)
    return None if value is None else Ballot.from_wire(value)
