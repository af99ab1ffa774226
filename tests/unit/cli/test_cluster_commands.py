"""Promises of `leafdb cluster` about changes of the ring: a commit is of the plan that was looked at or of none, what
may lose data is said and confirmed by a name, --dry-run changes nothing, --wait ends with how the plan ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from leafdb.errors import DeadlineExceeded, NotApplied, Reason
from support.plan_maps import cluster_of, force_remove, join, leave, plan_map
from support.stand_in import Run, StandIn

STATUS = {"cluster": "prod", "errors": {}}
SAFE = plan_map(cluster_of("a", "b", "c", partitions=16), join("d", 4), leave(2))
UNSAFE = plan_map(cluster_of("a", "b", "c", partitions=16), force_remove(2), force_remove(3), dead=(2, 3))
MOVING = plan_map(cluster_of("a", "b", "c", partitions=16), join("d", 4), leave(2), in_progress=True)
SAFE_ID = SAFE["plan_id"].hex()
UNSAFE_ID = UNSAFE["plan_id"].hex()
UNDERSTOOD = ("--yes", "--i-understand-data-loss")


def ring(epoch: int, *members: int, plan_id: bytes = b"") -> dict[str, Any]:
    """What `ring.show` says of who is there."""
    plan = {"id": plan_id, "phase": "x"} if plan_id else {}
    return {"epoch": epoch, "members": [{"id": number} for number in members], "change": plan}


def transfers(plan_id: bytes, left: int = 5) -> dict[str, Any]:
    """What `transfer.list` says, of one receiver."""
    item = {
        "node": 4, "name": "d", "total": 10, "left": left, "bytes_done": 1 << 20, "bytes_left": left << 20,
        "bytes_per_s": 1024.0, "eta_s": 75.0, "waiting_for": ["b"],
    }  # fmt: skip
    return {"plan_id": plan_id, "phase": "write both, read old", "items": [item] if plan_id else [], "errors": {}}


# -- staging


def test_changes_are_staged_as_they_are_typed(run: Run, node: StandIn) -> None:
    node.verbs["cluster.stage"] = lambda args: {"epoch": 7, "staged": ["one", "two"]}
    joined = run("cluster", "stage", "join", "10.0.0.4:7412", "-o", "json")
    assert joined.code == 0
    assert joined.document["kind"] == "StagedChangeList"
    assert joined.document["items"] == [{"change": "one"}, {"change": "two"}]
    assert joined.document["epoch"] == 7
    assert run("cluster", "stage", "leave", "b").code == 0
    replaced = run("cluster", "stage", "replace", "2", "10.0.0.5:7412")
    assert replaced.out.splitlines() == ["change", "one", "two"]
    assert "nothing has moved: leafdb cluster plan" in replaced.err
    assert node.asked("cluster.stage") == [
        {"change": "join", "address": "10.0.0.4:7412"},
        {"change": "leave", "node": "b"},
        {"change": "replace", "node": "2", "address": "10.0.0.5:7412"},
    ]


def test_a_refused_change_says_why_and_what_to_do(run: Run, node: StandIn) -> None:
    node.verbs["cluster.stage"] = NotApplied("no member has the number 9", reason=Reason.NO_SUCH_MEMBER)
    refused = run("cluster", "stage", "leave", "9")
    assert (refused.code, refused.out) == (3, "")
    assert "leafdb node list" in refused.err


def test_giving_a_member_up_says_what_is_lost_and_wants_its_name(run: Run, node: StandIn) -> None:
    node.verbs["ring.simulate"] = UNSAFE
    node.verbs["cluster.stage"] = {"epoch": 7, "staged": ["one"]}
    unasked = run("cluster", "stage", "force-remove", "b")
    assert unasked.code == 2
    assert "--i-understand-data-loss" in unasked.err
    wrong = run("cluster", "stage", "force-remove", "2", typed="c\n", terminal=True)
    assert wrong.code == 1
    assert node.asked("cluster.stage") == []
    right = run("cluster", "stage", "force-remove", "2", typed="b\n", terminal=True)
    assert right.code == 0
    assert "type b to go on" in right.err, "the name, also where the number was given"
    assert "acknowledged writes may be lost: ranges 0-15" in right.err
    assert run("cluster", "stage", "force-remove", "b", *UNDERSTOOD).code == 0
    assert node.asked("cluster.stage") == [
        {"change": "force-remove", "node": "2"},
        {"change": "force-remove", "node": "b"},
    ]


@pytest.mark.parametrize("what", ["leave", "force-remove"])
def test_a_dry_run_of_staging_is_simulated_by_the_server_and_stages_nothing(run: Run, node: StandIn, what: str) -> None:
    node.verbs["ring.simulate"] = plan_map(cluster_of("a", "b", "c", partitions=16), leave(2))
    shown = run("cluster", "stage", what, "b", "--dry-run")
    assert shown.code == 0
    assert "simulated: nothing is staged" in shown.out
    assert node.asked("ring.simulate") == [{"changes": [{"change": what, "node": "b"}]}]
    assert node.asked("cluster.stage") == []


# -- plan


def test_a_plan_names_the_next_command_to_the_same_nodes(run: Run, node: StandIn) -> None:
    node.verbs["cluster.plan"] = SAFE
    shown = run("cluster", "plan")
    assert shown.code == 0
    assert f"    leafdb cluster commit {SAFE_ID} --wait" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    document = run("cluster", "plan", "-o", "json").document
    assert document["kind"] == "PlanList"
    assert document["items"][0]["next"][0] == f"leafdb cluster commit {SAFE_ID} --wait"
    node.verbs["cluster.plan"] = UNSAFE
    assert f"leafdb cluster commit {UNSAFE_ID} --force --wait" in run("cluster", "plan").out
    node.verbs["cluster.plan"] = MOVING
    moving = run("cluster", "plan").out
    assert "leafdb transfer list --watch" in moving
    assert f"leafdb cluster abort {MOVING['plan_id'].hex()}" in moving


def test_the_next_command_goes_to_the_nodes_that_were_named(run: Run, node: StandIn, monkeypatch: Any) -> None:
    node.verbs["cluster.plan"] = SAFE
    address = os.environ["LEAFDB_NODE"]
    monkeypatch.delenv("LEAFDB_NODE")
    (item,) = run("cluster", "plan", "--node", address, "-o", "json").document["items"]
    assert item["next"][0] == f"leafdb --node {address} cluster commit {SAFE_ID} --wait"


def test_a_plan_on_a_terminal_reads_like_one_in_a_pipe(run: Run, node: StandIn) -> None:
    node.verbs["cluster.plan"] = SAFE
    plain, shown = run("cluster", "plan", "--no-color").out, run("cluster", "plan", "--no-color", terminal=True).out
    assert f"cluster commit {SAFE_ID} --wait" in shown
    assert len(shown.splitlines()) == len(plain.splitlines())


def test_a_plan_is_drawn_into_a_file(run: Run, node: StandIn, tmp_path: Path) -> None:
    node.verbs["cluster.plan"] = SAFE
    drawn = run("cluster", "plan", "--svg", str(tmp_path / "plan.svg"))
    assert drawn.code == 0
    assert ElementTree.fromstring((tmp_path / "plan.svg").read_text(encoding="utf-8")).tag.endswith("svg")
    nowhere = run("cluster", "plan", "--svg", str(tmp_path / "no" / "plan.svg"))
    assert nowhere.code == 1
    assert "Traceback" not in nowhere.err


def test_nothing_staged_is_said_with_what_to_do(run: Run, node: StandIn) -> None:
    node.verbs["cluster.plan"] = NotApplied("nothing is staged", reason=Reason.NOTHING_STAGED)
    shown = run("cluster", "plan")
    assert (shown.code, shown.out) == (1, "")
    assert "leafdb cluster stage" in shown.err


# -- commit


def test_a_commit_names_its_plan_and_no_other(run: Run, node: StandIn) -> None:
    node.verbs["cluster.commit"] = {"epoch": 8, "plan_id": SAFE["plan_id"]}
    done = run("cluster", "commit", SAFE_ID)
    assert done.code == 0
    assert node.asked("cluster.commit") == [{"plan_id": SAFE["plan_id"], "force": False}]
    assert "leafdb transfer list --watch" in done.err


def test_a_stale_plan_is_exit_8_whoever_notices(run: Run, node: StandIn) -> None:
    stale = NotApplied("plan is stale", reason=Reason.PLAN_STALE)
    node.verbs |= {"cluster.commit": stale, "cluster.plan": UNSAFE, "status": STATUS}
    for how in ([], ["--dry-run"], ["--wait"], ["--force", *UNDERSTOOD]):
        told = run("cluster", "commit", SAFE_ID, *how)
        assert told.code == 8, how
        assert "leafdb cluster plan" in told.err
    assert len(node.asked("cluster.commit")) == 1
    node.verbs["cluster.plan"] = NotApplied("nothing is staged", reason=Reason.NOTHING_STAGED)
    assert run("cluster", "commit", SAFE_ID, "--dry-run").code == 8


@pytest.mark.parametrize("text", ["", "zz", "ab", "ab" * 17, "plan"])
def test_what_is_no_plan_id_is_usage(run: Run, node: StandIn, text: str) -> None:
    assert run("cluster", "commit", text).code == 2
    assert node.calls == []


def test_a_forced_commit_says_what_may_be_lost_and_wants_the_clusters_name(run: Run, node: StandIn) -> None:
    node.verbs |= {"cluster.plan": UNSAFE, "status": STATUS, "cluster.commit": {"epoch": 8, "plan_id": b"x" * 16}}
    assert run("cluster", "commit", UNSAFE_ID, "--force").code == 2
    assert run("cluster", "commit", UNSAFE_ID, "--force", typed="staging\n", terminal=True).code == 1
    assert node.asked("cluster.commit") == []
    forced = run("cluster", "commit", UNSAFE_ID, "--force", typed="prod\n", terminal=True)
    assert forced.code == 0
    assert "acknowledged writes may be lost: ranges 0-15" in forced.err
    assert node.asked("cluster.commit") == [{"plan_id": UNSAFE["plan_id"], "force": True}]


def test_force_asks_nothing_where_nothing_is_refused(run: Run, node: StandIn) -> None:
    node.verbs |= {"cluster.plan": SAFE, "cluster.commit": {"epoch": 8, "plan_id": SAFE["plan_id"]}}
    assert run("cluster", "commit", SAFE_ID, "--force").code == 0


def test_a_dry_run_of_a_commit_changes_nothing_and_says_whether_it_would_be_refused(run: Run, node: StandIn) -> None:
    node.verbs["cluster.plan"] = SAFE
    fine = run("cluster", "commit", SAFE_ID, "--dry-run")
    assert fine.code == 0
    assert f"would commit plan {SAFE_ID}" in fine.err
    node.verbs["cluster.plan"] = UNSAFE
    assert run("cluster", "commit", UNSAFE_ID, "--dry-run").code == 1
    assert run("cluster", "commit", UNSAFE_ID, "--dry-run", "--force").code == 0
    assert node.asked("cluster.commit") == []


@pytest.mark.parametrize(
    ("members", "code", "said"), [((1, 3, 4), 0, "is done"), ((1, 2, 3), 1, "was given up; the ring is as it was")]
)
def test_waiting_ends_with_how_the_plan_ended(
    run: Run, node: StandIn, members: tuple[int, ...], code: int, said: str
) -> None:
    plan_id = SAFE["plan_id"]
    node.verbs |= {
        "cluster.plan": SAFE,
        "cluster.commit": {"epoch": 8, "plan_id": plan_id},
        "transfer.list": [transfers(plan_id), transfers(plan_id), transfers(plan_id, 1), transfers(b"")],
        # A node that has not heard of the commit yet has no plan either: that is not the end.
        "ring.show": [ring(7, 1, 2, 3), ring(8, 1, 2, 3, 4, plan_id=plan_id), ring(10, *members)],
    }
    waited = run("cluster", "commit", SAFE_ID, "--wait")
    assert waited.code == code
    assert said in waited.err
    lines = [line for line in waited.err.splitlines() if line.startswith("write both, read old: ")]
    assert lines == [
        "write both, read old: 5 of 10 exchanges, 1.0 MiB of about 6.0 MiB, 1.0 KiB/s, 1m 15s left, waits for b",
        "write both, read old: 9 of 10 exchanges, 1.0 MiB of about 2.0 MiB, 1.0 KiB/s, 1m 15s left, waits for b",
    ], "once for each change"
    assert len(node.asked("ring.show")) == 3


def test_waiting_on_a_terminal_draws_on_stderr_and_leaves_stdout_alone(run: Run, node: StandIn) -> None:
    plan_id = SAFE["plan_id"]
    node.verbs |= {
        "cluster.plan": SAFE,
        "cluster.commit": {"epoch": 8, "plan_id": plan_id},
        "transfer.list": [transfers(plan_id), transfers(b"")],
        "ring.show": ring(10, 1, 3, 4),
    }
    waited = run("cluster", "commit", SAFE_ID, "--wait", terminal=True)
    assert (waited.code, waited.out) == (0, "")
    assert "1.0 MiB of 6.0 MiB" in waited.err
    assert "waits for b, which cannot be reached" in waited.err


def test_waiting_outlives_a_node_that_does_not_answer_for_a_while(run: Run, node: StandIn) -> None:
    plan_id = SAFE["plan_id"]
    node.verbs |= {
        "cluster.plan": SAFE,
        "cluster.commit": {"epoch": 8, "plan_id": plan_id},
        "transfer.list": [DeadlineExceeded("busy", stage="queue"), transfers(plan_id), transfers(b"")],
        "ring.show": ring(10, 1, 3, 4),
    }
    assert run("cluster", "commit", SAFE_ID, "--wait").code == 0
    node.verbs["transfer.list"] = NotApplied("no", reason=Reason.UNAUTHORIZED)
    assert run("cluster", "commit", SAFE_ID, "--wait").code == 6


def test_waiting_gives_up_with_its_time_and_the_plan_goes_on(run: Run, node: StandIn) -> None:
    plan_id = SAFE["plan_id"]
    node.verbs |= {
        "cluster.plan": SAFE,
        "cluster.commit": {"epoch": 8, "plan_id": plan_id},
        "transfer.list": transfers(plan_id),
    }
    waited = run("cluster", "commit", SAFE_ID, "--wait", "--timeout", "300ms")
    assert waited.code == 5
    assert "the plan goes on" in waited.err


def test_waiting_may_take_longer_than_any_request(run: Run, node: StandIn) -> None:
    plan_id = SAFE["plan_id"]
    node.verbs |= {
        "cluster.plan": SAFE,
        "cluster.commit": {"epoch": 8, "plan_id": plan_id},
        "transfer.list": [transfers(plan_id), transfers(b"")],
        "ring.show": ring(10, 1, 3, 4),
    }
    assert run("cluster", "commit", SAFE_ID, "--wait", "--timeout", "2d").code == 0
    told = run("cluster", "commit", SAFE_ID, "--timeout", "2d")
    assert told.code == 2, "without waiting it is the deadline of a request"
    assert "300 seconds" in told.err


# -- clear, abort


def test_clear_forgets_what_is_staged(run: Run, node: StandIn) -> None:
    node.verbs["cluster.clear"] = {"epoch": 9}
    assert run("cluster", "clear").code == 0
    assert node.asked("cluster.clear") == [{}]


def test_abort_is_of_this_plan_or_of_any(run: Run, node: StandIn) -> None:
    node.verbs["cluster.abort"] = {"epoch": 9, "phase": ""}
    assert run("cluster", "abort").code == 0
    assert run("cluster", "abort", SAFE_ID).code == 0
    assert node.asked("cluster.abort") == [{}, {"plan_id": SAFE["plan_id"]}]


def test_abort_waits_until_reads_and_writes_are_back(run: Run, node: StandIn) -> None:
    plan_id = MOVING["plan_id"]
    node.verbs |= {
        "cluster.plan": MOVING,
        "cluster.abort": {"epoch": 10, "phase": "given up, reads go back"},
        "transfer.list": [transfers(plan_id), transfers(b"")],
        "ring.show": [ring(10, 1, 2, 3, 4, plan_id=plan_id), ring(11, 1, 2, 3)],
    }
    waited = run("cluster", "abort", "--wait")
    assert waited.code == 0
    assert "on its way back" in waited.err
    assert "was given up" in waited.err


def test_an_abort_without_somebody_that_has_not_ended_the_retreat_says_what_to_do(run: Run, node: StandIn) -> None:
    node.verbs["cluster.abort"] = {"epoch": 10, "phase": "given up, reads go back"}
    assert "once more not to wait for c, 7" in run("cluster", "abort", "--without", "c", "--without", "7").err
    assert "once more" not in run("cluster", "abort").err
    assert node.asked("cluster.abort") == [{"without": ["c", "7"]}, {}]


def test_an_abort_that_comes_too_late_says_that_it_was_done(run: Run, node: StandIn) -> None:
    node.verbs |= {
        "cluster.plan": MOVING,
        "cluster.abort": {"epoch": 10, "phase": ""},
        "transfer.list": transfers(b""),
        "ring.show": ring(11, 1, 3, 4),
    }
    waited = run("cluster", "abort", "--wait")
    assert waited.code == 1
    assert "is done" in waited.err


# -- recover


def test_recover_says_what_may_be_lost_and_wants_the_clusters_name(run: Run, node: StandIn) -> None:
    node.verbs |= {
        "cluster.status": {"name": "prod"},
        "cluster.recover": {
            "generation": 2, "control": ["c"], "without": ["a", "b"], "lost": ["buckets made after epoch 40"],
            "errors": {"a": "gone"},
        },
    }  # fmt: skip
    dry = run("cluster", "recover", "--lost", "a", "--lost", "b", "--dry-run", "-o", "json")
    assert dry.code == 0
    assert dry.item["lost"] == ["buckets made after epoch 40"]
    assert dry.document["errors"] == {"a": "gone"}
    assert run("cluster", "recover", typed="other\n", terminal=True).code == 1
    assert all(args["dry_run"] for args in node.asked("cluster.recover"))
    done = run("cluster", "recover", "--lost", "a", typed="prod\n", terminal=True)
    assert done.code == 0
    assert "buckets made after epoch 40" in done.err
    assert node.asked("cluster.recover")[-1] == {"dry_run": False, "cluster": "prod", "lost": ["a"]}


def test_recover_without_names_does_what_it_showed(run: Run, node: StandIn) -> None:
    node.verbs |= {
        "cluster.status": {"name": "prod"},
        "cluster.recover": {"generation": 2, "control": ["c"], "without": ["a", "b"], "lost": []},
    }
    assert run("cluster", "recover", *UNDERSTOOD).code == 0
    assert [args["lost"] for args in node.asked("cluster.recover")] == [[], ["a", "b"]]
