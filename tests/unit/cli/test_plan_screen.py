"""Promises: a plan reads in 80 columns and tells all it decides on; its JSON has plain values only."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from leafdb.errors import ServerBug
from leafdb.model.bucket import BucketProperties
from leafdb.types import BucketId
from leafdb_cli import plan_screen
from leafdb_cli.plan_screen import plain, plan_lines, pretty
from leafdb_cli.plan_view import PlanView
from support.plan_maps import cluster_of, force_remove, join, leave, plan_map


def view(*changes: Any, simulated: bool = False, **how: Any) -> PlanView:
    """A plan for a cluster of a, b and c with a bucket of n=3."""
    bucket = BucketProperties(id=BucketId(256), name="carts", generation=0)
    return PlanView.from_wire(
        plan_map(cluster_of("a", "b", "c").create_bucket(bucket), *changes, **how), simulated=simulated
    )


def test_everything_that_decides_is_on_the_screen_in_80_columns() -> None:
    plan = view(join("d", 4), leave(2))
    text = plain(plan_lines(plan, [("leafdb cluster commit ID --wait", "do it")]))
    assert max(map(len, text.splitlines())) <= 80
    assert f"plan {plan.plan_id}  staged: nothing has moved" in text
    rows = {line.split()[1]: line.split() for line in text.splitlines() if re.match(r"  [A-D] ", line)}
    assert rows["b"][2:8] == ["85", "33.2", "%", "0", "0.0", "%"]
    assert "goes" in rows["b"]
    assert rows["d"][-4:] == ["0", "->", "256", "rack-1"], "copies for n=3 are on every member"
    assert "85 partitions change their owner (least possible 85, ratio 1.00)" in text
    assert re.search(r"to d +2\.5 GiB", text)
    assert "about 2m 50s at an assumed rate" in text
    for step in ("before", "write both, read old", "write both, read new", "done"):
        assert re.search(rf"{step} +3 of 3", text)
    assert re.search(r"zones of one key's copies, at least \(n=3\) +2 -> +2", text)
    assert "  ! b is of the control set" in text
    assert text.rstrip().endswith("leafdb cluster commit ID --wait"), "what to type is what is read last"
    assert "NOT SAFE" not in text


def test_the_ring_that_will_be_is_drawn_and_what_changes_is_marked_beneath() -> None:
    plan = view(join("d", 4), leave(2))
    lines = plain(plan_lines(plan)).splitlines()
    letters = {share.node: letter for share, letter in zip(plan.shares, "ABCD", strict=True)}
    drawn = marked = ""
    for at, line in enumerate(lines):
        if re.match(r" +\d+  [A-D]{64}$", line):
            drawn += line[8:]
            marked += lines[at + 1][8:].ljust(64)
    assert drawn == "".join(letters[owner] for owner in plan.owners_after)
    pairs = zip(plan.owners_before, plan.owners_after, strict=True)
    assert marked == "".join(" ^"[before != after] for before, after in pairs)
    assert marked.count("^") == plan.moved


def test_what_could_lose_writes_is_said_last_and_loudest_with_its_ranges() -> None:
    plan = view(force_remove(2), force_remove(3), dead=(2, 3))
    text = plain(plan_lines(plan))
    assert text.index("warnings") < text.index("NOT SAFE: acknowledged writes may be lost; a commit needs --force")
    assert "lost: ranges 0-255" in text
    assert re.search(r"before +1 of 3  ranges 0-255", text)


def test_a_plan_in_progress_and_a_simulated_one_say_that_they_are() -> None:
    moving = plain(plan_lines(view(leave(2), in_progress=True)))
    assert "in progress: write both, read old\n  somebody comes or goes" in moving
    assert "left to copy" in moving
    assert "simulated: nothing is staged" in plain(plan_lines(view(leave(2), simulated=True)))


def test_a_terminal_is_shown_the_same_words() -> None:
    plan = view(join("d", 4))
    shown = str(pretty(plan_lines(plan)))
    assert [line.rstrip() for line in shown.splitlines()] == plain(plan_lines(plan)).splitlines()


def test_a_ring_too_large_for_a_screen_is_left_to_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_screen, "STRIP_LINES_MAX", 3)
    plan = view(leave(2))
    text = plain(plan_lines(plan))
    assert "--svg FILE draws them" in text
    assert "^" not in text


def test_json_has_plain_finite_values_and_owners_by_number() -> None:
    plan = view(join("d", 4), leave(2))
    item = json.loads(json.dumps(plan.item(), allow_nan=False))
    assert item["plan_id"] == plan.plan_id
    assert len(item["owners_after"]) == item["partitions"] == 256
    assert item["owners_after"].count(4) == 85
    (newcomer,) = [row for row in item["ownership"] if row["name"] == "d"]
    assert (newcomer["before"], newcomer["after"]) == (0, 85)
    assert (newcomer["copies_before"], newcomer["copies_after"]) == (0, 256)
    assert item["bytes_to"] == [{"name": "d", "bytes": 256 * (10 << 20)}]


def test_a_ratio_without_a_least_is_null_in_json() -> None:
    answer = plan_map(cluster_of("a", "b"), leave(2)) | {
        "moved": 3,
        "moved_least": 0,
        "seconds_estimated": float("inf"),
    }
    item = PlanView.from_wire(answer).item()
    assert item["moved_ratio"] is None
    assert item["seconds_estimated"] is None


def test_who_is_a_member_in_the_end_is_told_by_shares() -> None:
    plan = view(join("d", 4), leave(2))
    assert plan.staying() == {1, 3, 4}
    assert plan.going() == {2}


def test_ranges_as_numbers_become_runs() -> None:
    answer = plan_map(cluster_of("a", "b"), leave(2))
    answer["steps"][0]["ranges"] = [0, 1, 2, 7]
    assert PlanView.from_wire(answer).steps[0].ranges == "0-2, 7"


@pytest.mark.parametrize("field", ["plan_id", "ownership", "owners_before", "steps", "spread_after"])
def test_an_answer_that_is_no_plan_is_a_servers_bug(field: str) -> None:
    answer = plan_map(cluster_of("a", "b"), leave(2))
    with pytest.raises(ServerBug):
        PlanView.from_wire({name: value for name, value in answer.items() if name != field})
    with pytest.raises(ServerBug):
        PlanView.from_wire({**answer, field: 3.5})
