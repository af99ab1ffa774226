"""Promises: `leafdb sim run --seed` prints verdict, counters and fingerprint; a failure is shrunk and its timeline is
printed; usage that makes no sense is refused."""

from __future__ import annotations

import json

import pytest

from leafdb.sim.outcome import Broken, Outcome, Tier
from leafdb.sim.trace import Line
from leafdb_cli.main import main
from leafdb_cli.options import Format
from leafdb_cli.sim_pool import Job
from leafdb_cli.sim_single import run_single
from support.simulations import Screen

JOB = Job("record", 7, 3, 100)


def runner(seed: int, *, nodes: int = 5, operations: int = 1_000, keep: bool = False) -> Outcome:
    """Seed 7 fails from 12 operations on."""
    return Outcome(
        Tier.RECORD,
        seed,
        nodes,
        operations,
        1.0,
        f"{operations:032x}",
        Broken("I2", "value v1 is gone", "k1") if seed == 7 and operations >= 12 else None,
        {"kill": 4},
        {"met": 2, "unmet": 0},
        (Line(0.5, "n1", "k1", "stored v1"),) if keep else (),
    )


def test_a_run_that_holds_prints_verdict_counters_and_trace() -> None:
    screen = Screen()
    assert run_single(screen.session, Job("record", 8, 3, 100), runner, shorten=True)
    text = screen.out.getvalue()
    assert text.startswith("seed 8, tier record, 3 nodes, 100 operations, 1.0s virtual in ")
    assert "nothing was broken" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["kill", "4"] in rows
    assert ["unmet", "0"] in rows
    assert rows[-1] == ["trace", f"{100:032x}"]


def test_a_run_that_fails_is_shrunk_and_told() -> None:
    screen = Screen()
    assert not run_single(screen.session, JOB, runner, shorten=True)
    text = screen.out.getvalue()
    assert "I2 was broken\n  value v1 is gone (key k1)" in text
    assert "again: leafdb sim run --seed 7 --nodes 3 --ops 12 --tier record" in text
    assert "stored v1" in text
    assert text.endswith(f"trace {100:032x}\n"), "of the run that was asked for"
    assert "shrinking: run 1 with" in screen.err.getvalue()


def test_it_is_not_shrunk_when_nobody_wants_that() -> None:
    screen = Screen()
    assert not run_single(screen.session, JOB, runner, shorten=False)
    assert "I2 was broken" in screen.out.getvalue()
    assert "again" not in screen.out.getvalue()


def test_as_json_it_is_one_item() -> None:
    screen = Screen(Format.JSON)
    assert not run_single(screen.session, JOB, runner, shorten=True)
    document = json.loads(screen.out.getvalue())
    (item,) = document["items"]
    assert document["kind"] == "SimRun"
    assert (item["verdict"], item["invariant"], item["key"]) == ("broken", "I2", "k1")
    assert (item["shrunk"]["operations"], item["shrunk"]["deterministic"]) == (12, True)
    assert any("stored v1" in line for line in item["shrunk"]["timeline"])


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("run", 2),
        ("run --seed 1 --minutes 1", 2),
        ("run --seed 1 --record x.md", 2),
        ("run --seed 1 --tier nonsense", 2),
        ("run --seed 1 --ops 0", 2),
        ("run --seeds 1 --tier record --record x.txt", 1),
        ("run --seeds 1 --tier record --seed-timeout never", 2),
        ("run --seed 1 --tier record --mutation nonsense", 3),
        ("museum nonsense", 3),
    ],
)
def test_usage_that_makes_no_sense_is_refused(line: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sim", *line.split()])
    assert ended.value.code == code
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_gives_the_same_trace_again(capsys: pytest.CaptureFixture[str]) -> None:
    traces = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["sim", "run", "--seed", "3", "--tier", "record", "--ops", "60", "-o", "jsonl"])
        assert ended.value.code == 0
        traces.append(json.loads(capsys.readouterr().out)["trace"])
    assert traces[0] == traces[1]
