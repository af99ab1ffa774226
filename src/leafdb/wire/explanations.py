"""Explanations on the wire: one bounded CBOR map, beside a reply or inside an error (docs/formats/wire.md).

    PUT_EXPLAINED, GET_EXPLAINED   explanation length u32 | explanation | body of the PUT_REPLY or GET_REPLY
    ERROR                          a field "explanation": the same bytes

A node that handed the request on puts itself into the answer as it passes. What is listed is bounded, so that an
explanation fits EXPLANATION_BYTES_MAX whatever the cluster looks like; the counts of what was left out are there. An
error is worth more than its explanation: one that cannot be read is left out of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, get_args

from leafdb.codec.fields import as_map, bool_field, int_field, list_field, map_field
from leafdb.errors import ProtocolError
from leafdb.explanation import Cause, Explanation, Follows, Hop, Policy, Replica, Status, Version, Write, WriteBack
from leafdb.limits import (
    EXPLAINED_HOPS_MAX,
    EXPLAINED_NOTES_MAX,
    EXPLAINED_REPLICAS_MAX,
    EXPLAINED_WRITES_MAX,
    EXPLANATION_BYTES_MAX,
    PARTITIONS_MAX,
)
from leafdb.wire.body import decode_map, encode_map, refusing, text_field

FIELD: Final = "explanation"
NAME_CHARS_MAX: Final = 128
NOTE_CHARS_MAX: Final = 200
US_MAX: Final = 1 << 40
COUNT_MAX: Final = 1 << 16
_LENGTH: Final = struct.Struct(">I")


def encode(explanation: Explanation) -> bytes:
    """The canonical bytes. What is over a bound is left out and counted."""
    listed = explanation.replicas[:EXPLAINED_REPLICAS_MAX]
    data = encode_map(
        {
            "operation": explanation.operation,
            "answered": explanation.answered,
            "bucket": explanation.bucket,
            "node": explanation.node,
            "forwarded_by": [[hop.node, _us(hop.waited_ms)] for hop in explanation.forwarded_by[:EXPLAINED_HOPS_MAX]],
            "forwarded_to": explanation.forwarded_to,
            "epoch": explanation.epoch,
            "range_epoch": explanation.range_epoch,
            "partition": explanation.partition,
            "policy": _policy_map(explanation.policy),
            "other_policy": _policy_map(explanation.other_policy),
            "replicas": [_replica_map(each) for each in listed],
            "more_replicas": explanation.more_replicas + len(explanation.replicas) - len(listed),
            "merged": _version_map(explanation.merged),
            "decided_us": _us(explanation.decided_ms),
            "notes": [note[:NOTE_CHARS_MAX] for note in explanation.notes[:EXPLAINED_NOTES_MAX]],
        }
    )
    assert len(data) <= EXPLANATION_BYTES_MAX
    return data


@refusing("an explanation")
def decode(data: bytes) -> Explanation:
    """The explanation that `data` is; ProtocolError when it is none."""
    if len(data) > EXPLANATION_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes")
    fields = decode_map(data, "an explanation")
    operation = text_field(fields, "operation", chars_max=8)
    if operation not in ("get", "put"):
        raise ValueError("operation is neither get nor put")
    return Explanation(
        operation="get" if operation == "get" else "put",
        answered=bool_field(fields, "answered"),
        bucket=_name(fields, "bucket"),
        node=_name(fields, "node"),
        forwarded_by=tuple(_hop(each) for each in list_field(fields, "forwarded_by", items_max=EXPLAINED_HOPS_MAX)),
        forwarded_to=_name(fields, "forwarded_to"),
        epoch=int_field(fields, "epoch"),
        range_epoch=int_field(fields, "range_epoch"),
        partition=_optional(fields, "partition", PARTITIONS_MAX),
        policy=_policy(map_field(fields, "policy")),
        other_policy=_policy(map_field(fields, "other_policy")),
        replicas=tuple(_replica(each) for each in list_field(fields, "replicas", items_max=EXPLAINED_REPLICAS_MAX)),
        more_replicas=int_field(fields, "more_replicas", high=COUNT_MAX),
        merged=_version(map_field(fields, "merged")),
        decided_ms=int_field(fields, "decided_us", high=US_MAX) / 1000,
        notes=tuple(_text(each, NOTE_CHARS_MAX) for each in list_field(fields, "notes", items_max=EXPLAINED_NOTES_MAX)),
    )


# -- beside a reply, inside an error


def join(explanation: bytes, reply: bytes) -> bytes:
    """The body of a PUT_EXPLAINED or GET_EXPLAINED frame."""
    return _LENGTH.pack(len(explanation)) + explanation + reply


def split(body: bytes) -> tuple[bytes, bytes]:
    """(explanation, reply) of such a body; ProtocolError when it is none."""
    if len(body) < _LENGTH.size:
        raise ProtocolError("an explained reply that is too short")
    (length,) = _LENGTH.unpack_from(body)
    stop = _LENGTH.size + length
    if stop > len(body):
        raise ProtocolError("an explained reply that is shorter than its explanation")
    return body[_LENGTH.size : stop], body[stop:]


def of_error(body: bytes) -> bytes | None:
    """The explanation in an ERROR body, if there is one."""
    found = decode_map(body, "an error").get(FIELD)
    return found if isinstance(found, bytes) else None


def into_error(explanation: bytes, body: bytes) -> bytes:
    """An ERROR body with this explanation in it."""
    return encode_map({**decode_map(body, "an error"), FIELD: explanation})


def readable(data: object) -> Explanation | None:
    """The explanation in an error's field; None for whatever cannot be read."""
    try:
        return decode(data) if isinstance(data, bytes) else None
    except ProtocolError:
        return None


def passed_on(explanation: bytes, node: str, waited_ms: float) -> bytes:
    """The explanation with one node more that handed the request on. ProtocolError when it is none."""
    found = decode(explanation)
    return encode(replace(found, forwarded_by=(*found.forwarded_by, Hop(node, waited_ms))))


# -- parts


def _us(ms: float) -> int:
    return min(US_MAX, max(0, round(ms * 1000)))


def _policy_map(policy: Policy | None) -> dict[str, object] | None:
    if policy is None:
        return None
    return {
        "n": policy.n, "r": policy.r, "pr": policy.pr, "w": policy.w, "pw": policy.pw,
        "durable": policy.durable, "sloppy": policy.sloppy,
    }  # fmt: skip


def _version_map(version: Version | None) -> dict[str, object] | None:
    if version is None:
        return None
    listed = version.writes[:EXPLAINED_WRITES_MAX]
    return {
        "digest": version.digest,
        "siblings": version.siblings,
        "tombstone": version.tombstone,
        "writes": [[write.dot, write.stamp, write.state] for write in listed],
        "more_writes": version.more_writes + len(version.writes) - len(listed),
    }


def _replica_map(replica: Replica) -> dict[str, object]:
    return {
        "node": replica.node,
        "role": replica.role,
        "status": str(replica.status),
        "stands_for": replica.stands_for,
        "cause": replica.cause,
        "asked_us": None if replica.asked_ms is None else _us(replica.asked_ms),
        "answered_us": None if replica.answered_ms is None else _us(replica.answered_ms),
        "counted": replica.counted,
        "behind": replica.behind,
        "write_back": replica.write_back,
        "follows": replica.follows,
        "version": _version_map(replica.version),
    }


def _policy(value: object) -> Policy | None:
    if value is None:
        return None
    fields = as_map(value, "a policy")
    counts = {name: int_field(fields, name, high=255) for name in ("n", "r", "pr", "w", "pw")}
    return Policy(**counts, durable=bool_field(fields, "durable"), sloppy=bool_field(fields, "sloppy"))


def _version(value: object) -> Version | None:
    if value is None:
        return None
    fields = as_map(value, "a version")
    return Version(
        digest=_name(fields, "digest"),
        siblings=int_field(fields, "siblings", high=COUNT_MAX),
        tombstone=bool_field(fields, "tombstone"),
        writes=tuple(_write(each) for each in list_field(fields, "writes", items_max=EXPLAINED_WRITES_MAX)),
        more_writes=int_field(fields, "more_writes", high=COUNT_MAX),
    )


def _write(value: object) -> Write:
    dot, stamp, state = _items(value, 3)
    if type(stamp) is not int:
        raise ValueError("a stamp that is no integer")
    match state:
        case "live" | "tombstone" | "expired":
            return Write(_text(dot, NAME_CHARS_MAX), stamp, state)
    raise ValueError("a write in no known state")


def _replica(value: object) -> Replica:
    fields = as_map(value, "a replica")
    return Replica(
        node=_name(fields, "node"),
        role=_name(fields, "role"),
        status=Status(_name(fields, "status")),
        stands_for=_name(fields, "stands_for"),
        cause=_one_of(fields, "cause", Cause),
        asked_ms=_ms(fields, "asked_us"),
        answered_ms=_ms(fields, "answered_us"),
        counted=bool_field(fields, "counted"),
        behind=bool_field(fields, "behind"),
        write_back=_one_of(fields, "write_back", WriteBack),
        follows=_one_of(fields, "follows", Follows),
        version=_version(map_field(fields, "version")),
    )


def _hop(value: object) -> Hop:
    node, waited_us = _items(value, 2)
    if type(waited_us) is not int:
        raise ValueError("a time that is no integer")
    return Hop(_text(node, NAME_CHARS_MAX), waited_us / 1000)


def _items(value: object, count: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(f"a list that has not {count} items")
    return value


def _name(fields: Mapping[str, Any], name: str) -> str:
    return text_field(fields, name, chars_max=NAME_CHARS_MAX)


def _text(value: object, chars_max: int) -> str:
    if not isinstance(value, str) or len(value) > chars_max:
        raise ValueError(f"not a text of at most {chars_max} characters")
    return value


def _one_of(fields: Mapping[str, Any], name: str, allowed: Any) -> Any:
    value = _name(fields, name)
    if value not in get_args(allowed):
        raise ValueError(f"{name} is {value!r}")
    return value


def _optional(fields: Mapping[str, Any], name: str, high: int) -> int | None:
    return None if map_field(fields, name) is None else int_field(fields, name, high=high)


def _ms(fields: Mapping[str, Any], name: str) -> float | None:
    us = _optional(fields, name, US_MAX)
    return None if us is None else us / 1000
