"""Both sides of an exchange stepped by hand: ends, refusals, time, and peers that break the rules."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from leafdb.merkle.effects import Counts, Done, ExchangeConfig, Failed, Fetch, NeedLeaves, Offer, Send
from leafdb.merkle.exchange import Initiator
from leafdb.merkle.messages import (
    AnyMessage,
    Branches,
    Cancel,
    Compare,
    Differing,
    Equal,
    Finish,
    KeyList,
    Keys,
    Leaves,
    Refusal,
    Refuse,
    Want,
    from_wire,
)
from leafdb.merkle.responder import Responder
from leafdb.merkle.tree import LEVEL_BYTES, Tree, leaf_of, record_digest
from leafdb.types import BucketId, NodeId, PartitionId
from support.exchange_pair import INITIATOR, RESPONDER, Store, tree_of

CONFIG = ExchangeConfig()
KEY = bytes(8) + b"a\x00\x01"
LEAF = leaf_of(KEY)
MINE: Store = {KEY: b"\x01"}
THEIRS: Store = {KEY: b"\x02"}
ENTRY = (KEY, record_digest(KEY, b"\x02"))


def initiator(store: Store = MINE, config: ExchangeConfig = CONFIG) -> Initiator:
    return Initiator(
        config, peer=RESPONDER, exchange=7, bucket=BucketId(300), partition=PartitionId(3), tree=tree_of(store)
    )


def responder(store: Store = THEIRS) -> Responder:
    return Responder(CONFIG, peer=INITIATOR, exchange=7, tree=tree_of(store), now=0.0)


def branches(store: Store = THEIRS) -> Branches:
    return Branches(7, tree_of(store).branches(), len(store))


def at_keys() -> Initiator:
    """An initiator that waits for the key lists of LEAF, and has its own."""
    machine = initiator()
    machine.start(0.0)
    [ask] = machine.on_message(RESPONDER, branches(), 1.0)
    assert isinstance(ask, Send)
    assert isinstance(ask.message, Leaves)
    effects = machine.on_message(RESPONDER, Differing(7, (LEAF,)), 2.0)
    assert effects == (NeedLeaves((LEAF,)), Send(RESPONDER, Want(7, (LEAF,), b"")))
    assert machine.on_leaf(LEAF, [(KEY, record_digest(KEY, b"\x01"))], 3.0) == ()
    machine.check()
    return machine


def test_equal_roots_end_it_on_both_sides() -> None:
    machine, other = initiator(), responder(MINE)
    [ask] = machine.start(0.0)
    assert isinstance(ask, Send)
    answer, done = other.on_message(INITIATOR, ask.message, 0.0)
    assert done == Done(Counts(compared_bytes=16))
    assert answer == Send(INITIATOR, Equal(7))
    assert machine.on_message(RESPONDER, Equal(7), 0.1) == (done,)
    assert machine.ended
    assert other.ended
    assert machine.deadline() == other.deadline() == inf


def test_differing_record_is_fetched_and_then_offered() -> None:
    machine = at_keys()
    page = Keys(7, (KeyList(LEAF, True, (ENTRY,)),))
    assert machine.on_message(RESPONDER, page, 4.0) == (Fetch((KEY,)),)
    assert machine.deadline() == inf, "it is the driver's turn"
    assert machine.on_fetched(1, 50, 5.0) == (Offer((KEY,)),)
    finish, done = machine.on_offered(1, 60, 6.0)
    assert finish == Send(RESPONDER, Finish(7, 1, 1, 1))
    assert isinstance(done, Done)
    assert replace(done.counts, compared_bytes=0) == Counts(branches=1, leaves=1, keys=1, sent=1, received=1, bytes=110)


def test_what_the_merge_settled_is_not_offered() -> None:
    machine = at_keys()
    machine.on_message(RESPONDER, Keys(7, (KeyList(LEAF, True, (ENTRY,)),)), 4.0)
    finish, _ = machine.on_fetched(1, 50, 5.0, settled=[KEY])
    assert finish == Send(RESPONDER, Finish(7, 1, 0, 1))


def test_own_list_may_come_after_theirs() -> None:
    machine = initiator()
    machine.start(0.0)
    machine.on_message(RESPONDER, branches(), 1.0)
    machine.on_message(RESPONDER, Differing(7, (LEAF,)), 2.0)
    assert machine.on_message(RESPONDER, Keys(7, (KeyList(LEAF, True, (ENTRY,)),)), 4.0) == ()
    assert machine.on_leaf(LEAF, [], 4.0) == (Fetch((KEY,)),)


@pytest.mark.parametrize("reason", list(Refusal))
def test_refusal_ends_it_with_the_reason(reason: Refusal) -> None:
    machine = initiator()
    machine.start(0.0)
    [failed] = machine.on_message(RESPONDER, Refuse(7, reason), 0.1)
    assert isinstance(failed, Failed)
    assert reason.name.lower() in failed.reason


def test_silence_ends_it_on_either_side() -> None:
    machine, other = initiator(), responder()
    machine.start(10.0)
    assert machine.deadline() == 10.0 + CONFIG.reply_timeout_s
    assert machine.on_time(11.0) == ()
    cancel, failed = machine.on_time(machine.deadline())
    assert cancel == Send(RESPONDER, Cancel(7))
    assert isinstance(failed, Failed)
    assert other.deadline() == CONFIG.idle_timeout_s
    assert isinstance(other.on_time(other.deadline())[0], Failed)


def test_abort_ends_it_once_and_the_responder_does_not_call_it_done() -> None:
    machine, other = initiator(), responder()
    machine.start(0.0)
    assert isinstance(machine.abort("session lost")[-1], Failed)
    assert machine.abort("again") == ()
    assert machine.on_message(RESPONDER, Equal(7), 0.0) == ()
    [failed] = other.on_message(INITIATOR, Cancel(7), 0.0)
    assert isinstance(failed, Failed)
    assert other.abort("again") == ()


def test_others_and_other_exchanges_are_ignored() -> None:
    machine, other = initiator(), responder()
    machine.start(0.0)
    assert machine.on_message(NodeId(9), Equal(7), 0.0) == ()
    assert machine.on_message(RESPONDER, Equal(8), 0.0) == ()
    assert other.on_message(NodeId(9), Finish(7, 0, 0, 0), 0.0) == ()
    assert not machine.ended
    assert not other.ended


OUTSIDE = next(
    bytes(7) + bytes([number]) + b"b" for number in range(99) if leaf_of(bytes(7) + bytes([number]) + b"b") != LEAF
)


@pytest.mark.parametrize(
    "answer",
    [
        Equal(7),
        Keys(7, ()),
        Keys(7, (KeyList((LEAF + 1) % 1024, True, ()),)),
        Keys(7, (KeyList(LEAF, True, ()), KeyList(LEAF, True, ()))),
        Keys(7, (KeyList(LEAF, False, ()),)),
        Keys(7, (KeyList(LEAF, True, (ENTRY, ENTRY)),)),
        Keys(7, (KeyList(LEAF, True, ((OUTSIDE, ENTRY[1]),)),)),
    ],
)
def test_answers_that_were_not_asked_for_end_it(answer: AnyMessage) -> None:
    machine = at_keys()
    effects = machine.on_message(RESPONDER, answer, 4.0)
    assert [type(each) for each in effects] == [Send, Failed]


def test_leaves_outside_the_branches_sent_end_it() -> None:
    for leaves in (((LEAF + 32) % 1024,), (LEAF, LEAF)):
        machine = initiator()
        machine.start(0.0)
        machine.on_message(RESPONDER, branches(), 1.0)
        assert isinstance(machine.on_message(RESPONDER, Differing(7, leaves), 2.0)[-1], Failed)


def test_responder_keeps_no_more_lists_than_its_window_and_answers_the_first() -> None:
    other = Responder(replace(CONFIG, window_keys=2), peer=INITIATOR, exchange=7, tree=Tree(), now=0.0)
    [need] = other.on_message(INITIATOR, Want(7, (5, 6, 7), b""), 0.0)
    assert need == NeedLeaves((5, 6))
    assert other.on_leaf(9, [], 0.0) == ()
    assert other.on_leaf(5, [], 0.0) == ()
    [send] = other.on_leaf(6, [], 0.0)
    assert send == Send(INITIATOR, Keys(7, (KeyList(5, True, ()), KeyList(6, True, ()))))
    other.check()
    [need] = other.on_message(INITIATOR, Want(7, (6, 7), b""), 0.0)
    assert need == NeedLeaves((7,)), "what it has is not scanned for again"


def test_responder_ends_on_nonsense() -> None:
    for message in (Equal(7), Want(7, (), b""), Keys(7, ())):
        assert isinstance(responder().on_message(INITIATOR, message, 0.0)[-1], Failed)


MESSAGES: list[AnyMessage] = [
    Compare(1, BucketId(256), PartitionId(255), (1 << 64) - 1, 10),
    Equal(2),
    Refuse(2, Refusal.INCOMPLETE),
    Branches(3, bytes(LEVEL_BYTES), 4),
    Leaves(3, ((31, bytes(LEVEL_BYTES)), (0, bytes(LEVEL_BYTES)))),
    Differing(3, (0, 1023)),
    Want(3, (5,), b""),
    Keys(3, (KeyList(5, True, ()), KeyList(6, False, ((KEY, b"12345678"), (KEY + b"x", b"87654321"))))),
    Finish(3, 1, 2, 3),
    Cancel(3),
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
    wrongs: list[Any] = [None, -1, 1 << 64, 1.5, "x", ["x"], [[]], {"a": 1}]
    bad += [{**good, name: wrong} for name in good for wrong in wrongs]
    bad += [{**good, name: [2000] * 3} for name in ("leaves", "lists", "branches") if name in good]
    lists: list[Any] = [[5, True, [KEY], b""], [5, 1, [], b""], [5, True, [b"k"], bytes(8)]]
    bad += [{**good, "lists": [each]} for each in lists if "lists" in good]
    for value in bad:
        with pytest.raises(ValueError):
            from_wire(value)
