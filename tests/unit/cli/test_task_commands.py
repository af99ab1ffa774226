"""Promises of `leafdb task`: every long job has one name, by which it is shown, waited for and taken back."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb_cli import task
from leafdb_cli.task_list import is_task_name
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PLAN = bytes(range(16))


def repair(number: int, **other: Any) -> dict[str, Any]:
    return {
        "node": "dev-0", "task": number, "kind": "repair", "reason": "repair of every bucket", "asked": True,
        "state": "running", "partitions_total": 128, "partitions_done": 32, "eta_s": 123.0, "waiting_for": {},
        "last_error": "", **other,
    }  # fmt: skip


def verify(**other: Any) -> dict[str, Any]:
    return {
        "node": "dev-1", "task": 2, "kind": "verify", "state": "running", "error": "", "elapsed_s": 1.0, "files": 3,
        "files_total": 4, "bytes_read": 3 << 20, "bytes_total": 4 << 20, "damages_found": 0, "damages": [], **other,
    }  # fmt: skip


FLUSH = {"node": "dev-1", "task": 1, "kind": "flush", "state": "done", "error": "", "elapsed_s": 0.1}
MOVING = {
    "epoch": 9, "plan_id": PLAN, "phase": "write both, read old", "waiting": [], "errors": {},
    "items": [{
        "node": 4, "name": "dev-3", "total": 100, "left": 25, "settled": False, "bytes_done": 3, "bytes_left": 1,
        "bytes_per_s": 1, "eta_s": 60.0, "waiting_for": [],
    }],
}  # fmt: skip
IDLE = {"epoch": 9, "plan_id": b"", "phase": "", "items": [], "waiting": [], "errors": {}}


@pytest.fixture(autouse=True)
def jobs(node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair, a verification, a flush that is done, and a plan."""
    monkeypatch.setattr(task, "POLL_S", 0.0)
    node.verbs |= {
        "repair.status": {"repairs": [repair(3, waiting_for={"dev-2": "it cannot be reached"})], "errors": {}},
        "storage.tasks": {"tasks": [FLUSH, verify()], "errors": {}},
        "transfer.list": MOVING,
    }


def test_all_kinds_are_one_list_with_those_that_go_on_first(run: Run) -> None:
    document = run("task", "list", "--all", "-o", "json").document
    assert document["kind"] == "TaskList"
    assert [(item["id"], item["state"], item["share"], item["cancellable"]) for item in document["items"]] == [
        ("transfer/000102030405", "running", 0.75, False),
        ("repair/dev-0/3", "running", 0.25, True),
        ("verify/dev-1/2", "running", 0.75, True),
        ("flush/dev-1/1", "done", 1.0, False),
    ]
    keys = {key for item in document["items"] for key in item}
    assert sorted(key for key in keys if not re.search(rf"`{key}`", CLI_PAGE)) == []
    assert [item["id"] for item in run("task", "list", "-o", "json").document["items"]] == [
        "transfer/000102030405", "repair/dev-0/3", "verify/dev-1/2",
    ]  # fmt: skip


def test_a_table_says_what_is_waited_for(run: Run, node: StandIn) -> None:
    ended = run("task", "list")
    assert [line.split()[0] for line in ended.out.splitlines()][1:] == [
        "transfer/000102030405", "repair/dev-0/3", "verify/dev-1/2",
    ]  # fmt: skip
    assert "repair/dev-0/3 waits for dev-2: it cannot be reached" in ended.err
    node.verbs |= {"repair.status": {"repairs": []}, "storage.tasks": {"tasks": []}, "transfer.list": IDLE}
    assert "nothing is under way" in run("task", "list").err


def test_a_node_without_one_of_the_verbs_tells_of_the_others(run: Run, node: StandIn) -> None:
    node.verbs["storage.tasks"] = NotApplied("no such verb", reason=Reason.UNSUPPORTED)
    assert [item["kind"] for item in run("task", "list", "-o", "json").document["items"]] == ["transfer", "repair"]


def test_one_is_shown_by_its_name(run: Run) -> None:
    assert run("task", "show", "verify/dev-1/2", "-o", "json").item["what"] == "3/4 files, 3.0 MiB of 4.0 MiB"
    assert run("task", "show", f"transfer/{PLAN.hex()}", "-o", "json").item["kind"] == "transfer"
    missing = run("task", "show", "repair/dev-0/9")
    assert missing.code == 3
    assert "leafdb task list --all" in missing.err


@pytest.mark.parametrize("name", ["", "3", "repair/3", "repair/dev-0/x", "backup/dev-0/3", "transfer/xyz"])
def test_what_is_no_name_is_usage(run: Run, name: str) -> None:
    assert not is_task_name(name)
    ended = run("task", "show", name)
    assert ended.code == 2
    assert "leafdb task list names them" in " ".join(ended.err.split())


def test_waiting_ends_with_the_task(run: Run, node: StandIn) -> None:
    begun, done = ({"tasks": [verify(state=state)]} for state in ("running", "done"))
    node.verbs["storage.tasks"] = [begun, begun, done]
    assert run("task", "wait", "verify/dev-1/2", "-o", "json").item["state"] == "done"


@pytest.mark.parametrize(("state", "says"), [("failed", "failed: no room"), ("cancelled", "was taken back")])
def test_waiting_for_what_does_not_get_done_is_code_1(run: Run, node: StandIn, state: str, says: str) -> None:
    error = "no room" if state == "failed" else ""
    node.verbs["storage.tasks"] = {"tasks": [verify(state=state, error=error)]}
    ended = run("task", "wait", "verify/dev-1/2")
    assert ended.code == 1
    assert says in ended.err


def test_waiting_is_bounded_and_says_how_far_it_is(run: Run) -> None:
    late = run("task", "wait", "repair/dev-0/3", "--wait", "--timeout", "50ms")
    assert late.code == 5
    assert "25 %" in late.err
    assert "leafdb task show repair/dev-0/3" in late.err


def test_a_task_of_a_node_that_is_away_may_be_there(run: Run, node: StandIn) -> None:
    node.verbs["repair.status"] = {"repairs": [], "errors": {"dev-0": "no session"}}
    away = run("task", "show", "repair/dev-0/3")
    assert away.code == 5
    assert "no session" in away.err


def test_a_repair_and_a_verification_are_taken_back(run: Run, node: StandIn) -> None:
    node.verbs |= {"repair.cancel": {"task": "dev-0/3"}, "storage.stop": {"nodes": ["dev-1"]}}
    assert run("task", "cancel", "repair/dev-0/3").code == 0
    assert node.asked("repair.cancel") == [{"task": "dev-0/3"}]
    assert run("task", "cancel", "verify/dev-1/2").code == 0
    assert node.asked("storage.stop") == [{"node": "dev-1"}]


def test_what_cannot_be_taken_back_says_why_and_what_to_do(run: Run, node: StandIn) -> None:
    node.verbs["repair.status"] = {"repairs": [repair(3, asked=False)]}
    for name, why, hint in (
        ("repair/dev-0/3", "it is owed", "leafdb task show"),
        ("flush/dev-1/1", "it has ended", "leafdb task show"),
        (f"transfer/{PLAN.hex()}", "in one piece", "leafdb cluster abort"),
    ):
        ended = run("task", "cancel", name)
        assert ended.code == 1
        assert why in ended.err
        assert hint in ended.err
    assert {verb for verb, _ in node.calls} == {"repair.status", "storage.tasks", "transfer.list"}, (
        "nothing was asked for"
    )
