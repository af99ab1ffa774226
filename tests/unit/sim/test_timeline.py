"""Promises: the timeline of a failure shows what happened to its key, with the faults and the state of every node
beside it, tells repetition once, and is bounded."""

from __future__ import annotations

import pytest

from leafdb.sim.outcome import Broken, Outcome, Tier
from leafdb.sim.timeline import HEAD_ROWS, TAIL_ROWS, promise, timeline
from leafdb.sim.trace import Line
from leafdb.testing.violation import Invariant

REPLAY = "leafdb sim run --seed 7 --nodes 3 --ops 4"

STORY = (
    Line(0.0, "nemesis", None, "cut n1 n2"),
    Line(0.05, "nemesis", None, "kill n1"),
    Line(0.1, "client 1", "k1", "put #1 begins"),
    Line(0.11, "n2", "k1", "stores 1 sibling"),
    Line(0.12, "n2", "k2", "stores another key"),
    Line(0.13, "n3", None, "flushes"),
    Line(0.2, "nemesis", None, "pause n3"),
    Line(0.3, "n1", None, "started"),
    Line(0.4, "n2", "k1", "stores 1 sibling"),
    Line(0.5, "client 1", "k1", "put #1 ends: acknowledged by 2"),
)


def failing(lines: tuple[Line, ...] = STORY, key: str | None = "k1", nodes: int = 3) -> Outcome:
    return Outcome(Tier.CLUSTER, 7, nodes, 4, 0.5, "ab" * 16, Broken("I2", "value v1 is gone", key), lines=lines)


def body(text: str) -> list[str]:
    """The rows below the headings."""
    lines = text.splitlines()
    return lines[next(index for index, line in enumerate(lines) if line.endswith("what")) + 1 :]


def test_it_begins_with_the_seed_the_invariant_in_words_and_the_replay() -> None:
    head = timeline(failing(), REPLAY).split("\n\n")[0]
    assert head.startswith("seed 7 broke I2: Every acknowledged write is live or covered")
    assert "value v1 is gone (key k1)" in head
    assert f"again: {REPLAY}" in head
    assert "ab" * 16 in head


def test_the_key_the_faults_and_the_nodes_are_shown_and_nothing_else() -> None:
    assert body(timeline(failing(), REPLAY)) == [
        "       0.100  . | |  client 1  put #1 begins",
        "       0.110  . # |  n2        stores 1 sibling",
        "       0.200  . | x  nemesis   pause n3",
        "       0.300  # | =  n1        started",
        "       0.400  | # =  n2        stores 1 sibling",
        "       0.500  | | =  client 1  put #1 ends: acknowledged by 2",
    ]


@pytest.mark.parametrize("key", [None, "k9"])
def test_without_a_key_everything_about_the_whole_is_shown(key: str | None) -> None:
    rows = body(timeline(failing(key=key), REPLAY))
    assert [row.split("  ")[-1].strip() for row in rows] == ["cut n1 n2", "kill n1", "flushes", "pause n3", "started"]


def test_a_story_of_one_key_is_that_keys_and_only_the_last_history_is_told() -> None:
    lines = (
        Line(0.0, "runner", None, "history 1"),
        Line(0.1, "client", "key", "reads"),
        Line(1.0, "runner", None, "history 2"),
        Line(1.1, "nemesis", None, "power cut n2"),
        Line(1.2, "client", "key", "writes"),
        Line(1.3, "n2", None, "started"),
        Line(1.4, "checker", None, "I1: one dot, two values"),
    )
    assert body(timeline(failing(lines, key=None), REPLAY)) == [
        "       1.200  | . |  client   writes",
        "       1.300  | # |  n2       started",
        "       1.400  | | |  checker  I1: one dot, two values",
    ]


def test_a_node_that_is_spoken_of_is_read_as_well() -> None:
    lines = (Line(0.0, "nemesis", None, "n2 is killed"), Line(0.1, "client", "k1", "writes"))
    (row,) = body(timeline(failing(lines), REPLAY))
    assert "| . |" in row


def test_repetition_is_told_once() -> None:
    lines = tuple(Line(index / 10, "client 2", "k1", "get fails") for index in range(5))
    assert body(timeline(failing(lines), REPLAY)) == ["       0.000  | | |  client 2  get fails (x5, until 0.400)"]


def test_a_long_story_keeps_its_head_and_its_tail() -> None:
    lines = tuple(Line(float(index), "client 2", "k1", f"get #{index} " + "y" * 500) for index in range(1_000))
    rows = body(timeline(failing(lines), REPLAY))
    assert len(rows) == HEAD_ROWS + TAIL_ROWS + 1
    assert "get #0 " in rows[0]
    assert f"{1_000 - HEAD_ROWS - TAIL_ROWS} rows left out" in rows[HEAD_ROWS]
    assert "get #999 " in rows[-1]
    assert max(map(len, rows)) < 220


def test_columns_stay_in_line_with_many_nodes() -> None:
    lines = (Line(0.0, "n11", "k1", "stores"), Line(0.1, "nemesis", None, "kill n2 n12"), Line(0.2, "n1", "k1", "sees"))
    text = timeline(failing(lines, nodes=12), REPLAY)
    heading = next(line for line in text.splitlines() if line.endswith("what"))
    assert {row.index(who) for row, who in zip(body(text), ("n11", "nemesis", "n1"), strict=True)} == {
        heading.index("who")
    }


def test_a_run_without_a_story_says_so() -> None:
    assert "left no story" in timeline(failing(()), REPLAY)


def test_every_invariant_has_words() -> None:
    assert promise("I1") == "No dot is ever attached to two values."
    assert promise("unheard of") == "unheard of"
    for invariant in Invariant:
        assert len(promise(invariant.value)) > 10
