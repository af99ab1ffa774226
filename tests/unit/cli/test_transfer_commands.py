"""Promises of `leafdb transfer`: progress in figures that a person and a program read, ended when there is nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leafdb_cli.transfer import parse_rate
from leafdb_cli.transfer_progress import share_done
from support.stand_in import Run, StandIn

PLAN = b"p" * 16
BOLD = re.compile(r"\x1b\[\d*m")
IDLE = {"plan_id": b"", "phase": "", "items": [], "errors": {}}


def receiver(name: str, left: int, **other: Any) -> dict[str, Any]:
    return {
        "node": 4, "name": name, "total": 256, "left": left, "bytes_done": 3 << 30, "bytes_left": left << 20,
        "bytes_per_s": 20 << 20, "eta_s": 123.4, "waiting_for": [], **other,
    }  # fmt: skip


def moving(*items: dict[str, Any], errors: dict[str, str] | None = None) -> dict[str, Any]:
    return {"plan_id": PLAN, "phase": "write both, read old", "items": list(items), "errors": errors or {}}


def test_json_has_the_receivers_and_the_plan_above_them(run: Run, node: StandIn) -> None:
    node.verbs["transfer.list"] = moving(receiver("e", 7), receiver("d", 5), errors={"b": "gone"})
    document = run("transfer", "list", "-o", "json").document
    assert (document["kind"], document["plan_id"]) == ("TransferList", PLAN.hex())
    assert document["phase"] == "write both, read old"
    assert [item["name"] for item in document["items"]] == ["d", "e"]
    assert set(document["items"][0]) == {
        "node", "name", "total", "left", "bytes_done", "bytes_left", "bytes_per_s", "eta_s", "waiting_for",
    }  # fmt: skip
    assert document["errors"] == {"b": "gone"}


def test_a_table_fits_80_columns_and_says_for_whom_is_waited(run: Run, node: StandIn) -> None:
    node.verbs["transfer.list"] = moving(receiver("dev-3", 5, waiting_for=["dev-1"]), receiver("dev-4", 0, eta_s=None))
    plain = run("transfer", "list").out
    assert "dev-1" in plain
    shown = BOLD.sub("", run("transfer", "list", "--no-color", terminal=True).out)
    assert max(map(len, shown.splitlines())) <= 80
    assert "! waits for dev-1, which cannot be reached" in shown
    (row,) = [line for line in shown.splitlines() if line.startswith("dev-3")]
    assert "98 %" in row
    assert "3.0 GiB of 3.0 GiB" in row
    assert "20.0 MiB/s" in row
    assert "2m 03s left" in row
    (done,) = [line for line in shown.splitlines() if line.startswith("dev-4")]
    assert "100 %" in done
    assert "left" not in done


def test_what_the_next_step_waits_for_is_said_in_the_drivers_words(run: Run, node: StandIn) -> None:
    node.verbs["transfer.list"] = [{**moving(receiver("d", 0)), "waiting": ["b has not heard of epoch 9"]}, IDLE]
    assert run("transfer", "list", "--watch").out.endswith("; b has not heard of epoch 9\n")
    node.verbs["transfer.list"] = {**moving(receiver("d", 5)), "waiting": ["d has 5 exchanges to do"]}
    told = run("transfer", "list", "--no-color", terminal=True).out
    assert "exchanges to do" not in told, "that is what the bars say"
    node.verbs["transfer.list"] = {**moving(receiver("d", 0)), "waiting": ["b has not heard of epoch 9"]}
    assert "! b has not heard of epoch 9" in run("transfer", "list", "--no-color", terminal=True).out


def test_a_receiver_that_has_not_counted_yet_is_not_done() -> None:
    assert share_done(receiver("d", 0, total=0, settled=False)) == 0.0
    assert share_done(receiver("d", 0, total=0, settled=True)) == 1.0
    assert share_done(receiver("d", 64)) == 0.75


def test_nothing_to_copy_is_said(run: Run, node: StandIn) -> None:
    node.verbs["transfer.list"] = IDLE
    told = run("transfer", "list")
    assert (told.code, told.out) == (0, "")
    assert "no ring change is in progress" in told.err
    assert run("transfer", "list", "-o", "json").document["items"] == []


def test_watching_without_a_terminal_is_a_line_for_each_change_and_ends(run: Run, node: StandIn) -> None:
    node.verbs["transfer.list"] = [moving(receiver("d", 5)), moving(receiver("d", 5)), moving(receiver("d", 2)), IDLE]
    watched = run("transfer", "list", "--watch")
    assert watched.code == 0
    assert [line.split(",")[1] for line in watched.out.splitlines()] == [
        " read old: 251 of 256 exchanges",
        " read old: 254 of 256 exchanges",
    ]
    assert "no ring change is in progress" in watched.err


def test_watching_on_a_terminal_draws_anew_and_ends(run: Run, node: StandIn) -> None:
    node.verbs["transfer.list"] = [moving(receiver("d", 5)), moving(receiver("d", 2)), IDLE]
    watched = run("transfer", "list", "--watch", terminal=True)
    assert watched.code == 0
    assert watched.out.count("\x1b[H\x1b[2J") == 3


def test_a_limit_is_a_rate_on_all_or_one(run: Run, node: StandIn) -> None:
    node.verbs["transfer.limit"] = {"nodes": ["a", "b"], "errors": {}}
    limited = run("transfer", "limit", "20MiB", "-o", "json")
    assert limited.document["items"] == [
        {"name": "a", "bytes_per_s": 20 << 20},
        {"name": "b", "bytes_per_s": 20 << 20},
    ]
    assert run("transfer", "limit", "none", "--only", "b").code == 0
    assert node.asked("transfer.limit") == [{"bytes_per_s": 20 << 20}, {"bytes_per_s": 0, "node": "b"}]


def test_a_limit_that_not_everybody_took_is_a_failure(run: Run, node: StandIn) -> None:
    node.verbs["transfer.limit"] = {"nodes": ["a"], "errors": {"b": "no session"}}
    limited = run("transfer", "limit", "1KiB")
    assert limited.code == 1
    assert "b could not be asked: no session" in limited.err


@pytest.mark.parametrize(
    ("text", "rate"), [("none", 0), ("1", 1), ("500KiB/s", 512_000), ("1.5MiB", 3 << 19), ("2GiB", 2 << 30)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate
