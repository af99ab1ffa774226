"""Promises of `leafdb storage`: stores are shown, tasks are begun and seen to their end, damage is said and is no 0."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb_cli import storage
from leafdb_cli.storage_view import progress_text
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NO_ERRORS: dict[str, str] = {}
STORE = {
    "trees": [{"tree": "carts", "bytes": 3 << 20, "levels": [[0, 2, 1 << 20, 100, 4], [1, 1, 2 << 20, 200, 0]]}],
    "more_trees": 3, "more_bytes": 5_000, "tables": 6, "table_bytes": 4 << 20, "wal_segments": 2, "wal_bytes": 70_000,
    "memtable_bytes": 40_000, "frozen_memtables": 1, "frozen_bytes": 30_000, "debt_bytes": 1 << 20, "slowed": 0.4,
    "refusals": 7, "cache_bytes": 9_000, "cache_bytes_max": 32 << 20, "cache_hits": 90, "cache_misses": 10,
    "disk_free_bytes": 1 << 30, "disk_full": False, "flushes": 12, "flushed_bytes": 1, "compactions": 3,
    "compaction_bytes_read": 2, "compaction_bytes_written": 3, "failed_jobs": 1,
    "dropped_tables": 2, "dropped_bytes": 5 << 20,
    "compacting": {"tree": "carts", "level": 2, "tables": 5, "bytes": 80 << 20, "asked": True, "elapsed_s": 3.0,
                   "share": 0.25},
}  # fmt: skip
DAMAGE = {
    "path": "tables/0000000012.sst", "offset": 40, "what": "tables/0000000012.sst at 40: checksum mismatch",
    "tree": "carts", "smallest": b"\xff\x00", "largest": b"zz", "partitions": [12, 40],
}  # fmt: skip


def task(kind: str, state: str = "done", number: int = 1, node: str = "a", **more: Any) -> dict[str, Any]:
    return {"node": node, "task": number, "kind": kind, "state": state, "error": "", "elapsed_s": 4.0, **more}


def verified(state: str = "done", **more: Any) -> dict[str, Any]:
    found = {
        "files": 5, "files_total": 9, "bytes_read": 1 << 20, "bytes_total": 2 << 20, "damaged_files": 0,
        "damages_found": 0, "damages": [],
    }  # fmt: skip
    return task("verify", state, **{**found, **more})


COMPACTED: dict[str, Any] = {
    "trees": 1, "trees_total": 2, "tree": "carts", "level": 1, "last_level": 3, "jobs": 4, "bytes_read": 10,
    "bytes_written": 9, "skipped": 0, "share": 0.5,
}  # fmt: skip


def on_the_page(value: Any) -> list[str]:
    """The names in a JSON document that docs/cli.md does not have."""
    if isinstance(value, dict):
        here = [key for key in value if not re.search(rf"[`\"]{key}[`\"]", CLI_PAGE)]
        return here + [name for each in value.values() for name in on_the_page(each)]
    return [name for each in value for name in on_the_page(each)] if isinstance(value, list) else []


def test_stats_show_every_tree_by_level_and_what_is_behind(run: Run, node: StandIn) -> None:
    node.verbs["storage.stats"] = {"nodes": {"a": STORE}, "errors": {"b": "away"}}
    shown = run("storage", "stats")
    assert shown.out.splitlines()[1].split() == ["a", "carts", "L0:2", "L1:1", "3.0", "MiB", "300", "4"]
    for said in (
        "a: and 3 more trees with 4.9 KiB",
        "hits 90 % of 100",
        "compacts carts to level 2, as somebody asked: 5 tables, 80.0 MiB, for 3.0s, in 25% of the time",
        "! a: writes are slowed (40%)",
        "a: dropped whole, since all of it had expired: 2 tables, 5.0 MiB",
        "compaction is behind by 1.0 MiB",
        "! a: 1 flushes or compactions failed",
        "b could not be asked: away",
    ):
        assert said in shown.err
    document = run("storage", "stats", "--only", "a", "-o", "json").document
    assert node.asked("storage.stats")[-1] == {"node": "a"}
    (item,) = document["items"]
    assert (document["kind"], item["node"], item["debt_bytes"]) == ("StoreList", "a", 1 << 20)
    assert item["trees"][0]["levels"][0] == {
        "level": 0, "tables": 2, "bytes": 1 << 20, "entries": 100, "tombstones": 4,
    }  # fmt: skip
    assert on_the_page(item) == []
    assert "carts" in run("storage", "stats", terminal=True).out


def test_a_task_is_begun_and_not_waited_for(run: Run, node: StandIn) -> None:
    node.verbs["storage.flush"] = {"tasks": {"a": 3, "b": 1}, "errors": NO_ERRORS}
    begun = run("storage", "flush", "-o", "json")
    assert begun.document["items"] == [{"node": "a", "task": 3}, {"node": "b", "task": 1}]
    assert begun.code == 0
    node.verbs["storage.compact"] = {"tasks": {"a": 1}, "errors": {"b": "away"}}
    assert run("storage", "compact", "--bucket", "carts").code == 1
    assert node.asked("storage.compact") == [{"bucket": "carts"}]


def test_waiting_sees_every_task_to_its_end(run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    node.verbs["storage.compact"] = {"tasks": {"a": 2}, "errors": NO_ERRORS}
    old = task("compact", number=1, **COMPACTED)
    node.verbs["storage.tasks"] = [
        {"tasks": [task("compact", "running", 2, **COMPACTED)], "errors": NO_ERRORS},
        {"tasks": [], "errors": {"a": "no answer in time"}},
        {"tasks": [task("compact", "done", 2, **{**COMPACTED, "skipped": 1})], "errors": NO_ERRORS},
    ]
    waited = run("storage", "compact", "--wait", "-o", "json")
    assert (waited.code, waited.item["state"], waited.item["skipped"]) == (0, "done", 1)
    assert on_the_page(waited.item) == []
    assert len(node.asked("storage.tasks")) == 3
    assert "carts L1 in 50% of the time" in progress_text(task("compact", "running", 2, **COMPACTED))
    node.verbs["storage.tasks"] = {"tasks": [old], "errors": NO_ERRORS}
    lost = run("storage", "compact", "--wait")
    assert (lost.code, "started again" in lost.err) == (1, True)
    node.verbs["storage.tasks"] = {"tasks": [task("compact", "running", 2)], "errors": NO_ERRORS}
    monkeypatch.setattr(storage, "WAIT_S", 0.0)
    patient = run("storage", "compact", "--wait")
    assert (patient.code, "leafdb storage tasks" in patient.err) == (5, True)


def test_damage_is_told_with_what_to_do_and_ends_with_7(run: Run, node: StandIn) -> None:
    node.verbs["storage.verify"] = {"tasks": {"a": 1, "b": 1}, "errors": NO_ERRORS}
    ruined = verified(damages=[DAMAGE], damages_found=3, damaged_files=1)
    node.verbs["storage.tasks"] = {"tasks": [ruined, verified(node="b")], "errors": NO_ERRORS}
    found = run("storage", "verify", "--wait")
    assert found.code == 7
    assert "! a: tables/0000000012.sst at 40: checksum mismatch in carts, partitions 12 to 40" in found.err
    assert "! a: and 2 damaged places more" in found.err
    assert "files of a are damaged" in found.err
    assert "docs/operations/storage.md" in found.err
    assert (ROOT / "docs/operations/storage.md").exists()
    document = run("storage", "verify", "--wait", "-o", "json").document
    assert document["items"][0]["damages"][0]["smallest_base64"] == "/wA="
    assert on_the_page(document["items"]) == ["smallest_base64"]
    assert run("storage", "verify", "--watch", terminal=True).code == 7


def test_a_sound_verification_ends_with_0_and_one_that_was_stopped_does_not(run: Run, node: StandIn) -> None:
    node.verbs["storage.verify"] = {"tasks": {"a": 1}, "errors": NO_ERRORS}
    node.verbs["storage.tasks"] = {"tasks": [verified()], "errors": NO_ERRORS}
    assert run("storage", "verify", "--wait", "--bytes-per-second", "1MiB").code == 0
    assert run("storage", "verify", "--wait", "--bytes-per-second", "none", "--only", "a").code == 0
    assert node.asked("storage.verify") == [{"bytes_per_s": 1 << 20}, {"bytes_per_s": 0, "node": "a"}]
    assert run("storage", "verify", "--bytes-per-second", "much").code == 2
    node.verbs["storage.tasks"] = {"tasks": [verified("cancelled")], "errors": NO_ERRORS}
    assert run("storage", "verify", "--wait").code == 1
    node.verbs["storage.stop"] = {"nodes": ["a"], "errors": NO_ERRORS}
    assert run("storage", "verify", "--stop", "-o", "json").item == {"node": "a"}


def test_tasks_are_shown_until_none_is_running(run: Run, node: StandIn) -> None:
    node.verbs["storage.tasks"] = [
        {"tasks": [verified("running")], "errors": NO_ERRORS},
        {"tasks": [verified(), task("flush")], "errors": NO_ERRORS},
    ]
    shown = run("storage", "tasks", "--watch")
    assert "5/9 files, 1.0 MiB of 2.0 MiB" in shown.out
    assert shown.out.splitlines()[-1].split() == ["a", "flush", "done", "-", "4.0s"]
    node.verbs["storage.tasks"] = {"tasks": [], "errors": NO_ERRORS}
    assert "nobody has asked" in run("storage", "tasks").err
