"""Promises of `leafdb storage snapshot`: made, listed and dropped on all members or one; who could not is said."""

from __future__ import annotations

import re
from typing import Any

from support.source_tree import ROOT
from support.stand_in import Run, StandIn

CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NO_ERRORS: dict[str, str] = {}


def line(**other: Any) -> dict[str, Any]:
    return {
        "node": "a", "name": "monday", "age_s": 60.0, "sequence": 7, "trees": 2, "files": 3, "bytes": 2_048,
        "problem": "", **other,
    }  # fmt: skip


def test_one_is_made_everywhere_or_of_a_bucket_on_one_member(run: Run, node: StandIn) -> None:
    node.verbs["snapshots.create"] = {"snapshots": [line()], "errors": NO_ERRORS}
    made = run("storage", "snapshot", "create", "monday", "-o", "json")
    assert (made.code, made.document["kind"], made.document["items"]) == (0, "SnapshotList", [line()])
    assert run("storage", "snapshot", "create", "monday", "--bucket", "carts", "--only", "a").code == 0
    asked = [{"name": "monday"}, {"name": "monday", "bucket": "carts", "node": "a"}]
    assert node.asked("snapshots.create") == asked


def test_a_member_that_could_not_make_it_fails_the_command(run: Run, node: StandIn) -> None:
    node.verbs["snapshots.create"] = {"snapshots": [line()], "errors": {"b": "there is a snapshot monday already"}}
    ended = run("storage", "snapshot", "create", "monday")
    assert ended.code == 1
    assert "monday already" in ended.err
    assert "monday" in ended.out


def test_the_list_says_what_is_wrong_and_what_disk_they_cost(run: Run, node: StandIn) -> None:
    items = [line(), line(node="b", age_s=None, problem="CURRENT is missing")]
    node.verbs["snapshots.list"] = {"snapshots": items, "held": {"a": 0, "b": 5 << 20}, "errors": NO_ERRORS}
    ended = run("storage", "snapshot", "list")
    assert "CURRENT is missing" in ended.out
    assert "b keeps 5.0 MiB on disk for snapshots alone" in ended.err
    assert "a keeps" not in ended.err
    document = run("storage", "snapshot", "list", "-o", "json").document
    assert (document["items"], document["held"]) == (items, {"a": 0, "b": 5 << 20})
    keys = {key for item in document["items"] for key in item} | set(document)
    assert sorted(key for key in keys if not re.search(rf"[`\"]{key}[`\"]", CLI_PAGE)) == []


def test_one_is_dropped_everywhere_or_on_one_member(run: Run, node: StandIn) -> None:
    node.verbs["snapshots.drop"] = {"dropped": ["a", "b"], "errors": NO_ERRORS}
    dropped = run("storage", "snapshot", "drop", "monday", "-o", "json").document
    assert dropped["items"] == [{"node": "a"}, {"node": "b"}]
    node.verbs["snapshots.drop"] = {"dropped": ["a"], "errors": {"b": "cannot be reached"}}
    assert run("storage", "snapshot", "drop", "monday", "--only", "b").code == 1
    assert node.asked("snapshots.drop") == [{"name": "monday"}, {"name": "monday", "node": "b"}]
