"""Explanations cross the wire whole, within their bound, and never cost the answer they belong to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.errors import NotApplied, ProtocolError, Reason
from leafdb.explanation import Explanation, Hop, Policy, Replica, Status, Version, Write
from leafdb.limits import EXPLAINED_REPLICAS_MAX, EXPLAINED_WRITES_MAX, EXPLANATION_BYTES_MAX
from leafdb.wire import explanations
from leafdb.wire.errors import decode_error, encode_error

VERSION = Version("00112233445566ff", 2, False, (Write("ab:1", 1 << 60, "live"), Write("ab:2", 5, "tombstone")), 3)
FULL = Explanation(
    operation="get",
    answered=True,
    bucket="carts",
    node="a",
    forwarded_by=(Hop("d", 4.25),),
    forwarded_to="",
    epoch=7,
    range_epoch=3,
    partition=17,
    policy=Policy(n=3, r=2, pr=1, sloppy=True),
    other_policy=Policy(n=3, r=2),
    replicas=(
        Replica("a", "both", Status.FOUND, "", "first", 0.0, 0.125, True, True, "confirmed", "", VERSION),
        Replica("b", "fallback", Status.LOST, "c", "hedge", 1.5, None, False, False, "", "read repair", None),
        Replica("c", "old owner", Status.AWAY),
    ),
    more_replicas=0,
    merged=VERSION,
    decided_ms=2.5,
    notes=("the ring changed",),
)


def test_an_explanation_crosses_the_wire_whole() -> None:
    assert explanations.decode(explanations.encode(FULL)) == FULL
    bare = replace(FULL, partition=None, policy=None, other_policy=None, replicas=(), merged=None, notes=())
    assert explanations.decode(explanations.encode(bare)) == bare
    assert explanations.split(explanations.join(b"told", b"reply")) == (b"told", b"reply")


def test_the_greatest_explanation_fits_its_bound_and_counts_what_it_leaves_out() -> None:
    name = "\N{CJK UNIFIED IDEOGRAPH-8449}" * 42  # a member's name has at most 128 bytes
    wide = Version("f" * 16, 64, False, tuple(Write("f" * 28 + f":{1 << 63}", 1 << 62, "tombstone") for _ in range(20)))
    one = Replica(
        name, "old owner", Status.NOT_A_REPLICA, name, "spare", 1e9, 1e9, True, True, "confirmed", "hint", wide
    )
    most = replace(FULL, replicas=(one,) * 100, notes=(name * 20,) * 100, merged=wide, node=name)
    data = explanations.encode(most)
    assert EXPLANATION_BYTES_MAX // 4 < len(data) <= EXPLANATION_BYTES_MAX
    told = explanations.decode(data)
    assert (len(told.replicas), told.more_replicas) == (EXPLAINED_REPLICAS_MAX, 100 - EXPLAINED_REPLICAS_MAX)
    assert told.merged is not None
    assert (len(told.merged.writes), told.merged.more_writes) == (EXPLAINED_WRITES_MAX, 20 - EXPLAINED_WRITES_MAX)
    passed = explanations.decode(explanations.passed_on(data, name, 1.0))
    assert [hop.node for hop in passed.forwarded_by] == ["d", name]


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "scan"}, {"answered": 1}, {"node": 7}, {"node": "n" * 200}, {"partition": -1}, {"policy": []},
        {"replicas": [{}]}, {"replicas": {}}, {"merged": 3}, {"forwarded_by": [["a"]]}, {"forwarded_by": [["a", "b"]]},
        {"notes": [b"bytes"]}, {"decided_us": "soon"}, {"more_replicas": None},
    ],
)  # fmt: skip
def test_what_is_no_explanation_is_refused(change: dict[str, Any]) -> None:
    fields = {**cbor.loads(explanations.encode(FULL)), **change}
    with pytest.raises(ProtocolError):
        explanations.decode(cbor.dumps(fields))
    for name in fields:
        with pytest.raises(ProtocolError):
            explanations.decode(cbor.dumps({other: value for other, value in fields.items() if other != name}))


@pytest.mark.parametrize(
    "change", [{"status": "fine"}, {"cause": "why"}, {"write_back": 1}, {"version": {}}, {"asked_us": 1.5}]
)
def test_a_replica_that_cannot_be_read_is_refused(change: dict[str, Any]) -> None:
    fields = cbor.loads(explanations.encode(FULL))
    fields["replicas"][0].update(change)
    with pytest.raises(ProtocolError):
        explanations.decode(cbor.dumps(fields))


def test_an_error_carries_its_explanation_and_outlives_one_that_cannot_be_read() -> None:
    body = encode_error(NotApplied("no", reason=Reason.DRAINING))
    assert explanations.of_error(body) is None
    assert decode_error(body).explanation is None
    told = explanations.into_error(explanations.encode(FULL), body)
    assert explanations.of_error(told) == explanations.encode(FULL)
    error = decode_error(told)
    assert error.explanation == FULL
    assert isinstance(error, NotApplied)
    assert decode_error(explanations.into_error(b"nonsense", body)).explanation is None


def test_people_can_read_it_and_programs_get_every_field() -> None:
    assert str(FULL) == (
        "get in carts: answered by a after 2.5 ms, partition 17, epoch 7\n"
        "  a  both       found  0.0 to 0.1 ms  00112233445566ff 2 siblings\n"
        "  b  for c      lost   1.5            hedge\n"
        "  c  old owner  away\n"
        "  d holds no copy, handed it on and waited 4.2 ms\n"
        "  needed r=2, pr=1 of n=3, sloppy\n"
        "  needed r=2 of n=3, strict, of the other owners\n"
        "  counted: a\n"
        "  behind: a\n"
        "  merged to 00112233445566ff 2 siblings\n"
        "  brought up to date before the answer: a\n"
        "  sent what they lack, nobody waits for it: b\n"
        "  the ring changed"
    )
    plain = FULL.to_json()
    assert plain["replicas"][1]["status"] == "lost"
    assert plain["policy"] == {"n": 3, "r": 2, "pr": 1, "w": 0, "pw": 0, "durable": False, "sloppy": True}
    assert plain["forwarded_by"] == [{"node": "d", "waited_ms": 4.25}]
    assert cbor.loads(cbor.dumps(plain)) == plain


def test_a_page_for_people_fits_a_terminal() -> None:
    replicas = tuple(
        replace(each, node=f"node-{each.node}", stands_for="node-z", asked_ms=1.0) for each in FULL.replicas
    )
    wide = replace(FULL, replicas=(*replicas, replace(replicas[0], status=Status.UNANSWERED, answered_ms=1234.5)))
    assert max(map(len, str(wide).splitlines())) <= 80
