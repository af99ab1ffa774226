"""Promises: what was replaced last is remembered within a bound of bytes; a copy is covered only by a record that knows
the remembered dot and does not show it."""

from __future__ import annotations

from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.live import NO_OPERATION
from leafdb.model.record import Header, Record, Sibling, encode, header
from leafdb.node.op_memory import ENTRY_BYTES, OpMemory
from leafdb.types import NodeId, TreeId

TREE = TreeId(1_000)
ACTOR = ActorIdentity(1, NodeId(1), 1).actor(1)


def op(number: int) -> bytes:
    return b"t" * 8 + number.to_bytes(8, "big")


def record(*live: tuple[Dot, bytes], known: int) -> Header:
    """A record that knows so many dots of ACTOR and shows these operations."""
    clock = CausalClock({ACTOR: known})
    return header(encode(Record(clock, {dot: Sibling(1, 0, op_id, b"v") for dot, op_id in live})))


def test_the_last_replaced_are_found_by_id_and_the_first_are_forgotten() -> None:
    memory = OpMemory(bytes_max=40 * ENTRY_BYTES)
    for number in range(1, 101):
        memory.note(TREE, b"key", [(op(number), (ACTOR, number))])
        memory.check()
        assert memory.held_bytes <= 40 * ENTRY_BYTES + 2 * (ENTRY_BYTES + 3)
    found = memory.find(op(100))
    assert found is not None
    assert (found.tree, found.storage_key, found.dot) == (TREE, b"key", (ACTOR, 100))
    kept = [number for number in range(1, 101) if memory.find(op(number)) is not None]
    assert kept == list(range(kept[0], 101)), "the newest, without a gap"
    assert 19 <= len(kept) <= 40


def test_a_write_without_an_id_is_never_remembered() -> None:
    memory = OpMemory()
    memory.note(TREE, b"key", [(NO_OPERATION, (ACTOR, 1))])
    assert len(memory) == 0
    assert memory.dot_in(NO_OPERATION, TREE, b"key") is None


def test_an_id_counts_for_its_own_key_and_bucket_only() -> None:
    memory = OpMemory()
    memory.note(TREE, b"key", [(op(1), (ACTOR, 1))])
    assert memory.dot_in(op(1), TREE, b"key") == (ACTOR, 1)
    assert memory.dot_in(op(1), TREE, b"other") is None
    assert memory.dot_in(op(1), TreeId(1_001), b"key") is None


def test_a_copy_is_covered_only_where_the_remembered_dot_is_known_and_not_shown() -> None:
    memory = OpMemory()
    memory.note(TREE, b"key", [(op(1), (ACTOR, 2))])
    shown = ((ACTOR, 3), op(9))
    assert memory.was_replaced(op(1), record(shown, known=3))
    assert memory.covered_total == 1
    assert not memory.was_replaced(op(2), record(shown, known=3)), "another operation"
    assert not memory.was_replaced(op(1), record(((ACTOR, 1), op(9)), known=1)), "the record was lost and is another"
    assert not memory.was_replaced(op(1), record(((ACTOR, 2), op(1)), shown, known=3)), "it is there"
    assert memory.covered_total == 1
