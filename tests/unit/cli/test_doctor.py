"""Promises of `leafdb doctor`: each thing that is wrong is found, by its rule alone, with what to do; a cluster that is
well has nothing; the exit code tells problems from the rest."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leafdb.errors import NotApplied, Reason
from leafdb_cli.doctor_rules import RULES, Level, Seen, findings, unreachable
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NOW = 1_700_000_000_000
GIB = 1 << 30


def facts(**other: Any) -> dict[str, Any]:
    """A node that is well."""
    return {
        "now_ms": NOW + 5, "version": "1.0", "epoch": 7, "warnings": [], "problems": [],
        "settings": {
            "node.name": '"x"', "log.level": '"info"', "limits.client_sessions_max": "10000",
            "repair.purge_interval": '"1h"', "storage.memtable_bytes": '"64MiB"',
        },
        "machine": {"open_files_max": 65_536, "listen_backlog_max": 4_096, "swappiness": 60, "swap_bytes": 0},
        "disk_free_bytes": 50 * GIB, "stored_bytes": 10 * GIB, **other,
    }  # fmt: skip


def member(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "client": f"h:{port}", "peer": f"h:{port + 1}", "http": f"h:{port + 2}"}


def seen(**other: Any) -> Seen:
    nodes = {"a": facts(), "b": facts()}
    members = [member("a", 1), member("b", 11)]
    whole = Seen(NOW, NOW + 10, "1.0", nodes, {}, members, [], [], {})
    return replace(whole, **other)


def with_b(**other: Any) -> Seen:
    """The same with something else about node b."""
    return seen(nodes={"a": facts(), "b": facts(**other)})


def ending(**days: int) -> Seen:
    """The same with certificates of node b that end in so many days, which `status` tells as well."""
    ends = {"node": 300, "ca": 3_000, **days}
    certificates = {which: (NOW + 5) / 1000 + left * 86_400 for which, left in ends.items()}
    problems = ["b: its certificate runs out in few days: issue it anew (leafdb cert rotate)"]
    return replace(with_b(certificates=certificates), problems=problems)


def settings(**other: str) -> dict[str, str]:
    changed: dict[str, str] = {
        **facts()["settings"],
        **{path.replace("__", "."): value for path, value in other.items()},
    }
    return changed


def machine(**other: int) -> dict[str, int]:
    found: dict[str, int] = {**facts()["machine"], **other}
    return found


def test_a_cluster_that_is_well_has_no_findings() -> None:
    assert findings(seen()) == []


CASES: list[tuple[str, Level, str, str, Seen]] = [
    ("answers", Level.PROBLEM, "b", "cannot ask it: no session",
     seen(errors={"b": "no session"}, nodes={"a": facts()}, problems=["b cannot be reached: no session"])),
    ("addresses", Level.PROBLEM, "b", "client address h:11 cannot be reached from here: refused",
     seen(unreached={("b", "client"): "refused"})),
    ("addresses", Level.HINT, "b", "peer address", seen(unreached={("b", "peer"): "timed out"})),
    ("addresses", Level.WARNING, "b", "http address", seen(unreached={("b", "http"): "refused"})),
    ("status", Level.PROBLEM, "b", "its disk is full", seen(problems=["b: its disk is full"])),
    ("status", Level.PROBLEM, "", "12 hints wait", seen(problems=["12 hints wait for delivery"])),
    ("certificates", Level.WARNING, "b", "its certificate runs out in 20 days", ending(node=20)),
    ("certificates", Level.PROBLEM, "b", "its certificate runs out in 2 days", ending(node=2)),
    ("certificates", Level.PROBLEM, "b", "its certificate has run out", ending(node=-1)),
    ("certificates", Level.WARNING, "b", "the last CA it believes runs out in 10 days", ending(ca=10)),
    ("status", Level.PROBLEM, "b", "its certificate has run out",
     seen(problems=["b: its certificate has run out: nobody can connect"])),
    ("ring", Level.HINT, "", "two replicas on one host", seen(ring_warnings=["two replicas on one host"])),
    ("versions", Level.WARNING, "", "a: 1.0; b: 1.1", with_b(version="1.1")),
    ("versions", Level.HINT, "", "this client is of version 2.0", seen(version="2.0")),
    ("epochs", Level.WARNING, "", "a: 7; b: 8", with_b(epoch=8)),
    ("clocks", Level.WARNING, "b", "1.0 s ahead of that of a", with_b(now_ms=NOW + 1_015)),
    ("clocks", Level.PROBLEM, "a", "10.0 s ahead of that of b", with_b(now_ms=NOW - 10_005)),
    ("clocks", Level.HINT, "", "2.0 s ahead of those", seen(asked_ms=NOW + 2_005, answered_ms=NOW + 2_015)),
    ("clocks", Level.HINT, "", "2.0 s behind those", seen(asked_ms=NOW - 2_005, answered_ms=NOW - 1_995)),
    ("disks", Level.PROBLEM, "b", "100.0 MiB are free", with_b(disk_free_bytes=100 << 20)),
    ("disks", Level.WARNING, "b", "4.0 GiB are free", with_b(disk_free_bytes=4 * GIB)),
    ("open files", Level.WARNING, "b", "1024 files", with_b(machine=machine(open_files_max=1_024))),
    ("settings", Level.WARNING, "", "repair.purge_interval differs",
     with_b(settings=settings(repair__purge_interval='"2h"'))),
    ("settings", Level.HINT, "", 'a: "64MiB"; b: "8MiB"', with_b(settings=settings(storage__memtable_bytes='"8MiB"'))),
    ("exposure", Level.WARNING, "b", "auth.insecure", with_b(warnings=["auth.insecure: listen.client can be reached"])),
    ("kernel", Level.HINT, "b", "somaxconn is 128", with_b(machine=machine(listen_backlog_max=128))),
    ("kernel", Level.HINT, "b", "swappiness is 60", with_b(machine=machine(swap_bytes=GIB))),
]  # fmt: skip


@pytest.mark.parametrize(("check", "level", "node", "says", "what"), CASES)
def test_each_thing_is_found_once_with_what_to_do(check: str, level: Level, node: str, says: str, what: Seen) -> None:
    (finding,) = findings(what)
    assert (finding.check, finding.level, finding.node) == (check, level, node)
    assert says in finding.found
    assert finding.advice


def test_every_rule_has_a_case() -> None:
    assert {check for check, *_ in CASES} - {"ring"} == set(RULES)


def test_names_roles_and_logs_are_each_nodes_own() -> None:
    own = settings(node__name='"y"', log__level='"debug"', listen__client='"h:1"', cluster__seeds="[]")
    assert findings(with_b(settings=own)) == []


def test_the_worst_comes_first() -> None:
    found = findings(with_b(version="1.1", disk_free_bytes=0, machine=machine(listen_backlog_max=1)))
    assert [finding.level for finding in found] == [Level.PROBLEM, Level.WARNING, Level.HINT]


def test_what_a_node_of_another_system_does_not_know_is_no_finding() -> None:
    assert findings(with_b(machine={})) == []


def test_nobody_there_is_a_problem_for_each_address() -> None:
    (finding,) = unreachable({"h:1": "refused"})
    assert "nobody answers at h:1: refused" in finding.found
    assert finding.level is Level.PROBLEM


@pytest.fixture
def cluster(run: Run, node: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """One member, which is the stand-in itself; its clock is this machine's."""
    import time

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    address = os.environ["LEAFDB_NODE"]
    node.verbs |= {
        "node.list": {"nodes": [{**member("a", 1), "client": address, "peer": address, "http": ""}]},
        "status": {"problems": [], "errors": {}},
        "ring.show": {"warnings": []},
        "doctor": lambda args: {"nodes": {"a": facts(now_ms=int(time.time() * 1000), version=version())}, "errors": {}},
    }
    return node


def version() -> str:
    import leafdb

    return leafdb.__version__


def test_a_healthy_cluster_is_code_0_and_says_so(run: Run, cluster: StandIn) -> None:
    ended = run("doctor")
    assert (ended.code, ended.out) == (0, "")
    assert "nothing is wrong that could be seen from here" in ended.err
    document = run("doctor", "-o", "json").document
    assert (document["kind"], document["items"], document["nodes"]) == ("FindingList", [], ["a"])
    assert document["checks"] == list(RULES)


def test_a_warning_is_code_0_and_a_problem_7(run: Run, cluster: StandIn) -> None:
    cluster.verbs["ring.show"] = {"warnings": ["two replicas on one host"]}
    warned = run("doctor")
    assert warned.code == 0
    assert warned.out.startswith("hint: two replicas on one host\n    ")
    cluster.verbs["status"] = {"problems": ["a: its disk is full"], "errors": {}}
    ended = run("doctor", "-o", "json")
    assert ended.code == 7
    assert ended.document["items"][0] == {
        "level": "problem", "check": "status", "node": "a", "found": "its disk is full",
        "advice": "docs/operations/trouble.md has every such sentence, with what to do",
    }  # fmt: skip
    assert sorted(key for key in ended.document["items"][0] if f"`{key}`" not in CLI_PAGE) == []
    assert '"code": 7' in ended.err


def test_a_screen_of_80_columns_is_folded_between_words(run: Run, cluster: StandIn) -> None:
    cluster.verbs["status"] = {"problems": ["a: " + "word " * 40], "errors": {}}
    ended = run("doctor", "--no-color", terminal=True)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", ended.out).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("problem: a: word word")


def test_addresses_are_tried_from_here(run: Run, cluster: StandIn) -> None:
    reply = cluster.verbs["node.list"]
    assert isinstance(reply, dict)
    cluster.verbs["node.list"] = {"nodes": [{**reply["nodes"][0], "peer": "127.0.0.1:1", "http": "127.0.0.1:1"}]}
    items = run("doctor", "-o", "json").document["items"]
    assert [(item["level"], item["check"], item["node"]) for item in items] == [
        ("warning", "addresses", "a"), ("hint", "addresses", "a"),
    ]  # fmt: skip


def test_nobody_there_is_code_7_and_json_all_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run("doctor", "--node", "127.0.0.1:1", "--timeout", "1s", "-o", "json")
    assert ended.code == 7
    (item,) = ended.document["items"]
    assert "nobody answers at 127.0.0.1:1" in item["found"]


def test_a_node_of_an_older_version_is_examined_as_far_as_it_tells(run: Run, cluster: StandIn) -> None:
    cluster.verbs["doctor"] = NotApplied("no such verb", reason=Reason.UNSUPPORTED)
    cluster.verbs["status"] = {"problems": ["12 hints wait for delivery"], "errors": {}}
    (item,) = run("doctor", "-o", "json").document["items"]
    assert item["check"] == "status"


def test_a_file_of_connections_that_others_can_read_is_a_warning(run: Run, cluster: StandIn) -> None:
    run("context", "add", "prod", "h:1")
    assert run("doctor", "-o", "json").document["items"] == []
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "leafdb" / "clusters.toml"
    path.chmod(0o644)
    (item,) = run("doctor", "-o", "json").document["items"]
    assert (item["level"], item["advice"]) == ("warning", f"chmod 600 {path}")
