"""Promises of `leafdb repair purge` and of what `repair status` says beside it: what waits to be forgotten, who holds
it up and why, in 80 columns and for a program; an exit code that scripts can trust."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb.node.purge_rules import Hold
from leafdb_cli import repair_purge
from leafdb_cli.purge_view import holders, purge_text
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def leader(node: str, **other: Any) -> dict[str, Any]:
    return {
        "node": node, "interval_s": 600.0, "waiting": 0, "oldest_s": 0.0, "horizon_ms": 0, "held_up": [], "last": {},
        "next_s": 400.0, "under_way": False, "tries": 7, **other,
    }  # fmt: skip


def held(member: str, hold: str, partitions: int, **other: Any) -> dict[str, Any]:
    return {
        "member": member, "hold": hold, "why": "it cannot be asked: it is down", "partitions": partitions,
        "since_ms": 1_700_000_000_000, "since_s": 7_200.0, **other,
    }  # fmt: skip


PURGES = [
    leader("node-a", waiting=40, oldest_s=9_000.0, held_up=[held("node-c", "unreachable", 40)]),
    leader(
        "node-b",
        waiting=12,
        oldest_s=600.0,
        next_s=42.0,
        held_up=[
            held("node-c", "unreachable", 10, since_s=60.0),
            held("node-a", "hint", 2, why="it keeps hints for node-c", since_s=30.0),
        ],
        last={"at_ms": 1_700_000_000_000, "ago_s": 125.0, "asked": 12, "raised": 3},
    ),
]
STATUS = {"repairs": [], "schedules": [], "losses": [], "purges": PURGES, "errors": {}}
SENTENCES = [
    "tombstones wait in 52 partitions, the oldest for 2h 30m; next proof in 42.0s",
    "the last proof, 2m 05s ago, let 3 of 12 partitions forget",
    "! node-a holds up 2 partitions for 30.0s: it keeps hints for node-c",
    "! node-c holds up 50 partitions for 2h 00m: it cannot be asked: it is down",
]


def test_whoever_holds_up_several_leaders_is_named_once() -> None:
    assert purge_text(PURGES) == SENTENCES
    assert [line["since_s"] for line in holders(PURGES)] == [30.0, 7_200.0]
    assert purge_text([leader("node-a")]) == ["nothing that was deleted waits to be forgotten"]
    (running,) = purge_text([leader("node-a", waiting=1, oldest_s=5.0, under_way=True)])
    assert running.endswith("the oldest for 5.0s; a proof is under way")
    assert purge_text([]) == [], "an older version cannot tell"


def test_a_person_sees_it_in_80_columns_and_a_program_all_of_it(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    node.verbs["repair.status"] = STATUS
    shown = ESCAPES.sub("", run("repair", "status", "--no-color", terminal=True).out)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    for sentence in SENTENCES:
        assert sentence in " ".join(shown.split()), sentence
    document = run("repair", "status", "-o", "json").document
    assert document["purges"] == PURGES
    keys = {key for line in PURGES for each in (line, *line["held_up"], line["last"]) for key in each}
    assert sorted(key for key in keys if not re.search(rf"`{key}`", CLI_PAGE)) == []
    assert all(hold.value in CLI_PAGE for hold in Hold)


def test_all_leaders_try_or_one_and_nobody_in_a_dry_run(run: Run, node: StandIn) -> None:
    found = {"try": 8, "waiting": 40, "oldest_s": 9_000.0}
    node.verbs["repair.purge"] = {"nodes": {"node-a": found}, "errors": {}}
    node.verbs["repair.status"] = STATUS
    assert run("repair", "purge", "--only", "node-a", "-o", "json").item == {"node": "node-a", **found}
    assert node.asked("repair.purge") == [{"node": "node-a"}]
    looked = run("repair", "purge", "--dry-run", "--only", "node-b", "-o", "json")
    assert looked.item == {"node": "node-b", "waiting": 12, "oldest_s": 600.0}
    assert "! node-c holds up 10 partitions" in looked.err
    assert len(node.asked("repair.purge")) == 1
    node.verbs["repair.purge"] = {"nodes": {}, "errors": {"node-b": "away"}}
    assert run("repair", "purge").code == 1


def test_waiting_ends_when_all_have_tried_and_says_what_is_left(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.verbs["repair.purge"] = {
        "nodes": {name: {"try": 8, "waiting": 1, "oldest_s": 1.0} for name in ("node-a", "node-b")},
        "errors": {},
    }
    half = {**STATUS, "purges": [leader("node-a", tries=8), leader("node-b")]}
    node.verbs["repair.status"] = [half, {**STATUS, "purges": [leader("node-a", tries=8), leader("node-b", tries=9)]}]
    ended = run("repair", "purge", "--wait")
    assert ended.code == 0
    assert "nothing holds anything up" in ended.err
    node.verbs["repair.status"] = {**STATUS, "purges": [{**line, "tries": 8} for line in PURGES]}
    ended = run("repair", "purge", "--wait", "-o", "json")
    assert ended.code == 1
    assert [line["member"] for line in ended.document["items"]] == ["node-a", "node-c"]
    node.verbs["repair.status"] = half
    monkeypatch.setattr(repair_purge, "WAIT_S", 0.0)
    assert run("repair", "purge", "--wait").code == 5
