"""Promises: `ring simulate` asks what it was told and stages nothing, `ring history` is in order; the lists, the ring
and the status show a plan in progress, who comes and goes, and who is banned."""

from __future__ import annotations

from typing import Any

import pytest

from leafdb.model.bucket import BucketProperties
from leafdb.types import BucketId
from support.plan_maps import cluster_of, leave, plan_map
from support.stand_in import Run, StandIn

PLAN_ID = bytes(range(16))
CHANGE = {
    "change": {
        "id": PLAN_ID, "phase": "write both, read old", "joining": ["d"], "leaving": ["b"], "removed": ["c"],
        "replaced": [["e", "f"]],
    },
    "staged": 0,
    "bans": [7, 9],
}  # fmt: skip
STILL = {"change": {}, "staged": 2, "bans": []}
TOLD = "plan 000102030405 (write both, read old): d joins, b leaves, c is removed, f replaces e"


def node_row(name: str, change: str) -> dict[str, Any]:
    return {
        "name": name, "id": 1, "host": "h", "zone": "z", "state": "alive", "client": "c", "peer": "p", "http": "h",
        "version": "1", "uptime_s": 3.0, "memory_bytes": 5, "pid": 6, "change": change,
    }  # fmt: skip


def ring_row(name: str, owned: int, then: int, change: str) -> dict[str, Any]:
    return {
        "id": ord(name), "name": name, "host": f"host-{name}", "zone": "rack-1", "state": "alive", "owned": owned,
        "share": owned / 4, "owned_next": then, "change": change,
    }  # fmt: skip


def test_a_simulation_sends_every_change_and_shows_the_plan(run: Run, node: StandIn) -> None:
    node.verbs["ring.simulate"] = plan_map(cluster_of("a", "b", "c", partitions=16), leave(2))
    shown = run(
        "ring", "simulate", "--join", "d,zone=rack-2,weight=2", "--join", "e", "--leave", "b", "--force-remove", "3",
        "--replace", "a=f,host=h9",
    )  # fmt: skip
    assert shown.code == 0
    assert "simulated: nothing is staged" in shown.out
    assert "cluster commit" not in shown.out
    assert node.asked("ring.simulate") == [
        {
            "changes": [
                {"change": "join", "name": "d", "host": "d", "zone": "rack-2", "weight": 2},
                {"change": "join", "name": "e", "host": "e", "zone": "default", "weight": 1},
                {"change": "replace", "node": "a", "name": "f", "host": "h9", "zone": "default", "weight": 1},
                {"change": "leave", "node": "b"},
                {"change": "force-remove", "node": "3"},
            ]
        }
    ]


@pytest.mark.parametrize("spec", ["", ",host=h", "a=b", "d,weight=0", "d,weight=two", "d,zone=", "d,rack=1"])
def test_a_newcomer_that_makes_no_sense_is_usage(run: Run, node: StandIn, spec: str) -> None:
    assert run("ring", "simulate", "--join", spec).code == 2
    assert node.calls == []


def test_history_is_in_the_order_of_epochs(run: Run, node: StandIn) -> None:
    items = [{"epoch": 3, "at_ms": 1_790_000_000_000, "what": "late"}, {"epoch": 2, "at_ms": 0, "what": "early"}]
    node.verbs["ring.history"] = {"items": items}
    assert [item["epoch"] for item in run("ring", "history", "-o", "json").document["items"]] == [2, 3]
    rows = run("ring", "history").out.splitlines()
    assert rows[1].split() == ["2", "-", "early"]
    assert rows[2].split()[1].startswith("2026-09-"), "a date, not milliseconds"


def test_the_ring_shows_who_comes_and_goes(run: Run, node: StandIn) -> None:
    still: dict[str, Any] = {"epoch": 5, "partitions": 4, "owners": [97, 98, 97, 98], "warnings": []}
    node.verbs["ring.show"] = {
        **still, **CHANGE, "members": [ring_row("a", 2, 2, ""), ring_row("b", 2, 0, "leaving")],
    }  # fmt: skip
    for terminal in (False, True):
        shown = run("ring", "show", "--no-color", terminal=terminal)
        (row,) = [line for line in shown.out.splitlines() if "leaving" in line]
        assert "0" in row.split()
        assert TOLD in " ".join(shown.err.split())
        assert "gone for good: nodes 7, 9" in shown.err
    document = run("ring", "show", "-o", "json").document
    assert document["plan"]["id"] == PLAN_ID.hex()
    assert document["bans"] == [7, 9]
    node.verbs["ring.show"] = {**still, **STILL, "members": [ring_row("a", 2, 2, ""), ring_row("b", 2, 2, "")]}
    quiet = run("ring", "show")
    assert "then" not in quiet.out.splitlines()[0].split()
    assert "2 changes are staged" in quiet.err


def test_node_list_has_a_column_for_changes_only_while_there_are_some(run: Run, node: StandIn) -> None:
    node.verbs["node.list"] = {"nodes": [node_row("a", ""), node_row("b", "leaving")], **CHANGE, "errors": {}}
    shown = run("node", "list")
    assert shown.out.splitlines()[0].split()[-1] == "change"
    assert TOLD in shown.err
    node.verbs["node.list"] = {"nodes": [node_row("a", "")], "change": {}, "staged": 0, "bans": [], "errors": {}}
    assert "change" not in run("node", "list").out
    assert run("node", "list", "-o", "json").err == ""


def test_status_tells_of_the_change_beside_what_is_wrong(run: Run, node: StandIn) -> None:
    node.verbs["status"] = {
        "cluster": "prod", "epoch": 3, "healthy": True, "nodes_up": 3, "nodes_total": 3, "hints_pending": 0,
        "repair_pending": 0, "problems": [], "errors": {}, **CHANGE,
    }  # fmt: skip
    assert TOLD in run("status", "--check").err
    assert TOLD in " ".join(run("status", "--no-color", terminal=True).out.split())
    document = run("status", "-o", "json").document
    assert document["plan"]["joining"] == ["d"]
    assert document["items"][0]["healthy"] is True
    assert "plan" not in document["items"][0], "the item is pinned"


def test_status_tells_problems_from_what_ends_by_itself(run: Run, node: StandIn) -> None:
    calm: dict[str, Any] = {
        "cluster": "prod", "epoch": 3, "healthy": True, "nodes_up": 3, "nodes_total": 3, "hints_pending": 0,
        "repair_pending": 5, "problems": [], "notices": ["the ring is changing: write both, read old"],
        "errors": {}, **CHANGE,
    }  # fmt: skip
    stuck = {**calm, "healthy": False, "problems": ["the change is stuck: b is down"]}
    for terminal in (False, True):
        node.verbs["status"] = calm
        shown = run("status", "--check", "--no-color", terminal=terminal)
        assert shown.code == 0
        assert "- the ring is changing: write both, read old" in shown.out
        node.verbs["status"] = stuck
        shown = run("status", "--check", "--no-color", terminal=terminal)
        assert shown.code == 7
        assert "! the change is stuck: b is down" in shown.out


def test_an_older_node_that_knows_of_no_changes_is_still_shown(run: Run, node: StandIn) -> None:
    node.verbs["status"] = {
        "cluster": "prod", "epoch": 3, "healthy": True, "nodes_up": 3, "nodes_total": 3, "hints_pending": 0,
        "repair_pending": 0, "problems": [], "errors": {},
    }  # fmt: skip
    assert run("status", "-o", "json").document["plan"] is None


def test_cluster_status_names_the_next_control_set(run: Run, node: StandIn) -> None:
    node.verbs["cluster.status"] = {
        "name": "prod", "cluster_id": b"c" * 16, "epoch": 4, "generation": 1, "feature_level": 1, "partitions": 4,
        "control": ["a", "b", "c"], "control_next": ["a", "c", "d"], "members": [node_row("a", "")], "agree": True,
        "epochs": {"a": 4}, **CHANGE, "errors": {},
    }  # fmt: skip
    shown = run("cluster", "status")
    assert "a, c, d" in shown.out
    assert TOLD in shown.err
    assert run("cluster", "status", "-o", "json").item["plan"]["id"] == PLAN_ID.hex()


def test_properties_of_a_bucket_are_sent_as_the_wire_has_them(run: Run, node: StandIn) -> None:
    made = BucketProperties(id=BucketId(256), name="carts", generation=3, w=3, ttl_ms=604_800_000)
    node.verbs["bucket.set"] = {"epoch": 9, "bucket": made.to_wire()}
    shown = run("bucket", "set", "carts", "w=all", "r=1", "dw=0", "pw=quorum", "ttl=7d", "sloppy=false", "-o", "json")
    assert shown.item["ttl_s"] == 604_800
    assert run("bucket", "set", "carts", "ttl=none", "n=5").code == 0
    assert node.asked("bucket.set") == [
        {
            "name": "carts",
            "properties": {"w": 255, "r": 1, "dw": 0, "pw": 254, "ttl_ms": 604_800_000, "sloppy": False},
        },
        {"name": "carts", "properties": {"ttl_ms": 0, "n": "5"}},
    ], "what cannot change is for the node to refuse"
