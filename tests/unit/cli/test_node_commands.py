"""Promises of `leafdb node drain|undrain|safe-to-stop`: they are about one node and make sure that it is that one."""

from __future__ import annotations

import os
from typing import Any

import pytest

from support.stand_in import Run, StandIn


@pytest.fixture(autouse=True)
def _two_nodes(node: StandIn, run: Run) -> None:
    """The node is called b; a is elsewhere."""
    address = os.environ["LEAFDB_NODE"]
    node.verbs["ping"] = {"node": 2, "name": "b", "epoch": 3}
    node.verbs["node.list"] = lambda args: {
        "nodes": [{"name": "a", "client": address}, {"name": "b", "client": address}],
        "errors": {},
    }


def test_a_node_is_drained_by_name_or_by_its_only_address(run: Run, node: StandIn) -> None:
    node.verbs["node.drain"] = {"state": "draining"}
    assert run("node", "drain", "b", "-o", "json").item == {"name": "b", "state": "draining"}
    assert run("node", "drain", "-o", "json").item == {"name": "b", "state": "draining"}
    assert len(node.asked("node.drain")) == 2


def test_another_node_at_that_address_is_left_alone(run: Run, node: StandIn) -> None:
    refused = run("node", "drain", "a")
    assert refused.code == 1
    assert "b answers at the address of a" in refused.err
    assert node.asked("node.drain") == []


def test_a_name_that_nobody_has_and_two_addresses_without_a_name_are_refused(run: Run, node: StandIn) -> None:
    unknown = run("node", "undrain", "z")
    assert unknown.code == 3
    assert "there are a, b" in unknown.err
    address = os.environ["LEAFDB_NODE"]
    assert run("node", "drain", "--node", f"{address},{address}").code == 2
    assert run("node", "safe-to-stop", "--node", f"{address},{address}").code == 2
    assert node.asked("node.drain") == []


def test_waiting_for_a_drain_ends_when_nothing_is_left_to_do(run: Run, node: StandIn) -> None:
    node.verbs["node.drain"] = [{"state": "draining"}, {"state": "draining"}, {"state": "drained"}]
    assert run("node", "drain", "b", "--wait", "-o", "json").item["state"] == "drained"
    node.verbs["node.drain"] = {"state": "draining"}
    late = run("node", "drain", "b", "--wait", "--timeout", "200ms")
    assert late.code == 5
    assert "still draining" in late.err


def test_undrain(run: Run, node: StandIn) -> None:
    node.verbs["node.undrain"] = {"state": "alive"}
    assert run("node", "undrain", "b").out.split() == ["name", "state", "b", "alive"]


def test_safe_to_stop_is_an_exit_code_with_reasons(run: Run, node: StandIn) -> None:
    node.verbs["node.safe_to_stop"] = {"safe": True, "reasons": []}
    assert run("node", "safe-to-stop", "a").code == 0
    assert run("node", "safe-to-stop").code == 0
    assert node.asked("node.safe_to_stop") == [{"node": "a"}, {"node": "b"}], "any node knows of any other"
    node.verbs["node.safe_to_stop"] = {"safe": False, "reasons": ["c is down", "a plan is in progress"]}
    unsafe = run("node", "safe-to-stop", "a", "-o", "json")
    assert unsafe.code == 7
    assert unsafe.item == {"name": "a", "safe": False, "reasons": ["c is down", "a plan is in progress"]}
    assert "c is down; a plan is in progress" in unsafe.err


def test_waiting_until_it_is_safe(run: Run, node: StandIn) -> None:
    unsafe: dict[str, Any] = {"safe": False, "reasons": ["c is down"]}
    node.verbs["node.safe_to_stop"] = [unsafe, unsafe, {"safe": True, "reasons": []}]
    assert run("node", "safe-to-stop", "a", "--wait", "--timeout", "2h").code == 0
    node.verbs["node.safe_to_stop"] = unsafe
    assert run("node", "safe-to-stop", "a", "--wait", "--timeout", "200ms").code == 7
