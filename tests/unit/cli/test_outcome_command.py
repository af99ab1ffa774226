"""Promises of `leafdb kv outcome`: what became of a write, for a person and for a program; 9 when nobody knows."""

from __future__ import annotations

from typing import Any

from leafdb.model.key import encode_key
from support.stand_in import Run, StandIn

OP_ID = "00112233445566778899aabbccddeeff"


def applied(**other: Any) -> dict[str, Any]:
    return {
        "outcome": "applied", "bucket": "carts", "key": encode_key(("alice", "1")), "context": b"sealed",
        "replicas": ["a", "b"], "replaced": False, "errors": {}, **other,
    }  # fmt: skip


def test_a_program_reads_where_the_write_is(run: Run, node: StandIn) -> None:
    node.verbs["outcome"] = applied(errors={"c": "gone"})
    ended = run("kv", "outcome", OP_ID, "-o", "json")
    assert ended.code == 0
    assert ended.document["kind"] == "OutcomeList"
    context = ended.item.pop("context")
    assert context
    assert ended.item | {"context": ""} == {
        "op_id": OP_ID, "state": "applied", "bucket": "carts", "key": "alice", "sort_key": "1",
        "replicas": ["a", "b"], "replaced": False, "context": "",
    }  # fmt: skip
    assert ended.document["errors"] == {"c": "gone"}
    assert node.asked("outcome") == [{"op_id": bytes.fromhex(OP_ID)}]


def test_a_person_is_told_whether_it_was_replaced(run: Run, node: StandIn) -> None:
    node.verbs["outcome"] = applied(replaced=True)
    ended = run("kv", "outcome", OP_ID)
    assert "applied" in ended.out
    assert "a, b" in ended.out
    assert "alice / 1 in carts: written, and replaced since" in ended.err
    node.verbs["outcome"] = applied()
    assert "written, and there" in run("kv", "outcome", OP_ID).err


def test_what_nobody_knows_ends_with_9_and_says_who_was_not_asked(run: Run, node: StandIn) -> None:
    node.verbs["outcome"] = {"outcome": "unknown", "replicas": [], "replaced": False, "errors": {"c": "gone"}}
    ended = run("kv", "outcome", OP_ID)
    assert ended.code == 9
    assert "unknown" in ended.out
    assert "c could not be asked: gone" in ended.err
    assert "may still surface" in ended.err
    program = run("kv", "outcome", OP_ID, "-o", "json")
    assert (program.code, program.item["state"]) == (9, "unknown")


def test_what_is_no_operation_id_is_a_matter_of_usage(run: Run) -> None:
    for wrong in ("xyz", "00" * 16, "00" * 8):
        ended = run("kv", "outcome", wrong)
        assert ended.code == 2
        assert "32 hex digits" in ended.err
