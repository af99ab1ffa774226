"""Promises: what people watch while a ring changes fits a terminal of 80 columns, folded nowhere but between words, and
is JSON of which docs/cli.md says every key."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb_cli.render import Column, fitting
from support.plan_maps import cluster_of, force_remove, join, leave, plan_map
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

COLUMNS = 80
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

PLAN_ID = bytes(range(16))
CHANGE = {
    "id": PLAN_ID, "phase": "write both, read old", "joining": ["node-d", "node-e"], "leaving": ["node-b"],
    "removed": [], "replaced": [["node-c", "node-f"]],
}  # fmt: skip
NAMES = ("node-a", "node-b", "node-c", "node-d", "node-e", "node-f")
DOING = ("", "leaving", "replaced by node-f", "joining", "joining", "replaces node-c")


def member(number: int, **other: Any) -> dict[str, Any]:
    return {
        "id": number, "name": NAMES[number - 1], "host": f"host-{number}", "zone": f"rack-{1 + number % 2}",
        "weight": number, "state": "suspect", "owned": 64, "share": 0.25, "owned_next": 43,
        "change": DOING[number - 1], **other,
    }  # fmt: skip


def row(number: int) -> dict[str, Any]:
    address = f"10.100.100.{number}"
    return {
        "id": number, "name": NAMES[number - 1], "host": f"host-{number}", "zone": f"rack-{1 + number % 2}",
        "weight": number, "state": "unreachable", "client": f"{address}:7411", "peer": f"{address}:7412",
        "http": f"{address}:7413", "version": "0.1.0", "uptime_s": 500_000.0, "memory_bytes": 300 << 20,
        "pid": 1_234_567, "boot": 3, "worker_pid": 1_234_568, "epoch": 12_345, "change": DOING[number - 1],
    }  # fmt: skip


def receiver(name: str, left: int) -> dict[str, Any]:
    return {
        "node": 4, "name": name, "total": 768, "left": left, "settled": False, "bytes_done": 900 << 30,
        "bytes_left": 999 << 30, "bytes_per_s": 999 << 20, "eta_s": 90_000.0, "waiting_for": ["node-b"],
    }  # fmt: skip


CHANGING: dict[str, Any] = {"change": CHANGE, "staged": 0, "bans": [7, 9], "errors": {}}
STATUS = {
    "cluster": "production", "epoch": 12_345, "healthy": False, "nodes_up": 5, "nodes_total": 6, "hints_pending": 12,
    "repair_pending": 345, "problems": ["node-b cannot be reached: no session to node 2: connection refused " * 2],
    "notices": ["the ring is changing: write both, read old", "the change waits: node-d has 5 of 768 exchanges to do"],
    **CHANGING,
}  # fmt: skip
SHOWN: list[tuple[str, tuple[str, ...], dict[str, Any]]] = [
    ("ring.show", ("ring", "show"), {
        "epoch": 12_345, "partitions": 256, "owners": [1 + index % 4 for index in range(256)], "warnings": [],
        "members": [member(number) for number in range(1, 7)], **CHANGING,
    }),
    ("cluster.plan", ("cluster", "plan"), plan_map(cluster_of(*NAMES[:3]), join("node-d", 4), leave(2))),
    ("cluster.plan", ("cluster", "plan"), plan_map(
        cluster_of(*NAMES[:3]), force_remove(2), force_remove(3), dead=(2, 3)
    )),
    ("transfer.list", ("transfer", "list"), {
        "epoch": 12_345, "plan_id": PLAN_ID, "phase": "write both, read old",
        "items": [receiver("node-d", 5), receiver("node-e", 700)], "waiting": ["the step is due"], "errors": {},
    }),
    ("cluster.status", ("cluster", "status"), {
        "name": "production", "cluster_id": b"c" * 16, "epoch": 12_345, "generation": 1, "feature_level": 1,
        "partitions": 256, "control": list(NAMES[:3]), "control_next": list(NAMES[1:4]), "waiting": [],
        "members": [row(number) for number in range(1, 7)], "agree": True, "epochs": {"node-a": 12_345}, **CHANGING,
    }),
    ("status", ("status",), STATUS),
    ("node.list", ("node", "list"), {"nodes": [row(number) for number in range(1, 7)], **CHANGING}),
]  # fmt: skip


def on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """The lines of a screen of 80 columns, notes among them."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    ended = run(*arguments, "--no-color", terminal=True)
    assert ended.code == 0, ended
    return ESCAPES.sub("", ended.out + ended.err).splitlines()


@pytest.mark.parametrize(("verb", "command", "answer"), SHOWN)
def test_nothing_is_wider_than_a_terminal(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch,
    verb: str, command: tuple[str, ...], answer: dict[str, Any],
) -> None:  # fmt: skip
    node.verbs[verb] = answer
    lines = on_a_terminal(run, monkeypatch, *command)
    assert [line for line in lines if len(line.rstrip()) > COLUMNS] == []
    words = re.sub(r"[^\w-]+", " ", " ".join(lines)).split()
    for name in {name for name in NAMES if re.search(rf"'{name}'", repr(answer))}:
        assert name in words, "a name is never broken"


@pytest.mark.parametrize(("verb", "command", "answer"), [shown for shown in SHOWN if "members" in shown[2]])
def test_each_member_is_one_line_of_a_terminal(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch,
    verb: str, command: tuple[str, ...], answer: dict[str, Any],
) -> None:  # fmt: skip
    plain = [{**each, "change": ""} for each in answer["members"]]
    node.verbs[verb] = {**answer, "members": plain, "change": {}, "bans": []}
    lines = on_a_terminal(run, monkeypatch, *command)
    for each in plain:
        (line,) = [line for line in lines if f" {each['name']} " in f" {line} " and str(each["state"]) in line]
        assert str(each["weight"]) in line.split()


def test_copies_are_watched_on_a_terminal_of_80_columns(
    run: Run, node: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = next(answer for verb, _, answer in SHOWN if verb == "transfer.list")
    node.verbs["transfer.list"] = [moving, {"plan_id": b"", "phase": "", "items": [], "errors": {}}]
    lines = on_a_terminal(run, monkeypatch, "transfer", "list", "--watch")
    assert max(len(line.rstrip()) for line in lines) <= COLUMNS
    assert sum("node-d" in line for line in lines) == 1, "a line for each receiver"


@pytest.mark.parametrize(("verb", "command", "answer"), SHOWN)
def test_every_key_of_the_json_is_on_the_page_about_commands(
    run: Run, node: StandIn, verb: str, command: tuple[str, ...], answer: dict[str, Any]
) -> None:
    node.verbs[verb] = answer
    document = run(*command, "-o", "json").document
    keys = set(document) | {key for item in document["items"] for key in item}
    assert sorted(key for key in keys if not re.search(rf"[`\"]{key}[`\"]", CLI_PAGE)) == []


def test_weights_are_in_a_table_only_where_one_is_not_1(run: Run, node: StandIn) -> None:
    answer = next(answer for verb, _, answer in SHOWN if verb == "ring.show")
    nodes = next(answer for verb, _, answer in SHOWN if verb == "node.list")["nodes"]
    node.verbs["ring.show"] = answer
    node.verbs["node.list"] = {"nodes": nodes, **CHANGING}
    for command in (("ring", "show"), ("node", "list")):
        heading, first, *_ = run(*command).out.splitlines()
        assert "weight" in heading.split()
        assert first.split()[0] == "node-a"
    node.verbs["ring.show"] = {**answer, "members": [{**each, "weight": 1} for each in answer["members"]]}
    node.verbs["node.list"] = {"nodes": [{**each, "weight": 1} for each in nodes], **CHANGING}
    for command in (("ring", "show"), ("node", "list")):
        assert "weight" not in run(*command).out
        assert run(*command, "-o", "json").document["items"][0]["weight"] == 1


def test_a_narrow_terminal_goes_without_the_columns_that_can_be_spared_most() -> None:
    columns = [Column("name"), Column("host", spare=1), Column("pid", spare=2)]
    items = [{"name": "n" * 10, "host": "h" * 10, "pid": 12345}]
    assert fitting(columns, items, 80) == columns
    assert fitting(columns, items, 30) == columns[:2]
    assert fitting(columns, items, 20) == columns[:1]
    assert fitting(columns, items, 5) == columns[:1]
