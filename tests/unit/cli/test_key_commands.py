"""Promises: which replica is behind, what has been of a key, and why it is kept, can be read on a terminal of 80
columns; the JSON has the keys that docs/cli.md says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb.errors import NotEnoughReplicas
from leafdb.explanation import Explanation, Policy, Replica, Status
from leafdb_cli import exits
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

COLUMNS = 80
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PINNED = ["bucket", "key", "token", "partition", "epoch", "replicas", "key_hash"]
STAMP = 1_795_284_184_123 << 16
HEAD = {"bucket": "carts", "key": b"x", "token": "00" * 8, "partition": 17, "epoch": 3, "errors": {}}
DOT = "00010001000000010000000000ff:7"


def write(state: str, node: str = "dev-0") -> dict[str, Any]:
    return {
        "dot": DOT, "node": node, "stamp": STAMP, "expires_ms": STAMP >> 16, "op_id": "0f" * 16, "state": state,
        "bytes": 123_456,
    }  # fmt: skip


def replica(node: str, version: str | None, behind: int | None = 0, **other: Any) -> dict[str, Any]:
    return {
        "node": node, "role": "old owner", "alive": True, "version": version, "siblings": 2 if version else 0,
        "tombstone": False, "bytes": 99, "writes": [write("live"), write("tombstone")] if version else [],
        "more_writes": 1 if version else 0, "complete": True, "synced": True, "behind": behind, "hints": [], **other,
    }  # fmt: skip


WHERE = {
    **HEAD,
    "replicas": [
        replica("dev-0", "0123456789abcdef"), replica("dev-1", "0123456789abcdef"),
        replica("dev-2", "fedcba9876543210", 3), replica("dev-3", None, 7),
        replica("dev-4", None, None, alive=False),
    ],
    "summary": ["dev-2 is behind dev-0, dev-1: 3 writes missing", "dev-4 could not be asked: " + "no session " * 12],
}  # fmt: skip
PAST = {
    **HEAD,
    "history": [
        {
            "dot": DOT, "node": "dev-0", "actor": "1.1/255", "counter": 7, "count": 1, "stamp": None, "expires_ms": 0,
            "op_id": None, "state": "replaced", "bytes": 0, "replicas": {"dev-0": "replaced", "dev-1": "replaced"},
        },
        {
            "dot": DOT, "node": "dev-0", "actor": "1.1/255", "counter": 8, "count": 1, "stamp": STAMP, "expires_ms": 0,
            "op_id": "0f" * 16, "state": "tombstone", "bytes": 0,
            "replicas": {"dev-0": "tombstone", "dev-1": "unseen"},
        },
    ],
    "summary": ["dev-1 is behind dev-0: 1 write missing"],
}  # fmt: skip
KEPT = {
    **HEAD, "kept": True, "horizon": None,
    "verdict": "no horizon has been proved for partition 17: nothing of it may be forgotten yet, for a copy that "
    "missed this could bring the old value back",
    "writes": [
        {
            "dot": DOT, "state": "tombstone", "stamp": STAMP, "death": STAMP, "below_horizon": False,
            "replicas": ["dev-0", "dev-1", "dev-2"],
        }
    ],
    "held_back_by": ["dev-4 cannot be asked, and every member has to promise: no session to node 5"],
}  # fmt: skip
SHOWN = [("kv.where", "where", WHERE), ("kv.history", "history", PAST), ("kv.why_kept", "why-kept", KEPT)]


def on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> list[str]:
    """The lines of a screen of 80 columns, notes among them."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    ended = run("kv", command, "carts", "x", "--no-color", terminal=True)
    assert ended.code == 0, ended
    return ESCAPES.sub("", ended.out + ended.err).splitlines()


@pytest.mark.parametrize(("verb", "command", "answer"), SHOWN)
def test_nothing_is_wider_than_a_terminal(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch, verb: str, command: str, answer: dict[str, Any]
) -> None:
    node.verbs[verb] = answer
    lines = on_a_terminal(run, monkeypatch, command)
    assert [line for line in lines if len(line.rstrip()) > COLUMNS] == []


@pytest.mark.parametrize(("verb", "command", "answer"), SHOWN)
def test_every_key_of_the_json_is_on_the_page_about_commands(
    run: Run, node: StandIn, verb: str, command: str, answer: dict[str, Any]
) -> None:
    node.verbs[verb] = answer
    document = run("kv", command, "carts", "x", "-o", "json").document
    (kind,) = [
        line for line in CLI_PAGE.splitlines() if line.startswith(f"| `kv {command}` |") and document["kind"] in line
    ]
    keys = set(document) - {"apiVersion", "kind", "items", "errors"}
    for item in document["items"]:
        keys |= set(item)
        for each in (*item.get("replicas", ()), *item.get("writes", ())):
            keys |= set(each) if isinstance(each, dict) else set()
    assert sorted(key for key in keys if f"`{key}`" not in kind) == []


def test_a_divergence_can_be_read(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    node.verbs["kv.where"] = WHERE
    text = "\n".join(on_a_terminal(run, monkeypatch, "where"))
    assert "dev-2 is behind dev-0, dev-1: 3 writes missing" in text
    assert re.search(r"dev-2 +old owner +version fedcba9876543210, 2 siblings, lacks 3", text)
    assert "2026-11-21 18:03:04.123 by dev-0: tombstone" in text
    plain = run("kv", "where", "carts", "x")
    assert plain.err.splitlines()[1:] == WHERE["summary"]
    assert len(plain.out.splitlines()) == 6
    (item,) = run("kv", "where", "carts", "x", "-o", "json").document["items"]
    assert list(item) == PINNED


def test_the_past_of_a_key_can_be_read(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    node.verbs["kv.history"] = PAST
    text = "\n".join(on_a_terminal(run, monkeypatch, "history"))
    assert re.search(r"not known +replaced +1 +dev-0", text)
    assert "2026-11-21 18:03:04.123" in text
    out = run("kv", "history", "carts", "x").out
    assert "tombstone on dev-0; unseen on dev-1" in out
    assert "all of 2" in out
    node.verbs["kv.history"] = {**PAST, "history": []}
    assert run("kv", "history", "carts", "x").code == exits.NOT_FOUND


def test_why_something_is_kept_can_be_read(run: Run, node: StandIn) -> None:
    node.verbs["kv.why_kept"] = KEPT
    lines = run("kv", "why-kept", "carts", "x").out.splitlines()
    assert lines[0].startswith("x: no horizon has been proved for partition 17")
    assert "what holds the horizon back:" in lines
    assert max(map(len, lines)) <= COLUMNS
    node.verbs["kv.why_kept"] = {**KEPT, "kept": False}
    assert run("kv", "why-kept", "carts", "x").code == exits.NOT_FOUND
    node.verbs["kv.why_kept"] = {**KEPT, "kept": False, "errors": {"dev-4": "no session"}}
    assert run("kv", "why-kept", "carts", "x").code == 0, "who could not be asked may have it"


def test_an_error_s_explanation_is_printed_with_it() -> None:
    error = NotEnoughReplicas("1 replicas can be reached, 2 are needed", alive=1, required=2)
    away = Replica("b", "primary", Status.AWAY)
    error.explanation = Explanation(
        "get", False, "carts", "a", (), "", 5, 3, 17, Policy(3, r=2), None, (away,), 0, None, 0.5, ()
    )
    lines = exits.explanation(error).splitlines()
    assert lines[-4:] == [
        "get in carts: failed by a after 0.5 ms, partition 17, epoch 5",
        "  b  primary  away",
        "  needed r=2 of n=3, strict",
        "  counted: nobody",
    ]
