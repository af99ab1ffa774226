"""Promises of `leafdb repair`: what runs, what it waits for and what is promised, for a person in 80 columns and for a
program; exit codes that scripts can trust."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb.model.key import encode_key
from leafdb_cli import repair
from leafdb_cli.repair import parse_range
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NO_ERRORS: dict[str, str] = {}


def task(node: str, number: int, **other: Any) -> dict[str, Any]:
    return {
        "node": node, "task": number, "kind": "repair", "reason": "repair of every bucket", "asked": True,
        "state": "running", "partitions_total": 128, "partitions_done": 64, "keys_differing": 1_200, "keys_sent": 700,
        "keys_received": 500, "bytes": 3 << 30, "bytes_per_s": 20 << 20, "eta_s": 123.0, "started_at": 1,
        "waiting_for": {}, "last_error": "", **other,
    }  # fmt: skip


def schedule(node: str, **other: Any) -> dict[str, Any]:
    return {
        "node": node, "age_max_s": 86_400.0, "configured_s": 86_400.0, "set": False, "paused": False, "ranges": 512,
        "due": 17, "under_way": 1, "oldest_s": 50_000.0, "over_age": [], **other,
    }  # fmt: skip


LOSS = {"node": "node-b", "partitions": [1, 2, 3], "at_ms": 1_700_000_000_000, "acknowledged_ms": None}
OVER = {"peer": "node-c", "ranges": 128, "oldest_s": 93_600.0, "why": "it cannot be reached"}
STATUS = {
    "repairs": [
        task("node-a", 3, waiting_for={"node-c": "it cannot be reached"}, last_error="no answer in time"),
        task("node-b", 12, state="done", partitions_done=128, eta_s=None),
    ],
    "schedules": [schedule("node-a", over_age=[OVER]), schedule("node-b", paused=True)],
    "losses": [
        LOSS,
        {**LOSS, "acknowledged_ms": 1_700_000_100_000},
        {**LOSS, "node": "node-c", "returned": True},
    ],
    "unsure": [{"node": "node-c", "why": "this store has forgotten something", "partitions": [1, 2]}],
    "errors": {"node-c": "no session"},
}


def test_a_person_sees_tasks_ages_and_losses_in_80_columns(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    node.verbs["repair.status"] = STATUS
    ended = run("repair", "status", "--no-color", terminal=True)
    shown = ESCAPES.sub("", ended.out)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    for wanted in (
        "node-a/3  running  repair of every bucket", "64 of 128 ranges  3.0 GiB  20.0 MiB/s  2m 03s left",
        "1200 keys differed, 700 sent, 500 received", "! waits for node-c: it cannot be reached",
        "! last error: no answer in time", "node-b/12  done", "promised is 1d 00h",
        "! node-b begins none by itself: its schedule is paused",
        "! node-b: since 2023-11-14 22:13:20 UTC writes may be lost in 3 partitions",
        "! node-c: since 2023-11-14 22:13:20 UTC deleted values may be back in 3",
        "! node-c: this store has forgotten something, in 2 partitions",
    ):  # fmt: skip
        assert wanted in shown, wanted
    assert "! node-a: 128 ranges with node-c not compared for 1d 02h" in shown
    assert "- node-b: since" in shown, "what was read is no alarm"
    assert "node-c could not be asked: no session" in ended.err


def test_json_has_everything_and_the_page_about_commands_its_keys(run: Run, node: StandIn) -> None:
    node.verbs["repair.status"] = STATUS
    node.verbs["repair.schedule"] = {"schedules": STATUS["schedules"], "errors": NO_ERRORS}
    document = run("repair", "status", "-o", "json").document
    assert document["items"] == STATUS["repairs"]
    assert document["schedules"] == STATUS["schedules"]
    assert document["losses"] == STATUS["losses"]
    assert document["unsure"] == STATUS["unsure"]
    schedules = run("repair", "schedule", "-o", "json").document
    assert schedules["kind"] == "RepairScheduleList"
    keys = set(document) | {key for line in (*document["items"], *schedules["items"]) for key in line}
    assert sorted(key for key in keys if not re.search(rf"[`\"]{key}[`\"]", CLI_PAGE)) == []


def test_a_run_is_of_a_bucket_a_range_a_member_and_waited_for(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.verbs["repair.run"] = {"task": "node-a/3", "tasks": {"node-a": 3}, "errors": NO_ERRORS}
    begun = run("repair", "run", "--bucket", "carts", "--range", "0-63", "--only", "node-a", "-o", "json")
    assert begun.item == {"node": "node-a", "task": 3}
    assert node.asked("repair.run") == [{"bucket": "carts", "node": "node-a", "range": [0, 63]}]
    done = {"repairs": [task("node-a", 3, state="done"), task("node-a", 2)]}
    node.verbs["repair.status"] = [STATUS, done]
    assert run("repair", "run", "--wait").code == 0
    node.verbs["repair.status"] = {"repairs": [task("node-a", 3, state="cancelled")]}
    assert run("repair", "run", "--wait").code == 1
    node.verbs["repair.status"] = STATUS
    monkeypatch.setattr(repair, "WAIT_S", 0.0)
    assert run("repair", "run", "--wait").code == 5
    node.verbs["repair.run"] = {"task": "", "tasks": {}, "errors": {"node-b": "away"}}
    assert run("repair", "run").code == 1


def test_a_task_is_cancelled_by_its_name(run: Run, node: StandIn) -> None:
    node.verbs["repair.cancel"] = {"task": "node-a/3"}
    assert run("repair", "cancel", "node-a/3").code == 0
    assert node.asked("repair.cancel") == [{"task": "node-a/3"}]
    assert run("repair", "cancel", "3").code == 2
    node.verbs["repair.cancel"] = NotApplied("no repair 3 is running on node-a", reason=Reason.NO_SUCH_TASK)
    ended = run("repair", "cancel", "node-a/3")
    assert ended.code == 3
    assert "leafdb task list names the tasks" in ended.err


def test_the_schedule_is_shown_set_paused_and_resumed(run: Run, node: StandIn) -> None:
    node.verbs["repair.schedule"] = {"schedules": [schedule("node-a")], "errors": NO_ERRORS}
    for words in (("show",), ("set", "6h"), ("set", "configured"), ("pause", "--only", "node-a"), ("resume",)):
        assert run("repair", "schedule", *words).code == 0
    assert node.asked("repair.schedule") == [
        {}, {"age_s": 21_600}, {"age_s": 0}, {"paused": True, "node": "node-a"}, {"paused": False},
    ]  # fmt: skip
    assert run("repair", "schedule", "set", "soon").code == 2
    node.verbs["repair.schedule"] = {"schedules": [], "errors": {"node-b": "away"}}
    assert run("repair", "schedule", "pause").code == 1


def test_losses_are_acknowledged(run: Run, node: StandIn) -> None:
    node.verbs["repair.acknowledge"] = {"nodes": {"node-b": 3}, "errors": NO_ERRORS}
    assert run("repair", "acknowledge", "-o", "json").item == {"node": "node-b", "partitions": 3}
    node.verbs["repair.acknowledge"] = {"nodes": {}, "errors": NO_ERRORS}
    assert "nothing was waiting" in run("repair", "acknowledge").err


def test_ranges() -> None:
    assert (parse_range("7"), parse_range("0-63")) == ([7, 7], [0, 63])
    for wrong in ("a", "7-", "9-3", "-1", "1-2-3"):
        with pytest.raises(Exception, match="neither a partition"):
            parse_range(wrong)


VERSION = {
    "version": "00000000000000ab", "bytes": 100, "siblings": 1, "tombstones": 0, "written_ms": 1_700_000_000_000,
    "clock": "1.1.1/1:1",
}  # fmt: skip
WHERE = {"bucket": "carts", "partition": 7, "peer": "node-b"}
FOUND: dict[str, Any] = {
    "state": "done", "ranges_compared": 128, "ranges_failed": 0, "ranges_differing": 1, "only_here": 0, "only_there": 1,
    "different": 1, "keys_differing": 2, "keys_sent": 1, "keys_received": 2, "bytes": 2_048, "last_error": "",
    "ranges": [{**WHERE, "only_here": 0, "only_there": 1, "different": 1}],
    "samples": [
        {**WHERE, "key": encode_key("alice"), "here": None, "there": VERSION},
        {
            **WHERE, "key": encode_key(("bob", b"\xff")), "here": {**VERSION, "siblings": 0, "tombstones": 1},
            "there": VERSION,
        },
    ],
}  # fmt: skip


def test_a_dry_run_shows_ranges_and_keys_with_both_versions(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.verbs["repair.dry"] = {"tasks": {"node-a": 5}, "errors": NO_ERRORS}
    node.verbs["repair.status"] = {"repairs": [task("node-a", 5, kind="dry run", state="done")]}
    node.verbs["repair.findings"] = {"findings": {"node-a": FOUND}, "errors": NO_ERRORS}
    document = run("repair", "run", "--dry-run", "--bucket", "carts", "-o", "json").document
    assert node.asked("repair.dry") == [{"bucket": "carts"}]
    assert "repair.run" not in [verb for verb, _ in node.calls]
    assert document["items"] == [{"node": "node-a", **FOUND["ranges"][0]}]
    alice, bob = document["samples"]
    assert (alice["key"], alice["here"], alice["there"]) == ("alice", None, VERSION)
    assert (bob["key"], bob["sort_key_base64"]) == ("bob", "/w==")
    keys = set(document) | {key for line in (*document["items"], *document["totals"], alice) for key in line}
    assert sorted(key for key in keys if not re.search(rf"[`\"]{key}[`\"]", CLI_PAGE)) == []

    monkeypatch.setenv("COLUMNS", "80")
    ended = run("repair", "run", "--dry-run", "--no-color", terminal=True)
    shown = ESCAPES.sub("", ended.out)
    assert "on node-b: 00000000000000ab  1 value, 100 B, 2023-11-14 22:13:20 UTC" in shown
    assert "on node-a: nothing" in shown
    assert "on node-a: 00000000000000ab  deleted, 100 B" in shown
    assert "nothing was moved" in ended.err
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80
    plain = run("repair", "run", "--dry-run")
    assert "node-a: 1 of 128 ranges differ; a repair would find 2 keys, send 1, receive 2, 2.0 KiB" in plain.err

    node.verbs["repair.status"] = {"repairs": [task("node-a", 5, kind="dry run", state="failed")]}
    assert run("repair", "run", "--dry-run").code == 1
