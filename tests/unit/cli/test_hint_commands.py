"""Promises of `leafdb hints`: what is kept is listed, held back, given up; what counted is lost only with consent."""

from __future__ import annotations

import re
from typing import Any

from support.source_tree import ROOT
from support.stand_in import Run, StandIn

CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NO_ERRORS: dict[str, str] = {}
HINT = {
    "holder": "a", "target": "c", "records": 10, "fallback_records": 2, "bytes": 2_048, "oldest_age_s": 60.0,
    "paused": True,
}  # fmt: skip


def purged(**other: Any) -> dict[str, Any]:
    line = {"records": 10, "fallback_records": 2, "bytes": 2_048, "ranges": 7, "kept": 0, **other}
    return {"purged": {"a": line}, "errors": NO_ERRORS}


def test_a_list_says_what_is_paused(run: Run, node: StandIn) -> None:
    node.verbs["hints.list"] = {"hints": [HINT], "paused": {"a": "c"}, "errors": NO_ERRORS}
    document = run("hints", "list", "-o", "json").document
    assert (document["items"], document["paused"]) == ([HINT], {"a": "c"})
    assert "a was told to deliver nothing to c: leafdb hints resume" in run("hints", "list").err
    keys = {key for item in document["items"] for key in item} | set(document)
    assert sorted(key for key in keys if not re.search(rf"[`\"]{key}[`\"]", CLI_PAGE)) == []


def test_delivery_is_paused_and_resumed_for_one_or_all(run: Run, node: StandIn) -> None:
    node.verbs["hints.pause"] = {"nodes": {"a": "c", "b": ""}, "errors": NO_ERRORS}
    paused = run("hints", "pause", "c", "--only", "a", "-o", "json").document
    assert paused["items"] == [{"holder": "a", "paused": "c"}, {"holder": "b", "paused": ""}]
    assert run("hints", "resume").code == 0
    assert node.asked("hints.pause") == [{"paused": True, "target": "c", "node": "a"}, {"paused": False}]
    node.verbs["hints.pause"] = {"nodes": {}, "errors": {"b": "away"}}
    assert run("hints", "pause").code == 1


def test_a_dry_run_of_a_purge_changes_nothing(run: Run, node: StandIn) -> None:
    node.verbs["hints.purge"] = purged()
    dry = run("hints", "purge", "c", "--dry-run")
    assert dry.code == 0
    assert "nothing was done" in dry.err
    assert node.asked("hints.purge") == [{"dry": True, "target": "c"}]


def test_what_counted_is_lost_only_by_who_types_the_clusters_name(run: Run, node: StandIn) -> None:
    node.verbs["hints.purge"] = purged()
    node.verbs["status"] = {"cluster": "prod"}
    refused = run("hints", "purge")
    assert refused.code == 2
    assert "2 copies on a counted for their writes" in refused.err
    assert run("hints", "purge", terminal=True, typed="no\n").code == 1
    assert all(asked["dry"] for asked in node.asked("hints.purge"))
    assert run("hints", "purge", terminal=True, typed="prod\n").code == 0
    assert node.asked("hints.purge")[-1] == {"lose": True}
    assert run("hints", "purge", "--yes", "--i-understand-data-loss").code == 0
    assert run("hints", "purge", "--keep-counted").code == 0
    assert node.asked("hints.purge")[-1] == {"lose": False}


def test_a_purge_that_loses_nothing_asks_nothing(run: Run, node: StandIn) -> None:
    node.verbs["hints.purge"] = purged(fallback_records=0)
    assert run("hints", "purge", "-o", "json").item["ranges"] == 7
    assert node.asked("hints.purge")[-1] == {"lose": False}
    node.verbs["hints.purge"] = {"purged": {}, "errors": NO_ERRORS}
    assert "there were none" in run("hints", "purge").err
